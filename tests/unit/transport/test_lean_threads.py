"""Threads of the lean transport: whoever is told how a request ended may close its file, so no thread uses it then."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import ssl
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from asyncsdk.checksums import Crc32c
from asyncsdk.errors import ConnectionFailed
from asyncsdk.transport.base import BytesBody, FileBody, Reply, ReplyHead, Request, Sink, Timeouts
from asyncsdk.transport.lean import LeanTransport
from asyncsdk.transport.lean.reading import CacheReader
from asyncsdk.transport.threads import Threads
from tests.support.wire.certificates import Certificates
from tests.support.wire.scripts import OK, polite, sized
from tests.support.wire.server import Wire, WireServer
from tests.support.wire.sinks import PATIENT, Collect, get

NO = sized(b"no", status="413 Content Too Large")
SIZE = 32_000_000


class Held(Threads):
    """Threads that run what they are given when the test says so."""

    def __init__(self) -> None:
        super().__init__(1)
        self.waiting: list[Callable[[], None]] = []
        self.most = 0

    def submit(self, function: Callable[..., object], *args: object) -> Future[object]:  # type: ignore[override]
        future: Future[object] = Future()
        future.set_running_or_notify_cancel()

        def run() -> None:
            try:
                future.set_result(function(*args))
            except Exception as error:  # noqa: BLE001  # it is what the future is for
                future.set_exception(error)

        self.waiting.append(run)
        self.most = max(self.most, len(self.waiting))
        return future

    def run(self) -> None:  # type: ignore[override]
        """Let the oldest end."""
        self.waiting.pop(0)()


@pytest.fixture
def threads() -> Held:
    return Held()


@pytest.fixture
async def transport(threads: Held) -> AsyncIterator[LeanTransport]:
    """One that is closed, and an event loop that was told of no error."""
    loop, told = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda loop, context: told.append(context["message"]))
    made = LeanTransport(threads=threads)
    yield made
    await made.aclose()
    gc.collect()
    await asyncio.sleep(0)
    assert [message for message in told if "client_connected_cb" not in message] == []  # that is the server's
    assert threads.waiting == []
    assert not made.pool.connections


@pytest.fixture
def cold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is in the page cache until a thread has brought it there."""
    real = CacheReader.read_into

    def read_into(reader: CacheReader, view: memoryview, offset: int) -> int | None:
        return real(reader, view, offset) if reader._warm[0] <= offset < reader._warm[1] else None

    monkeypatch.setattr(CacheReader, "read_into", read_into)


@pytest.fixture
def file(tmp_path: Path) -> int:
    path = tmp_path / "file"
    path.write_bytes(bytes(SIZE))
    return os.open(path, os.O_RDONLY)


def upload(transport: LeanTransport, url: str, file: int, **facts: object) -> asyncio.Task[Reply]:
    """Send *file*, and close it as soon as it is over."""

    async def send() -> Reply:
        try:
            body = FileBody(file, 0, SIZE, checksum=Crc32c())
            request = Request("PUT", url, body=body, timeouts=PATIENT, **facts)  # type: ignore[arg-type]
            return await transport.send(request)
        finally:
            os.close(file)

    return asyncio.create_task(send())


async def wait_for(condition: Callable[[], object]) -> None:
    """Return when *condition* holds; fail when it does not within ten seconds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def server_context(certificates: Certificates, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Of a server that is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca_file))
    return certificates.server()


def answering(data: bytes, *, go: asyncio.Event, ending: str = "keep") -> Callable[[Wire], object]:
    """Answer a head with *data* as soon as *go* says so."""

    async def script(connection: Wire) -> None:
        await connection.head()
        await go.wait()
        if ending == "reset":
            connection.reset()
            return
        await connection.send(data)
        await connection.rest()

    return script


@pytest.mark.parametrize("ending", ["keep", "reset"])
async def test_a_request_that_ends_while_a_thread_reads_its_file_ends_after_it(
    transport: LeanTransport, threads: Held, cold: None, file: int, server_context: ssl.SSLContext, ending: str
) -> None:
    """With an early reply or with an error."""
    go = asyncio.Event()
    async with WireServer(answering(NO, go=go, ending=ending), tls=server_context) as server:  # type: ignore[arg-type]
        task = upload(transport, server.url(), file)
        await wait_for(lambda: threads.waiting)
        go.set()
        await wait_for(lambda: not transport.pool.connections)
        await asyncio.sleep(0.02)
        assert not task.done()
        os.fstat(file)
        threads.run()
        if ending == "keep":
            assert (await task).status == 413
        else:
            with pytest.raises(ConnectionFailed):
                await task


@pytest.mark.parametrize("ending", [None, "keep", "reset"])
async def test_a_cancelled_request_ends_when_its_thread_is_through(
    transport: LeanTransport,
    threads: Held,
    cold: None,
    file: int,
    server_context: ssl.SSLContext,
    ending: str | None,
) -> None:
    """Whether its connection was gone by then or not."""
    go = asyncio.Event()
    async with WireServer(answering(NO, go=go, ending=ending or "keep"), tls=server_context) as server:  # type: ignore[arg-type]
        task = upload(transport, server.url(), file)
        await wait_for(lambda: threads.waiting)
        if ending is not None:
            go.set()
            await wait_for(lambda: not transport.pool.connections)
        task.cancel()
        await asyncio.sleep(0.02)
        assert not task.done()
        os.fstat(file)
        threads.run()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_kept_connection_that_dies_while_a_thread_reads_is_replaced_after_it(
    transport: LeanTransport, threads: Held, cold: None, file: int, server_context: ssl.SSLContext
) -> None:
    """The body arrives whole over the new one."""
    go = asyncio.Event()

    async def dying(connection: Wire) -> None:
        await connection.request()
        await connection.send(OK)
        await connection.head()
        await go.wait()
        connection.reset()

    async with WireServer(dying, polite(), tls=server_context) as server:
        await get(transport, server.url())
        sent: list[int] = []
        task = upload(transport, server.url(), file, on_sent=sent.append)
        await wait_for(lambda: threads.waiting)
        go.set()
        await wait_for(lambda: not transport.pool.connections)
        assert server.connections == 1
        while not task.done():
            await wait_for(lambda: threads.waiting or task.done())
            if threads.waiting:
                threads.run()
        assert (await task).status == 200
        assert sum(sent) == SIZE
        assert len(server.requests[-1].body) == SIZE


async def test_a_slow_sink_and_a_cold_file_take_turns(
    transport: LeanTransport, threads: Held, cold: None, file: int, server_context: ssl.SSLContext
) -> None:
    """A server that answers while it reads: one thread at a time, and all of the reply arrives in order."""
    body = os.urandom(2_000_000)

    async def script(connection: Wire) -> None:
        await connection.head()
        await connection.send(sized(body))
        await connection.rest()

    sink = Collect()

    def on_head(head: ReplyHead) -> Sink:
        (connection,) = transport.pool.connections
        connection._reader._is_slow = True
        return sink

    async with WireServer(script, tls=server_context) as server:
        task = upload(transport, server.url(), file, on_head=on_head)
        while not task.done():
            await wait_for(lambda: threads.waiting or task.done())
            await asyncio.sleep(0.002)
            if threads.waiting:
                threads.run()
        assert (await task).size_bytes == len(body)
        assert bytes(sink.data) == body
        assert threads.most == 1


async def slow_download(transport: LeanTransport, url: str, sink: Sink) -> Reply:
    """Get with a sink that is known to be slow from the start."""

    def on_head(head: ReplyHead) -> Sink:
        (connection,) = transport.pool.connections
        connection._reader._is_slow = True
        return sink

    return await get(transport, url, on_head=on_head)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_a_reset_behind_what_came_changes_nothing(
    transport: LeanTransport, threads: Held, server_context: ssl.SSLContext, tls: bool
) -> None:
    """The rest of a reply was here, decrypted or not, while a slow sink took its beginning."""
    transport.plain = transport.plain[:50_000]
    body = os.urandom(120_000)
    reset = asyncio.Event()

    async def script(connection: Wire) -> None:
        await connection.request()
        await connection.send(sized(body))
        await reset.wait()
        connection.reset()

    sink = Collect()
    async with WireServer(script, tls=server_context if tls else None) as server:
        task = asyncio.create_task(slow_download(transport, server.url(), sink))
        await wait_for(lambda: threads.waiting)
        await asyncio.sleep(0.05)  # all of it is in the buffers of this end
        if not tls:
            threads.run()
            await wait_for(lambda: threads.waiting or task.done())
        reset.set()
        await asyncio.sleep(0.02)
        while not task.done():
            await wait_for(lambda: threads.waiting or task.done())
            if threads.waiting:
                threads.run()
        assert (await task).size_bytes == len(body)
        assert bytes(sink.data) == body


async def test_what_a_slow_sink_raises_comes_out(transport: LeanTransport, threads: Held) -> None:
    """Unchanged, and the connection is dropped."""

    class Full:
        def write(self, data: bytes | memoryview) -> None:
            raise OSError(errno.ENOSPC, "full")

    async with WireServer(polite(bytes(100_000))) as server:
        task = asyncio.create_task(slow_download(transport, server.url(), Full()))
        await wait_for(lambda: threads.waiting)
        threads.run()
        with pytest.raises(OSError, match="full"):
            await task
        assert not transport.pool.connections


async def test_what_a_slow_sink_raises_after_a_cancellation_reaches_nobody(
    transport: LeanTransport, threads: Held
) -> None:
    """And is no error that was never looked at; nothing more is written than the piece under way."""

    class Full:
        written = 0

        def write(self, data: bytes | memoryview) -> None:
            self.written += 1
            raise OSError(errno.ENOSPC, "full")

    sink = Full()
    async with WireServer(polite(bytes(100_000))) as server:
        task = asyncio.create_task(slow_download(transport, server.url(), sink))
        await wait_for(lambda: threads.waiting)
        (connection,) = transport.pool.connections
        reader = connection._reader
        request = reader._request
        task.cancel()
        await asyncio.sleep(0.01)
        reader._request, reader._sink = request, sink  # the thread was past looking when it was dropped
        reader.late = reader.late or [b"x"]
        assert not task.done()
        threads.run()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sink.written == 1


async def test_closing_waits_for_the_thread_that_uses_a_file(
    transport: LeanTransport, threads: Held, cold: None, file: int, server_context: ssl.SSLContext
) -> None:
    """Whoever closed the transport closes the file next."""
    async with WireServer(answering(NO, go=asyncio.Event()), tls=server_context) as server:  # type: ignore[arg-type]
        task = upload(transport, server.url(), file)
        await wait_for(lambda: threads.waiting)
        closing = asyncio.create_task(transport.aclose())
        await asyncio.sleep(0.02)
        assert not closing.done()
        assert not task.done()
        threads.run()
        await closing
        with pytest.raises(ConnectionFailed, match="closed"):
            await task


async def test_time_in_a_thread_is_no_silence(transport: LeanTransport, threads: Held) -> None:
    """Neither idle nor too slow."""
    data = sized(bytes(60_000))
    is_slow, go = asyncio.Event(), asyncio.Event()

    async def script(connection: Wire) -> None:
        await connection.request()
        await connection.send(data[:-59_000])
        await is_slow.wait()
        await connection.send(data[-59_000:-30_000])
        await go.wait()
        await connection.send(data[-30_000:])
        await connection.rest()

    sink = Collect()
    timeouts = Timeouts(idle=0.3, reply=0.3, rate_seconds=0.3, rate_bytes=50_000)
    async with WireServer(script) as server:
        task = asyncio.create_task(get(transport, server.url(), on_head=lambda head: sink, timeouts=timeouts))
        await wait_for(lambda: sink.data)
        (connection,) = transport.pool.connections
        connection._reader._is_slow = True
        is_slow.set()
        await wait_for(lambda: threads.waiting)
        await asyncio.sleep(1.0)
        threads.run()
        await asyncio.sleep(0.1)
        go.set()
        while not task.done():
            await wait_for(lambda: threads.waiting or task.done())
            if threads.waiting:
                threads.run()
        assert (await task).size_bytes == 60_000


async def test_an_early_reply_with_a_slow_sink_is_whole_although_sending_failed(
    transport: LeanTransport, threads: Held
) -> None:
    """What a thread is writing is not overtaken by what is read when the connection breaks."""
    body = os.urandom(60_000)

    async def script(connection: Wire) -> None:
        await connection.head()
        await connection.send(sized(body, status="413 Too Large"))
        await broken.wait()
        connection.reset()

    broken = asyncio.Event()
    sink = Collect()

    def on_head(head: ReplyHead) -> Sink:
        (connection,) = transport.pool.connections
        connection._reader._is_slow = True
        return sink

    transport.buffer = bytearray(10_000)
    transport.view = memoryview(transport.buffer)
    async with WireServer(script, receive_buffer=64 * 1024) as server:
        request = Request("PUT", server.url(), body=BytesBody(bytes(SIZE)), on_head=on_head, timeouts=PATIENT)
        task = asyncio.create_task(transport.send(request))
        await wait_for(lambda: threads.waiting)
        await asyncio.sleep(0.05)
        broken.set()
        await asyncio.sleep(0.05)
        while not task.done():
            await wait_for(lambda: threads.waiting or task.done())
            if threads.waiting:
                threads.run()
        assert (await task).status == 413
        assert bytes(sink.data) == body
        assert threads.most == 1
