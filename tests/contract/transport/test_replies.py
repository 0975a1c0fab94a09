"""What comes back: what is understood, what is refused, and what can never be taken for a reply.

Where RFC 9112 leaves a choice, the decision stands in the docstring, and all of them in docs/design/http.md.
"""

from __future__ import annotations

import pytest

from asyncsdk.errors import (
    AsyncSDKError,
    ConnectionFailed,
    IncompleteTransfer,
    MalformedResponse,
)
from asyncsdk.transport.base import Request, Transport
from tests.contract.transport.conftest import MakeServer
from tests.contract.transport.deviations import HTTPX_READS
from tests.support.http_server import HttpServer, cut_reply
from tests.support.wire.cases import BAD_CHUNKS, BAD_FRAMING, BAD_HEADS, GOOD
from tests.support.wire.scripts import OK, Ending, polite, reply, sized, then
from tests.support.wire.sinks import Collect, get, put

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 256
MAX_INFORMATIONAL = 64


@pytest.mark.parametrize("name", sorted(GOOD))
async def test_what_is_fine_is_understood(transport: Transport, wire: MakeServer, name: str) -> None:
    """Every form that the grammar allows, and a few that it tolerates.

    Decided: a missing reason phrase (RFC 9112 section 4), a Content-Length repeated with the same value (section 6.3,
    rule 5) and blanks after a chunk size are accepted, for none of them leaves two readings. Statuses from 600 on are
    passed on (RFC 9110 section 15: to be taken for a 5xx, which the engine does).
    """
    data, status, body = GOOD[name]
    server = await wire(reply(data), polite())
    answer = await get(transport, server.url("/"))
    assert (answer.status, answer.body, answer.size_bytes) == (status, body, len(body))
    assert (await get(transport, server.url("/"))).body == b"ok"


@pytest.mark.parametrize("ending", ["keep", "close"])
@pytest.mark.parametrize("name", sorted(BAD_HEADS))
async def test_a_head_that_is_none_is_refused(
    kind: str, transport: Transport, wire: MakeServer, name: str, ending: Ending
) -> None:
    """At once, whether the connection stays open or not, and the connection is dropped.

    Decided: only ``HTTP/1.0`` and ``HTTP/1.1``, exactly so; no line end but CRLF (RFC 9112 section 2.2 would allow
    LF); no folded lines (section 5.2 would allow to unfold them); no empty line before the status line.
    """
    server = await wire(reply(BAD_HEADS[name], ending=ending), polite())
    if kind == "httpx" and name in HTTPX_READS:
        assert (await get(transport, server.url("/"))).body == b"hello"
        return
    heads: list[object] = []
    with pytest.raises(MalformedResponse):
        await get(transport, server.url("/"), on_head=heads.append)
    assert heads == []
    assert (await get(transport, server.url("/"))).body == b"ok"
    assert server.connections == 2


@pytest.mark.parametrize("ending", ["keep", "close"])
@pytest.mark.parametrize("name", sorted(BAD_FRAMING))
async def test_a_body_whose_end_is_in_doubt_is_refused(
    transport: Transport, wire: MakeServer, name: str, ending: Ending
) -> None:
    """Before its head is shown to anybody.

    Decided: Content-Length together with Transfer-Encoding, and any coding but ``chunked`` alone, are refused, where
    RFC 9112 section 6.3 would let the coding win; so is a coding in HTTP/1.0. A Content-Length has at most 18 digits.
    """
    server = await wire(reply(BAD_FRAMING[name], ending=ending), polite())
    heads: list[object] = []
    with pytest.raises(MalformedResponse):
        await get(transport, server.url("/"), on_head=heads.append)
    assert heads == []
    assert (await get(transport, server.url("/"))).body == b"ok"
    assert server.connections == 2


@pytest.mark.parametrize("name", sorted(BAD_CHUNKS))
async def test_chunks_that_are_none_are_refused(transport: Transport, wire: MakeServer, name: str) -> None:
    """Whatever was delivered by then, the request fails and the connection is dropped.

    A size that h11 takes for a number too large to be true ends as a body that was cut off.
    """
    server = await wire(reply(BAD_CHUNKS[name]), polite())
    sink = Collect()
    with pytest.raises((MalformedResponse, ConnectionFailed)):
        await get(transport, server.url("/"), on_head=lambda head: sink)
    assert (await get(transport, server.url("/"))).body == b"ok"
    assert server.connections == 2


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
@pytest.mark.parametrize("framing", ["Content-Length: 5", "Transfer-Encoding: chunked", "X: y"])
async def test_replies_without_a_body_have_none_whatever_they_declare(
    transport: Transport, wire: MakeServer, status: str, framing: str
) -> None:
    """The connection serves the next request: no byte of it is taken for a body (RFC 9112 section 6.3, rule 1)."""
    first = f"HTTP/1.1 {status}\r\n{framing}\r\n\r\n".encode()
    server = await wire(then(first, OK))
    answer = await get(transport, server.url("/"))
    assert (answer.status, answer.body, answer.size_bytes) == (int(status[:3]), b"", 0)
    assert (await get(transport, server.url("/"))).body == b"ok"
    assert server.connections == 1


@pytest.mark.parametrize("framing", ["Content-Length: 5000", "Transfer-Encoding: chunked", "X: y"])
async def test_replies_to_head_have_no_body(transport: Transport, wire: MakeServer, framing: str) -> None:
    """The length is that of what a GET would get; a sink gets nothing."""
    server = await wire(then(f"HTTP/1.1 200 OK\r\n{framing}\r\n\r\n".encode(), OK))
    sink = Collect()
    answer = await transport.send(Request("HEAD", server.url("/"), on_head=lambda head: sink))
    name, _, value = framing.partition(": ")
    assert (answer.status, answer.headers[name], answer.size_bytes, sink.data) == (200, value, 0, b"")
    assert (await get(transport, server.url("/"))).body == b"ok"
    assert server.connections == 1


@pytest.mark.parametrize(
    "before",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 199 Odd\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * MAX_INFORMATIONAL,
    ],
    ids=["100", "102", "103", "199", "two", "many"],
)
@pytest.mark.parametrize("pieces", [1, 3, 20])
async def test_informational_replies_are_passed_over(
    transport: Transport, wire: MakeServer, before: bytes, pieces: int
) -> None:
    """In any number up to 64, in any pieces; they have no body and say nothing of the connection; nobody sees them."""
    data = before + OK
    step = -(-len(data) // pieces)
    parts = [data[at : at + step] for at in range(0, len(data), step)]
    server = await wire(reply(*parts, pause=0.002, ending="keep"))
    heads: list[int] = []
    answer = await put(transport, server.url("/"), b"x", on_head=lambda head: heads.append(head.status))
    assert (answer.status, answer.body, heads, list(answer.headers)) == (200, b"ok", [200], ["content-length"])


async def test_endless_informational_replies_end(transport: Transport, wire: MakeServer) -> None:
    """The request fails, for lean after 64 of them; h11 counts none, and sees the end of the connection."""
    server = await wire(reply(b"HTTP/1.1 102 Processing\r\n\r\n" * 10_000))
    with pytest.raises((MalformedResponse, ConnectionFailed)):
        await get(transport, server.url("/"))


async def test_switching_to_what_nobody_asked_for_is_refused(transport: Transport, wire: MakeServer) -> None:
    """101 is no informational reply to pass over: what follows it is no HTTP (RFC 9110 section 15.2.2)."""
    server = await wire(reply(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n" + OK, ending="keep"), polite())
    with pytest.raises(MalformedResponse):
        await get(transport, server.url("/"))
    assert (await get(transport, server.url("/"))).body == b"ok"


def head_of(size_bytes: int, count: int) -> bytes:
    """Return a reply whose head has this size and this many headers."""
    lines = [b"HTTP/1.1 200 OK", b"Content-Length: 2", *(b"X-%d: y" % i for i in range(count - 2))]
    so_far = len(b"\r\n".join(lines)) + len(b"\r\nPad: ") + 4
    lines.append(b"Pad: " + b"z" * (size_bytes - so_far))
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    assert len(head) == size_bytes
    return head + b"ok"


@pytest.mark.parametrize(
    ("size_bytes", "count"), [(MAX_HEAD_BYTES, 3), (20_000, MAX_HEADERS), (MAX_HEAD_BYTES, MAX_HEADERS)]
)
async def test_heads_may_be_large(transport: Transport, wire: MakeServer, size_bytes: int, count: int) -> None:
    """Up to 64 KiB, blank line included, and 256 header lines."""
    data = head_of(size_bytes, count)
    server = await wire(reply(data), reply(data[:1000], data[1000:60_000], data[60_000:], pause=0.01))
    for _ in range(2):
        answer = await get(transport, server.url("/"), headers={"Connection": "close"})
        assert (answer.body, len(answer.headers)) == (b"ok", count)


@pytest.mark.parametrize(
    ("size_bytes", "count"),
    [(MAX_HEAD_BYTES + 1, 3), (20_000, MAX_HEADERS + 1), (1_000_000, 3), (1_000_000, 50_000)],
)
async def test_heads_beyond_the_limits_are_refused(
    transport: Transport, wire: MakeServer, size_bytes: int, count: int
) -> None:
    """A server cannot fill the memory of its client with a head."""
    server = await wire(reply(head_of(size_bytes, count), ending="keep"), polite())
    with pytest.raises(MalformedResponse):
        await get(transport, server.url("/"))
    assert (await get(transport, server.url("/"))).body == b"ok"


async def test_a_head_without_end_is_refused(transport: Transport, wire: MakeServer) -> None:
    """Long before the memory is full."""
    server = await wire(reply(b"HTTP/1.1 200 OK\r\nX: ", *(b"y" * 65_536 for _ in range(64)), ending="keep"))
    with pytest.raises(MalformedResponse):
        await get(transport, server.url("/"))


async def test_repeated_headers_are_joined(transport: Transport, wire: MakeServer) -> None:
    """In their order (RFC 9110 section 5.3); names in any case, blanks around values gone, other bytes kept."""
    server = await wire(reply(sized(b"", "X-a: 1", "x-A:2 ", "X-A:\t3 4 ", "Y: ä", "Z:")))
    headers = (await get(transport, server.url("/"))).headers
    assert (headers["x-a"], headers["Y"], headers["z"]) == ("1, 2, 3 4", "ä", "")


async def test_a_short_body_says_how_much_came(store: HttpServer, transport: Transport) -> None:
    """A declared length that was not reached."""
    store.objects["/o"] = b"x" * 1000
    store.script("/o", cut_reply(400))
    with pytest.raises(IncompleteTransfer) as caught:
        await get(transport, store.url("/o"))
    assert (caught.value.declared, caught.value.received) == (1000, 400)


@pytest.mark.parametrize("ending", ["close", "reset", "half"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"H",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n",
    ],
    ids=lambda data: str(len(data)) if isinstance(data, bytes) else data,
)
async def test_a_reply_that_is_cut_off_is_an_error(
    transport: Transport, wire: MakeServer, data: bytes, ending: Ending
) -> None:
    """Wherever it is cut and however the connection ends: never a reply, never malformed, never sent once more."""
    server = await wire(reply(data, ending=ending))
    with pytest.raises((ConnectionFailed, IncompleteTransfer)) as caught:
        await put(transport, server.url("/"), b"x")
    assert isinstance(caught.value, IncompleteTransfer) is (b"Length: 5\r\n\r\n" in data)
    assert caught.value.retryable
    assert len(server.requests) == 1


async def test_a_reset_inside_a_close_delimited_body_is_an_error(transport: Transport, wire: MakeServer) -> None:
    """Only an orderly end ends a body."""
    server = await wire(reply(b"HTTP/1.1 200 OK\r\n\r\nhello", ending="reset"))
    with pytest.raises(ConnectionFailed):
        await get(transport, server.url("/"))


@pytest.mark.parametrize("data", [OK, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"])
async def test_a_reset_after_a_whole_reply_changes_nothing(transport: Transport, wire: MakeServer, data: bytes) -> None:
    """The reply was whole."""
    server = await wire(reply(data, ending="reset"), polite())
    assert (await get(transport, server.url("/"))).body == b"ok"
    assert (await get(transport, server.url("/"))).body == b"ok"


async def test_a_half_closed_connection_still_answers(transport: Transport, wire: MakeServer) -> None:
    """FIN right behind the reply ends a body without length, and says nothing else."""
    server = await wire(reply(b"HTTP/1.1 200 OK\r\n\r\nhello", ending="half"))
    assert (await get(transport, server.url("/"))).body == b"hello"


async def test_every_error_is_ours(transport: Transport, wire: MakeServer) -> None:
    """Bytes of no protocol at all."""
    for data in (b"SSH-2.0-x\r\n\r\n", bytes(range(256)) * 10, b"\x16\x03\x01\x02\x00", b"\r\n" * 100, b"\0"):
        server = await wire(reply(data))
        with pytest.raises(AsyncSDKError):
            await get(transport, server.url("/"))
