"""The socket below a connection: what the client does not take yet is kept, in order."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from asyncsdk.server.http.front.handover import Application
from asyncsdk.server.http.front.objects import ObjectBytes
from asyncsdk.server.http.front.shared import Limits, Shared
from asyncsdk.server.http.front.stream import KEPT_BYTES, Stream


class Recording(Stream):
    """A stream that notes what it is told."""

    def __init__(self, shared: Shared, accepted: socket.socket) -> None:
        super().__init__(shared, accepted)
        self.flushes = 0
        self.is_broken = False

    def _received(self, data: bytes) -> None:
        raise AssertionError("nothing is read here")

    def _ended(self) -> None:
        raise AssertionError("nothing is read here")

    def _flushed(self) -> None:
        self.flushes += 1

    def break_off(self) -> None:
        self.is_broken = True
        self._detach()


def streams() -> tuple[Recording, socket.socket]:
    """Return a stream with small buffers, and the client's end of it."""
    ours, client = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * 1024)
    ours.setblocking(False)
    client.setblocking(False)
    nobody = cast("ObjectBytes", None)
    shared = Shared(asyncio.get_running_loop(), cast("Application", None), nobody, ThreadPoolExecutor(1), Limits())
    return Recording(shared, ours), client


async def test_writes_that_the_client_takes_later_arrive_whole_and_in_order() -> None:
    stream, client = streams()
    data = [bytes(range(256)) * 1000, *(bytes([number]) * (7_001 + number) for number in range(100))]
    for piece in data:
        stream.write(piece)
    received = b""
    while len(received) < sum(map(len, data)):
        received += await asyncio.get_running_loop().sock_recv(client, 3_000)
    assert received == b"".join(data)
    await asyncio.sleep(0)
    assert stream.flushes == 1
    stream._detach()
    stream._socket.close()
    client.close()


async def test_a_writer_waits_until_little_is_kept() -> None:
    stream, client = streams()
    stream.write(bytes(KEPT_BYTES * 3))
    waiting = asyncio.create_task(stream.drained())
    await asyncio.sleep(0)
    assert not waiting.done()
    received = 0
    while not waiting.done():
        received += len(await asyncio.get_running_loop().sock_recv(client, 10_000))
    assert received >= KEPT_BYTES
    stream._detach()
    stream._socket.close()
    client.close()


async def test_nobody_waits_for_a_client_that_is_gone() -> None:
    stream, client = streams()
    stream.write(bytes(KEPT_BYTES * 3))
    waiting = asyncio.create_task(stream.drained())
    await asyncio.sleep(0)
    client.close()
    await asyncio.wait_for(waiting, 20)
    assert stream.is_broken
    stream.write(b"into the void")
    stream._socket.close()


async def test_a_client_that_takes_a_byte_now_and_then_is_not_waited_for_for_ever() -> None:
    """Each byte comes soon enough; but a reply has to be taken at 1 KiB/s, after the first minute."""
    stream, client = streams()
    now = [0.0]
    stream._shared.now = lambda: now[0]
    stream.write(bytes(KEPT_BYTES))
    kept = len(stream._out)
    for _ in range(20):
        now[0] += 59
        client.recv(8_000)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert stream._out
    assert stream.expires == 60 + kept / 1024 < now[0]
    stream._detach()
    stream._socket.close()
    client.close()
