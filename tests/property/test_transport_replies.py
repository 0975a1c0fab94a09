"""Whatever bytes a server sends, a transport returns what they mean or an error: never something else, never nothing.

A tiny strict reader says what they mean. Where it finds a reply, every transport must return exactly that; where it
finds none, every transport must fail. httpx may read what only the lax variant reads (see
`tests.contract.transport.deviations`), and then with the lax variant's body.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from asyncsdk.errors import AsyncSDKError, RequestTimeout
from asyncsdk.transport.base import BytesBody, Request
from tests.support.wire.candidates import TRANSPORTS
from tests.support.wire.cases import BAD_CHUNKS, BAD_FRAMING, BAD_HEADS, GOOD
from tests.support.wire.scripts import polite
from tests.support.wire.server import Wire, WireServer
from tests.support.wire.sinks import PATIENT, Collect, get

NEXT = b"the next reply"

# --- the reader ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Meaning:
    """What bytes mean; ``is_delimited``: they say themselves where the reply ends."""

    status: int
    body: bytes
    is_delimited: bool


@dataclass(frozen=True)
class Grammar:
    """What a reader takes for a status line, a header line, the size of a chunk, and a trailer."""

    status: re.Pattern[bytes]
    header: re.Pattern[bytes]
    size: re.Pattern[bytes]
    trailer: re.Pattern[bytes]
    is_lax: bool


_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TEXT = rb"[\t\x20-\x7e\x80-\xff]*"
_ANY = rb"[^\0\n\r\f\v]*"
STRICT = Grammar(
    re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: " + _TEXT + rb")?"),
    re.compile(rb"(" + _TOKEN + rb"):[\t ]*(" + _TEXT + rb"?)[\t ]*"),
    re.compile(rb"([0-9A-Fa-f]{1,15})[\t ]*(?:;" + _TEXT + rb")?"),
    re.compile(_TOKEN + rb":" + _TEXT),
    is_lax=False,
)
LAX = Grammar(
    re.compile(rb"HTTP/(?:1\.([01])|[0-9]\.[0-9]) ([1-9][0-9][0-9])(?: " + _ANY + rb")?"),
    re.compile(rb"(" + _TOKEN + rb"):[\t ]*(" + _ANY + rb"?)[\t ]*"),
    re.compile(rb"([0-9A-Fa-f]{1,20})(?:;[^\n]*)?[\t ]*"),
    re.compile(_TOKEN + rb":" + _ANY),
    is_lax=True,
)


def lines_of(data: bytes, is_lax: bool) -> tuple[list[bytes], bytes] | None:
    """Return the lines up to the blank one, and what follows it; None when there is no blank one."""
    end = re.search(rb"\n\r?\n" if is_lax else rb"\r\n\r\n", data)
    if end is None:
        return None
    head, rest = data[: end.start()], data[end.end() :]
    if not is_lax:
        return head.split(b"\r\n"), rest
    lines: list[bytes] = []
    for line in (head.removesuffix(b"\r")).split(b"\n"):
        line = line.removesuffix(b"\r")
        if line[:1] in {b" ", b"\t"} and len(lines) > 1:
            lines[-1] = lines[-1] + b" " + line.lstrip(b" \t")
        else:
            lines.append(line)
    return lines, rest


def read(data: bytes, method: str, grammar: Grammar) -> Meaning | None:
    """Return what *data*, then the end of the connection, means as the reply to a request; None: no reply."""
    for _ in range(65):
        found = lines_of(data, grammar.is_lax)
        if found is None:
            return None
        (first, *lines), data = found
        status = grammar.status.fullmatch(first)
        headers = [grammar.header.fullmatch(line) for line in lines]
        if status is None or not all(headers) or len(headers) > 256 or status[2] == b"101":
            return None
        if grammar.is_lax and status[2] < b"200":
            continue
        pairs = [(match[1].lower(), match[2].strip(b" \t")) for match in headers if match]
        lengths = {
            text.strip(b" \t") for name, value in pairs if name == b"content-length" for text in value.split(b",")
        }
        codings = [value.lower() for name, value in pairs if name == b"transfer-encoding"]
        if not all(re.fullmatch(rb"[0-9]{1,18}", text) for text in lengths) or len({int(n) for n in lengths}) > 1:
            return None
        if codings and (codings != [b"chunked"] or lengths or status[1] == b"0"):
            return None
        if int(status[2]) >= 200:
            if status[1] is None:
                return None
            break
    else:
        return None
    code = int(status[2])
    if method == "HEAD" or code in {204, 304}:
        return Meaning(code, b"", True)
    if codings:
        body = chunks(data, grammar)
        return None if body is None else Meaning(code, body, True)
    if lengths:
        length = int(lengths.pop())
        return Meaning(code, data[:length], True) if len(data) >= length else None
    return Meaning(code, data, False)


def chunks(data: bytes, grammar: Grammar) -> bytes | None:
    """Return the body that *data* holds in chunks; None when it is none, or not whole."""
    body = b""
    while True:
        line, end, data = data.partition(b"\r\n")
        size = grammar.size.fullmatch(line)
        if not end or size is None or (not grammar.is_lax and b"\n" in line):
            return None
        count = int(size[1], 16)
        if count == 0:
            break
        if data[count : count + 2] != b"\r\n":
            return None
        body += data[:count]
        data = data[count + 2 :]
    if data.startswith((b"\r\n", b"\n") if grammar.is_lax else b"\r\n"):
        return body
    found = lines_of(data, grammar.is_lax)
    return body if found is not None and all(grammar.trailer.fullmatch(line) for line in found[0]) else None


# --- the bytes -----------------------------------------------------------------------------------------------

PIECES = [
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\n\n", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"5", b"-1", b"f", b"\xff",
    b"HTTP/1.1 ", b"HTTP/1.0 ", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"204 ", b"304 ", b"101 ",
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"content-length:7\r\n", b"Content-Length: 5, 5\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Connection: close\r\n", b"X: y\r\n",
    b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"3;a=b\r\nabc\r\n", b"hello", b"chunked", b"Connection: ",
]  # fmt: skip


@st.composite
def wholesome(draw: st.DrawFn) -> bytes:
    """A reply that is fine, with bytes behind it now and then."""
    interim = draw(st.lists(st.sampled_from([b"100 Continue", b"103 Early Hints\r\nLink: a", b"199"]), max_size=3))
    body = draw(st.binary(max_size=60))
    status = draw(st.sampled_from([b"200 OK", b"201", b"204 No Content", b"206 x", b"304 ", b"404 No", b"503 Later"]))
    headers = draw(st.lists(st.sampled_from([b"X: y", b'ETag:\t"a" ', b"Y:", b"Connection: keep-alive"]), max_size=4))
    kind = draw(st.sampled_from(["length", "chunked", "close"]))
    rest = draw(st.sampled_from([b"", b"", b"", b"\r\n", b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"]))
    is_empty = status[:3] in {b"204", b"304"}
    if kind == "length":
        headers.append(b"Content-Length: %d" % len(body))
        data = body
    elif kind == "chunked":
        headers.append(draw(st.sampled_from([b"Transfer-Encoding: chunked", b"transfer-encoding:Chunked"])))
        cuts = sorted(draw(st.sets(st.integers(1, 60), max_size=4)) | {0, 60})
        parts = [body[start:stop] for start, stop in pairwise(cuts)]
        data = b"".join(b"%x%b\r\n%b\r\n" % (len(p), draw(st.sampled_from([b"", b";a=b"])), p) for p in parts if p)
        data += draw(st.sampled_from([b"0\r\n\r\n", b"000;x\r\n\r\n", b"0\r\nX-Sum: 1\r\n\r\n"]))
    else:
        data, rest = body, b""
    if is_empty:
        data = b""
    order = draw(st.permutations(headers))
    head = b"\r\n".join([b"HTTP/1.1 " + status, *order]) + b"\r\n\r\n"
    return b"".join(b"HTTP/1.1 " + one + b"\r\n\r\n" for one in interim) + head + data + rest


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A reply to which a few things happened."""
    known = [*BAD_FRAMING.values(), *BAD_HEADS.values(), *BAD_CHUNKS.values(), *(good[0] for good in GOOD.values())]
    small = [data for data in known if len(data) < 2000]
    data = bytearray(draw(st.one_of(wholesome(), st.sampled_from(small))))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 12))
        what = draw(st.sampled_from(["insert", "replace", "remove", "repeat", "flip"]))
        if what == "insert":
            data[at:at] = draw(st.sampled_from(PIECES))
        elif what == "replace":
            data[at : at + length] = draw(st.sampled_from(PIECES))
        elif what == "remove":
            del data[at : at + length]
        elif what == "repeat":
            data[at:at] = data[at : at + length]
        elif at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
    return bytes(data)


REPLIES = st.one_of(
    wholesome(),
    damaged(),
    damaged(),
    st.lists(st.sampled_from(PIECES), max_size=20).map(b"".join),
    st.lists(st.sampled_from(PIECES), max_size=20).map(lambda parts: b"HTTP/1.1 200 OK\r\n" + b"".join(parts)),
    st.binary(max_size=200),
)
CUTS = st.lists(st.integers(0, 300), max_size=5)
METHODS = st.sampled_from(["GET", "GET", "PUT", "HEAD"])


# --- the property --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for all examples."""
    with asyncio.Runner() as running:
        yield running


async def judge(kind: str, data: bytes, cuts: list[int], method: str) -> None:
    """Let a server send *data* cut into pieces, and hold what the transport makes of it against the readers."""
    expected = read(data, method, STRICT)
    stays = expected is not None and expected.is_delimited
    at = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:stop] for start, stop in pairwise(at)]

    all_sent = asyncio.Event()

    async def script(connection: Wire) -> None:
        await connection.request()
        try:
            for piece in pieces:
                await connection.send(piece)
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        finally:  # the client may have gone before the last of them
            all_sent.set()
        if stays:
            await polite(NEXT)(connection)

    async with WireServer(script, polite(NEXT)) as server:
        transport = TRANSPORTS[kind]()
        try:
            sink, received = Collect(), []
            request = Request(method, server.url("/"), on_head=lambda head: sink, on_received=received.append)
            request.body = BytesBody(b"body") if method == "PUT" else None
            request.timeouts = PATIENT
            seen: Meaning | None = None
            try:
                reply = await transport.send(request)
            except RequestTimeout:
                pytest.fail("it waited for a server that had said everything")
            except AsyncSDKError:
                pass
            else:
                assert reply.size_bytes == len(sink.data) == sum(received)
                assert reply.body == b""
                seen = Meaning(reply.status, bytes(sink.data), False)
            if seen is not None:
                # What comes after the next request is out cannot be told from its reply, by nobody.
                await all_sent.wait()
                await asyncio.sleep(0.002)
            _compare(kind, seen, expected, read(data, method, LAX))
            assert (await get(transport, server.url("/next"))).body == NEXT
        finally:
            await transport.aclose()


def _compare(kind: str, seen: Meaning | None, strict: Meaning | None, lax: Meaning | None) -> None:
    if strict is not None:
        assert seen is not None, f"{strict} was refused"
        assert (seen.status, seen.body) == (strict.status, strict.body)
    elif seen is not None:
        assert kind == "httpx", f"{seen} was made of no reply"
        assert lax is not None, f"{seen} was made of no reply"
        assert (seen.status, seen.body) == (lax.status, lax.body)


def _check(runner: asyncio.Runner, kind: str, data: bytes, cuts: list[int], method: str) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await judge(kind, data, cuts, method)

    runner.run(bounded())


BOUNDS = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@pytest.mark.parametrize("kind", sorted(TRANSPORTS))
@settings(BOUNDS, max_examples=400)
@given(data=REPLIES, cuts=CUTS, method=METHODS)
@example(data=b"HTTP/1.1 204 No\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", cuts=[], method="GET")
def test_a_reply_is_what_it_means_or_an_error(
    runner: asyncio.Runner, kind: str, data: bytes, cuts: list[int], method: str
) -> None:
    """Replies whole, damaged and made of fragments, cut anywhere."""
    _check(runner, kind, data, cuts, method)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", sorted(TRANSPORTS))
@settings(BOUNDS, max_examples=15_000)
@given(data=REPLIES, cuts=CUTS, method=METHODS)
def test_many_replies_are_what_they_mean_or_errors(
    runner: asyncio.Runner, kind: str, data: bytes, cuts: list[int], method: str
) -> None:
    """The same, for longer."""
    _check(runner, kind, data, cuts, method)


def test_the_readers_know_their_examples() -> None:
    """What the contract calls good they read so, what it calls bad they refuse."""
    for name, (data, status, body) in GOOD.items():
        meaning = read(data, "GET", STRICT)
        assert meaning is not None, name
        assert (meaning.status, meaning.body) == (status, body), name
        assert read(data, "GET", LAX) == meaning, name
    for name, data in (BAD_HEADS | BAD_FRAMING | BAD_CHUNKS).items():
        assert read(data, "GET", STRICT) is None, name
