"""Cancelling: the connection is dropped, nothing is written afterwards, nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import pytest

from asyncsdk.checksums import Crc32c
from asyncsdk.errors import ConnectionFailed
from asyncsdk.transport.base import FileBody, Reply, Request, Transport
from tests.contract.transport.conftest import MakeServer, MakeTransport
from tests.support.http_server import HttpServer
from tests.support.wire.scripts import polite, reply, sized
from tests.support.wire.server import Wire
from tests.support.wire.sinks import Collect, get, put


def tasks_left() -> list[asyncio.Task[object]]:
    """Tasks that neither the test nor its server runs."""
    return [t for t in asyncio.all_tasks() if t is not asyncio.current_task() and "_accept" not in repr(t)]


async def cancelled(task: asyncio.Task[object]) -> None:
    """Cancel, and see that it was."""
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_after_a_cancellation_nothing_is_written_and_no_task_is_left(
    store: HttpServer, transport: Transport
) -> None:
    """In the middle of a large body; the transport works on."""
    store.objects["/o"] = bytes(50_000_000)
    sink = Collect()
    task = asyncio.create_task(get(transport, store.url("/o"), on_head=lambda head: sink))
    while not sink.data:
        await asyncio.sleep(0)
    await cancelled(task)
    size = len(sink.data)
    assert tasks_left() == []
    await asyncio.sleep(0.05)
    assert len(sink.data) == size
    store.objects["/o"] = b"small"
    assert (await get(transport, store.url("/o"))).body == b"small"


async def test_cancelled_while_waiting_for_the_reply(transport: Transport, wire: MakeServer) -> None:
    """The server sees the connection end, and the late reply reaches nobody."""
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def slow(connection: Wire) -> None:
        await connection.request()
        arrived.set()
        await connection.rest()
        gone.set()

    server = await wire(slow, polite())
    task = asyncio.create_task(get(transport, server.url("/")))
    await arrived.wait()
    await cancelled(task)
    async with asyncio.timeout(10):
        await gone.wait()
    assert tasks_left() == []
    assert (await get(transport, server.url("/"))).body == b"ok"


@pytest.mark.parametrize("checksum", [None, Crc32c])
async def test_cancelled_while_a_file_is_sent_the_file_is_free(
    transport: Transport, wire: MakeServer, tmp_path: Path, checksum: type[Crc32c] | None
) -> None:
    """When the cancelled call is over, nobody reads the file any more: its number may stand for another one."""
    began = asyncio.Event()

    async def slow(connection: Wire) -> None:
        await connection.head()
        await connection.reader.read(1)
        began.set()
        await asyncio.Event().wait()

    server = await wire(slow, polite())
    path = tmp_path / "file"
    path.write_bytes(bytes(64_000_000))
    file = os.open(path, os.O_RDONLY)
    body = FileBody(file, 0, 64_000_000, checksum=checksum() if checksum else None)
    task = asyncio.create_task(transport.send(Request("PUT", server.url("/"), body=body)))
    await began.wait()
    await cancelled(task)
    os.close(file)
    done = body.checksum.size_bytes if body.checksum is not None else 0
    await asyncio.sleep(0.05)
    assert (body.checksum.size_bytes if body.checksum is not None else 0) == done
    assert tasks_left() == []
    assert (await put(transport, server.url("/"), b"x")).body == b"ok"


async def test_cancelled_while_connecting(make: MakeTransport) -> None:
    """A TLS handshake that never ends; its connection is closed."""
    accepted, ended = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        await reader.read()
        ended.set()
        writer.transport.abort()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        task = asyncio.create_task(get(make(), url))
        await accepted.wait()
        await asyncio.sleep(0.02)
        await cancelled(task)
        async with asyncio.timeout(10):
            await ended.wait()
    finally:
        server.close()
        await server.wait_closed()


async def test_cancelled_at_any_moment_the_next_request_is_answered_rightly(
    transport: Transport, wire: MakeServer
) -> None:
    """After 0, 1, 2 ... turns of the loop: no reply ever goes to another request, no task stays."""

    async def echo(connection: Wire) -> None:
        while True:
            seen = await connection.request()
            await connection.send(sized(seen.target.encode()))

    server = await wire(echo)
    for turns in range(40):
        task = asyncio.create_task(put(transport, server.url(f"/cancelled-{turns}"), b"x" * 1000))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):  # it may be done by now
            assert (await task).body == f"/cancelled-{turns}".encode()
        assert (await put(transport, server.url(f"/next-{turns}"), b"y")).body == f"/next-{turns}".encode()
    assert tasks_left() == []


async def test_cancelling_one_of_many_leaves_the_others(transport: Transport, wire: MakeServer) -> None:
    """Each has a connection of its own."""
    server = await wire(reply(b"", ending="keep"), polite())
    silent = asyncio.create_task(get(transport, server.url("/silent")))
    while server.connections < 1:
        await asyncio.sleep(0.001)
    others = [asyncio.create_task(get(transport, server.url(f"/{i}"))) for i in range(5)]
    await asyncio.sleep(0.01)
    await cancelled(silent)
    assert [(await other).body for other in others] == [b"ok"] * 5


async def test_closing_the_transport_ends_what_is_under_way(make: MakeTransport, wire: MakeServer) -> None:
    """Whoever awaits a reply hears of it within seconds, in one of our errors or as a cancellation."""
    server = await wire(reply(b"", ending="keep"))
    transport = make()
    task = asyncio.create_task(get(transport, server.url("/")))
    while not server.requests:
        await asyncio.sleep(0.001)
    await transport.aclose()
    task.cancel()
    with pytest.raises((Exception, asyncio.CancelledError)):
        await task
    assert tasks_left() == []


async def test_closed_in_the_moment_a_request_begins(make: MakeTransport, wire: MakeServer) -> None:
    """Before the task that connects has had its first turn: the request is told all the same."""
    server = await wire(polite())
    transport = make()
    tasks = [asyncio.create_task(get(transport, server.url("/o"))) for _ in range(3)]
    await asyncio.sleep(0)
    await transport.aclose()
    async with asyncio.timeout(20):
        for end in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(end, ConnectionFailed | Reply)
