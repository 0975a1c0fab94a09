"""The shaped link: everything arrives in order, later, and not too fast."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress

from benchmarks.shaper import KIB, Shaper

ended: list[bool] = []


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(64 * KIB):
            writer.write(data)
            await writer.drain()
    writer.close()
    ended.append(True)


async def there_and_back(port: int, data: bytes) -> tuple[bytes, float, float]:
    """Return what came back, and after how many seconds its first and last byte did."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    started = loop.time()

    async def send() -> None:
        writer.write(data)
        await writer.drain()

    sending = asyncio.create_task(send())
    answer = await reader.readexactly(1)
    first = loop.time() - started
    answer += await reader.readexactly(len(data) - 1)
    last = loop.time() - started
    await sending
    writer.close()
    await writer.wait_closed()
    async with asyncio.timeout(10):
        while not ended:  # of the other end
            await asyncio.sleep(0.01)
    ended.pop()
    await asyncio.sleep(0)
    return answer, first, last


async def test_bytes_come_later_in_order_and_not_faster_than_the_link() -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    data = os.urandom(400_000)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with Shaper("127.0.0.1", port, round_trip_seconds=0.1, bytes_per_second=1_000_000) as shaper:
            answers = await asyncio.gather(*(there_and_back(shaper.port, data) for _ in range(2)))
            assert shaper.connections == 2
            assert shaper.up.carried_bytes == shaper.down.carried_bytes == 2 * len(data)
    for answer, first, _ in answers:
        assert answer == data
        assert first >= 0.19  # one round trip for the connection, one for the bytes
    assert max(last for _, _, last in answers) >= 2 * len(data) / 1_000_000


async def test_one_connection_has_no_more_than_its_window_under_way() -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    data = os.urandom(256 * KIB)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with Shaper("127.0.0.1", port, round_trip_seconds=0.1, window_bytes=64 * KIB) as shaper:
            answer, _, last = await there_and_back(shaper.port, data)
    assert answer == data
    assert last >= 0.1 + 0.1  # several windows, each waits for the one before


async def test_a_server_that_is_not_there_ends_the_connection() -> None:
    async with Shaper("127.0.0.1", 1) as shaper:
        reader, writer = await asyncio.open_connection("127.0.0.1", shaper.port)
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
