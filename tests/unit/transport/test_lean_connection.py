"""The lean transport's connections, over real sockets: what callbacks may do to them, and how they end."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from asyncsdk.checksums import Crc32c
from asyncsdk.errors import AsyncSDKError, ConfigError, ConnectionFailed, RequestTimeout
from asyncsdk.transport.base import Body, BytesBody, FileBody, Reply, ReplyHead, Request, Sink, Timeouts
from asyncsdk.transport.lean import LeanTransport, connecting
from asyncsdk.transport.lean import transport as lean_transport
from asyncsdk.transport.lean.exchange import Exchange
from asyncsdk.transport.lean.pipe import TlsPipe
from tests.support.wire.certificates import Certificates
from tests.support.wire.scripts import OK, early, polite, reply, sized, then
from tests.support.wire.server import Wire, WireServer
from tests.support.wire.sinks import PATIENT, QUICK, Collect, get, put

NO = sized(b"no", status="413 Content Too Large")
LARGE = 32_000_000


@pytest.fixture
async def transport() -> AsyncIterator[LeanTransport]:
    """One that is closed, and an event loop that was told of no error."""
    loop, told = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda loop, context: told.append(context["message"]))
    made = LeanTransport()
    yield made
    await made.aclose()
    gc.collect()
    await asyncio.sleep(0)
    assert [message for message in told if "client_connected_cb" not in message] == []  # that is the server's
    assert not made.pool.connections
    assert not made._working


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def server_context(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Of a server that is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca_file))
    return certificates.server()


class Told(Exchange):
    """Remembers how it ended; may begin another one in the very call that tells it."""

    def __init__(self, request: Request, afterwards: Callable[[], None] = lambda: None) -> None:
        super().__init__(request)
        self.ends: list[Reply | Exception] = []
        self.afterwards = afterwards
        self.done = asyncio.Event()

    def succeed(self, reply: Reply) -> None:
        self._take(reply)

    def fail(self, error: Exception) -> None:
        self._take(error)

    def _take(self, end: Reply | Exception) -> None:
        self.ends.append(end)
        self.done.set()
        self.afterwards()


async def wait_for(condition: Callable[[], object]) -> None:
    """Return when *condition* holds; fail when it does not within ten seconds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def shrink(transport: LeanTransport, size_bytes: int) -> None:
    """Let *transport* read at most *size_bytes* at once."""
    transport.buffer = bytearray(size_bytes)
    transport.view = memoryview(transport.buffer)
    transport.plain = transport.plain[:size_bytes]


# --- callbacks that abandon ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["on_head", "on_received", "sink"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_an_exchange_abandoned_by_what_it_calls_is_told_nothing(
    transport: LeanTransport, where: str, framing: str
) -> None:
    """Nothing is written afterwards, not even what came in the same piece; its connection is closed."""
    data = sized(b"a" * 1000) if framing == "length" else b""
    data = data or b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n0\r\n\r\n"

    abandoned: list[str] = []

    def abandon(at: str) -> None:
        if at == where:
            abandoned.append(at)
            transport.abandon(exchange)

    class Abandoning(Collect):
        def write(self, data: bytes | memoryview) -> None:
            super().write(data)
            abandon("sink")

    sink = Abandoning()

    def on_head(head: ReplyHead) -> Sink:
        abandon("on_head")
        return sink

    async with WireServer(reply(data, ending="keep"), polite()) as server:
        exchange = Told(
            Request("GET", server.url(), on_head=on_head, on_received=lambda n: abandon("on_received"), timeouts=QUICK)
        )
        transport.begin(exchange)
        await wait_for(lambda: abandoned)
        assert not transport.pool.connections
        await asyncio.sleep(0.01)
        assert exchange.ends == []
        assert abandoned == [where]
        assert len(sink.data) <= 1 if framing == "chunked" or where != "sink" else len(sink.data) == 1000
        assert bool(sink.data) is (where == "sink")
        assert (await get(transport, server.url())).body == b"ok"


@pytest.mark.parametrize("kind", ["small", "bytes", "file", "sendfile"])
@pytest.mark.parametrize("calls", [1, 3])
async def test_an_exchange_abandoned_while_it_counts_is_told_nothing(
    transport: LeanTransport, tmp_path: Path, kind: str, calls: int
) -> None:
    """In the middle of sending; nothing more is sent, and the transport works on."""
    size = 100 if kind == "small" else LARGE
    (tmp_path / "file").write_bytes(bytes(size))
    counted: list[int] = []

    def on_sent(count: int) -> None:
        counted.append(count)
        if len(counted) == (1 if kind == "small" else calls):
            transport.abandon(exchange)

    async with WireServer(polite(), receive_buffer=64 * 1024) as server:
        with (tmp_path / "file").open("rb") as file:
            body: Body = BytesBody(bytes(size))
            if kind in {"file", "sendfile"}:
                body = FileBody(file.fileno(), 0, size, checksum=Crc32c() if kind == "file" else None)
            exchange = Told(Request("PUT", server.url(), body=body, on_sent=on_sent, timeouts=PATIENT))
            transport.begin(exchange)
            await wait_for(lambda: counted)
            await wait_for(lambda: not transport.pool.connections)
        await asyncio.sleep(0.02)
        assert exchange.ends == []
        assert len(counted) <= calls
        assert (await put(transport, server.url(), b"x")).body == b"ok"


# --- the next one --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_what_begins_when_it_is_told_goes_on_the_same_connection(transport: LeanTransport, method: str) -> None:
    """One after the other, each in the call that tells of the one before; the last one leaves it for whoever comes."""
    async with WireServer(polite()) as server:
        ended: list[Told] = []

        def begin() -> None:
            if len(ended) < 5:
                url = server.url(f"/{len(ended)}?a=b%2F\xe9#not sent")
                ended.append(Told(Request(method, url, body=BytesBody(b"body"), timeouts=PATIENT), begin))
                transport.begin(ended[-1])

        begin()
        await wait_for(lambda: len(ended) == 5 and ended[-1].ends)
        assert [type(end) for one in ended for end in one.ends] == [Reply] * 5
        assert server.connections == 1
        assert [request.target for request in server.requests] == [f"/{n}?a=b%2F%C3%A9" for n in range(5)]
        assert (transport.freed, transport.pool._idle_count) == (None, 1)


async def test_what_begins_elsewhere_leaves_the_connection_to_others(transport: LeanTransport) -> None:
    """It is idle from then on, and not the one of another server."""
    async with WireServer(polite()) as server, WireServer(polite()) as other:
        last = Told(Request("GET", other.url(), timeouts=PATIENT))
        transport.begin(Told(Request("GET", server.url(), timeouts=PATIENT), lambda: transport.begin(last)))
        await last.done.wait()
        assert (server.connections, other.connections) == (1, 1)
        assert (transport.freed, transport.pool._idle_count) == (None, 2)
        await get(transport, server.url())
        assert server.connections == 1


@pytest.mark.parametrize("has_poll", [True, False])
async def test_a_post_is_not_sent_after_a_goodbye_that_came_with_the_reply(
    transport: LeanTransport, monkeypatch: pytest.MonkeyPatch, has_poll: bool
) -> None:
    """It could not be repeated: another connection takes it, also when it begins in the call that tells."""
    monkeypatch.setattr(connecting, "_HAS_POLL", has_poll)
    async with WireServer(reply(OK, ending="drop")) as server:
        last = Told(Request("POST", server.url("/second"), body=BytesBody(b"once"), timeouts=PATIENT))
        first = Told(Request("POST", server.url("/first"), timeouts=PATIENT), lambda: transport.begin(last))
        transport.begin(first)
        await last.done.wait()
        assert [type(end) for end in last.ends] == [Reply]
        assert server.connections == 2


# --- where a reply ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("eager", [False, True])
async def test_bytes_behind_a_reply_that_fills_the_buffer_answer_nobody(
    transport: LeanTransport, server_context: ssl.SSLContext, tls: bool, eager: bool
) -> None:
    """The next request, which may begin in the very call that hands over the reply, uses another connection."""
    first = sized(b"first" * 100)
    shrink(transport, len(first))
    script = then(first + sized(b"smuggled"), sized(b"smuggled too"))
    async with WireServer(script, polite(), tls=server_context if tls else None) as server:
        second = Told(Request("GET", server.url("/second"), timeouts=PATIENT))
        begin = (lambda: transport.begin(second)) if eager else (lambda: None)
        exchange = Told(Request("GET", server.url("/first"), timeouts=PATIENT), begin)
        transport.begin(exchange)
        await exchange.done.wait()
        if not eager:
            transport.begin(second)
        await second.done.wait()
        assert [end.body for end in exchange.ends + second.ends if isinstance(end, Reply)] == [b"first" * 100, b"ok"]


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_reply_that_fills_the_buffer_and_no_more_keeps_its_connection(
    transport: LeanTransport, server_context: ssl.SSLContext, tls: bool
) -> None:
    """Nothing is behind it."""
    first = sized(b"first" * 100)
    shrink(transport, len(first))
    async with WireServer(then(*[first] * 5), tls=server_context if tls else None) as server:
        for _ in range(5):
            await get(transport, server.url())
        assert server.connections == 1


async def test_a_large_early_reply_is_read_to_its_end_although_sending_failed(transport: LeanTransport) -> None:
    """More than is read in one turn."""
    shrink(transport, 1000)
    body = os.urandom(100_000)

    async def script(connection: Wire) -> None:
        await connection.head()
        await connection.send(sized(body, status="413 Too Large"))
        connection.reset()

    async with WireServer(script, receive_buffer=64 * 1024) as server:
        sink = Collect()
        answer = await put(transport, server.url(), bytes(LARGE), on_head=lambda head: sink)
        assert (answer.status, bytes(sink.data) == body) == (413, True)


@pytest.mark.parametrize("number", [errno.ECONNRESET, errno.EPIPE])
async def test_a_body_that_ends_with_the_connection_must_not_end_with_a_reset(
    transport: LeanTransport, number: int
) -> None:
    """The system tells a reset only once: to whoever sends, who must not take what is read then for an end."""
    gone = asyncio.Event()

    async def script(connection: Wire) -> None:
        await connection.head()
        await connection.send(b"HTTP/1.1 413 Too Large\r\n\r\nno")
        await gone.wait()
        connection.half_close()
        await connection.rest()

    async with WireServer(script, receive_buffer=64 * 1024) as server:
        exchange = Told(Request("PUT", server.url(), body=BytesBody(bytes(LARGE)), timeouts=PATIENT))
        transport.begin(exchange)
        await wait_for(lambda: any(connection._reader.received for connection in transport.pool.connections))
        (connection,) = transport.pool.connections
        connection._send_error = OSError(number, "what sending said")
        gone.set()
        connection._stop_sending()
        await exchange.done.wait()
        (end,) = exchange.ends
        if number == errno.ECONNRESET:
            assert isinstance(end, ConnectionFailed)
        else:
            assert isinstance(end, Reply)
            assert end.body == b"no"


# --- asking first ----------------------------------------------------------------------------------------------


async def refused_once(transport: LeanTransport, server: WireServer) -> None:
    """Let *transport* learn that *server* refuses large bodies early."""
    assert (await put(transport, server.url("/o"), bytes(LARGE))).status == 413
    assert transport._refused


async def test_a_body_is_not_sent_once_its_refusal_began(
    transport: LeanTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the rest of the refusal takes."""
    monkeypatch.setattr(lean_transport, "_HOLD_SECONDS", 0.05)
    late: list[bytes] = []

    async def slow(connection: Wire) -> None:
        await connection.head()
        await connection.send(NO[:-1])
        await asyncio.sleep(0.2)
        await connection.send(NO[-1:])
        late.append(await connection.rest())

    async with WireServer(early(NO, after=10, what="close"), slow) as server:
        await refused_once(transport, server)
        sent: list[int] = []
        answer = await put(transport, server.url("/o"), bytes(LARGE), on_sent=sent.append)
        assert (answer.status, answer.body, sent) == (413, b"no", [])
        await wait_for(lambda: late)
        assert late == [b""]


async def test_asking_takes_less_time_than_a_reply_may(transport: LeanTransport) -> None:
    """A server that knows no ``Expect`` gets the body before the request is given up."""

    async def deaf(connection: Wire) -> None:
        await polite()(connection)

    async with WireServer(early(NO, after=10, what="close"), deaf) as server:
        await refused_once(transport, server)
        answer = await put(transport, server.url("/o"), bytes(LARGE), timeouts=Timeouts(idle=5, reply=0.5))
        assert answer.status == 200
        assert "expect" in server.requests[1].headers


async def test_a_server_that_takes_no_expectations_gets_the_request_without(transport: LeanTransport) -> None:
    """417: once more, on a connection of its own, without asking."""
    script = then(sized(b"", status="417 Expectation Failed"))
    async with WireServer(early(NO, after=10, what="close"), script, polite()) as server:
        await refused_once(transport, server)
        # The body of the second request never comes: its head is all that the script can see.
        server.scripts = (server.scripts[0], _answer_head(sized(b"", status="417 Expectation Failed")), polite())
        sent: list[int] = []
        assert (await put(transport, server.url("/o"), bytes(LARGE), on_sent=sent.append)).status == 200
        assert sum(sent) == LARGE
        assert ["expect" in seen.headers for seen in server.requests] == [False, True, False]


def _answer_head(data: bytes) -> Callable[[Wire], Any]:
    async def script(connection: Wire) -> None:
        await connection.head()
        await connection.send(data)
        await connection.rest()

    return script


# --- time ------------------------------------------------------------------------------------------------------


async def test_half_a_head_has_less_time_than_the_first_byte(transport: LeanTransport) -> None:
    """Once it began, a reply must not stand still for longer than ``idle``."""
    async with WireServer(reply(b"HTTP/1.1 200 OK\r\nCont", ending="keep")) as server:
        with pytest.raises(RequestTimeout) as caught:
            await get(transport, server.url(), timeouts=Timeouts(idle=0.2, reply=30))
        assert caught.value.phase == "reply"


async def test_the_first_byte_may_take_longer_than_half_a_head(transport: LeanTransport) -> None:
    """An informational reply changes nothing about that."""

    async def script(connection: Wire) -> None:
        await connection.request()
        await connection.send(b"HTTP/1.1 103 Early\r\n\r\n")
        await asyncio.sleep(0.5)
        await connection.send(OK)

    async with WireServer(script) as server:
        assert (await get(transport, server.url(), timeouts=Timeouts(idle=0.2, reply=10))).body == b"ok"


async def test_idle_connections_are_closed_after_a_while(
    transport: LeanTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are in use stay."""
    monkeypatch.setattr(lean_transport, "_IDLE_CONNECTION_SECONDS", 0.05)
    monkeypatch.setattr(lean_transport, "_LONGEST_SWEEP_SECONDS", 0.02)
    transport._sweep_seconds = 0.02
    async with WireServer(polite()) as server:
        await get(transport, server.url())
        await wait_for(lambda: not transport.pool.connections)
        assert transport.pool._idle_count == 0
        assert not transport.pool._idle
        await wait_for(lambda: transport._sweep is None)


# --- the end ---------------------------------------------------------------------------------------------------


async def test_addresses_that_were_talked_to_once_are_forgotten(transport: LeanTransport) -> None:
    """Nothing is kept of a server whose connections are all closed."""
    for _ in range(5):
        async with WireServer(then(OK, sized(b"", "Connection: close"))) as server:
            await get(transport, server.url())
            await get(transport, server.url())
    assert not transport.pool._idle


@pytest.mark.parametrize("size", [10, 1_000_000])
@pytest.mark.parametrize("is_kept", [False, True])
async def test_tls_that_takes_no_more_is_a_broken_connection(
    transport: LeanTransport,
    server_context: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    is_kept: bool,
) -> None:
    """An error of ours on a fresh connection, another connection for a kept one; never one of TLS itself."""
    real, calls = TlsPipe.encrypt, 0

    def failing(pipe: TlsPipe, data: bytes | bytearray | memoryview) -> bytes:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError(errno.EPROTO, "TLS, protocol is shutdown")
        return real(pipe, data)

    async with WireServer(polite(), tls=server_context) as server:
        if is_kept:
            await get(transport, server.url())
            monkeypatch.setattr(TlsPipe, "encrypt", failing)
            assert (await put(transport, server.url(), bytes(size))).status == 200
        else:
            monkeypatch.setattr(TlsPipe, "encrypt", failing)
            with pytest.raises(ConnectionFailed, match="shutdown"):
                await put(transport, server.url(), bytes(size))
        assert calls > 0


async def test_closing_twice_and_from_another_task(transport: LeanTransport) -> None:
    """What is under way fails once, with an error of ours; nothing can begin afterwards."""
    async with WireServer(reply(b"", ending="keep")) as server:
        exchange = Told(Request("GET", server.url(), timeouts=PATIENT))
        connecting = Told(Request("GET", server.url(), timeouts=PATIENT))
        transport.begin(exchange)
        await wait_for(lambda: server.requests)
        transport.begin(connecting)
        await asyncio.gather(asyncio.create_task(transport.aclose()), transport.aclose())
        assert [type(end) for end in exchange.ends + connecting.ends] == [ConnectionFailed] * 2
        with pytest.raises(ConfigError, match="closed"):
            transport.begin(exchange)


async def test_a_kept_connection_that_dies_while_the_transport_closes_is_not_replaced(
    transport: LeanTransport,
) -> None:
    """Nobody would ever close the new one."""
    async with WireServer(polite()) as server:
        exchange = Told(Request("GET", server.url(), timeouts=PATIENT))
        await transport.aclose()
        transport.repeat(exchange)
        assert [type(end) for end in exchange.ends] == [ConnectionFailed]
        assert server.connections == 0


def test_a_transport_may_be_closed_when_its_loop_is_closed() -> None:
    """Its sockets are closed; nobody waits for a reply any more."""
    made: list[LeanTransport] = []

    async def use() -> None:
        made.append(LeanTransport())
        async with WireServer(polite()) as server:
            await get(made[0], server.url())
            made[0].begin(Told(Request("GET", server.url(), timeouts=PATIENT)))

    asyncio.run(use())
    socks = [connection.link.sock for connection in made[0].pool.connections]
    asyncio.run(made[0].aclose())
    assert not made[0].pool.connections
    assert [sock.fileno() for sock in socks] == [-1] * len(socks)


async def test_an_error_of_the_file_leaves_nothing_behind(transport: LeanTransport, tmp_path: Path) -> None:
    """On a kept connection, before anything was sent."""
    (tmp_path / "file").write_bytes(b"short")
    async with WireServer(polite()) as server:
        await get(transport, server.url())
        with (tmp_path / "file").open("rb") as file, pytest.raises(AsyncSDKError):
            await transport.send(Request("PUT", server.url(), body=FileBody(file.fileno(), 0, 6)))
        assert not transport.pool.connections
        assert transport.pool._idle_count == 0


# --- odd moments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [True, False])
async def test_what_tls_has_to_say_by_itself_is_said_or_ends_the_connection(
    transport: LeanTransport, server_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    """A key update is answered at once while nothing is being sent; a full socket then ends an idle connection."""
    answers: list[bytes] = []

    def take_output(pipe: TlsPipe) -> bytes:
        answers.append(b"")
        return b"" if room else bytes(64_000_000)

    async with WireServer(then(OK, OK), tls=server_context) as server:
        await get(transport, server.url())
        monkeypatch.setattr(TlsPipe, "has_output", True)
        monkeypatch.setattr(TlsPipe, "take_output", take_output)
        (connection,) = transport.pool.connections
        assert connection._pipe is not None
        connection._decrypt(connection._pipe)
        assert answers == [b""]
        assert connection.is_closed is not room


async def test_a_socket_that_is_full_when_a_request_begins_sends_it_later(transport: LeanTransport) -> None:
    """Whole, and counted once."""
    wait = asyncio.Event()

    async def script(connection: Wire) -> None:
        await connection.request()
        await connection.send(OK)
        await wait.wait()
        data = b""
        while b"PUT " not in data:
            data = data[-3:] + await connection.reader.read(65_536)
        connection.reader._buffer[:0] = data[data.index(b"PUT ") :]  # type: ignore[attr-defined]
        await connection.request()
        await connection.send(OK)

    async with WireServer(script, receive_buffer=64 * 1024) as server:
        await get(transport, server.url())
        (connection,) = transport.pool.connections
        with pytest.raises(BlockingIOError):
            while True:
                connection.link.sock.send(bytes(65_536))
        sent: list[int] = []
        task = asyncio.create_task(put(transport, server.url(), b"y" * 10_000, on_sent=sent.append))
        await asyncio.sleep(0.02)
        assert sent == []
        wait.set()
        assert (await task).body == b"ok"
        assert sum(sent) == 10_000
        assert server.requests[-1].body == b"y" * 10_000


async def test_what_is_known_of_servers_that_refuse_is_bounded(transport: LeanTransport) -> None:
    """And is forgotten after a while."""
    async with WireServer(polite()) as server:
        await get(transport, server.url())
        (connection,) = transport.pool.connections
        for number in range(1000):
            transport.was_refused(replace(connection.address, authority=f"h{number}"), held=False)
        assert len(transport._refused) <= 257
        transport._refused = {connection.address: 0.0}
        await put(transport, server.url(), bytes(2_000_000))
        assert not transport._refused
        assert "expect" not in server.requests[-1].headers


async def test_it_says_which_loops_it_can_run_on(transport: LeanTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that watch sockets."""
    loop = asyncio.get_running_loop()
    assert LeanTransport.can_run(loop)
    monkeypatch.setattr(loop, "add_reader", Mock(side_effect=NotImplementedError))
    assert not LeanTransport.can_run(loop)
