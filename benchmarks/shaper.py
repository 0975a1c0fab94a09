"""A link with a delay and a bandwidth, in user space: a TCP proxy that passes everything on later and not too fast.

Each direction is one queue of all connections, as a link is: what it carries per second is shared, and every byte comes
out half a round trip after it went in. A connection has no more than a window of bytes under way, given back when the
other end has them, so that one connection alone does not fill a long link, as with TCP. Making a connection costs one
more round trip. Packets, losses and slow start are not modelled.

``python -m benchmarks.shaper 127.0.0.1:8080 --round-trip-ms 20 --megabytes 50`` prints the port it listens on and ends
with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self, cast

__all__ = ["Link", "Shaper", "main"]

KIB = 1024


class Link:
    """One direction.

    Args:
        delay_seconds: How much later everything comes out.
        bytes_per_second: How much goes in; None: as much as there is.

    Attributes:
        carried_bytes: Sum of what came out.
    """

    def __init__(self, delay_seconds: float, bytes_per_second: float | None) -> None:
        self.delay_seconds = delay_seconds
        self._rate = bytes_per_second
        self._free = 0.0
        self._queue: deque[tuple[float, Callable[[], None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.carried_bytes = 0

    def carry(self, size_bytes: int, deliver: Callable[[], None]) -> None:
        """Call *deliver* when *size_bytes* that go in now have come out."""
        loop = asyncio.get_running_loop()
        start = max(loop.time(), self._free)
        if self._rate is not None:
            start += size_bytes / self._rate
            self._free = start
        self.carried_bytes += size_bytes
        self._queue.append((start + self.delay_seconds, deliver))
        if self._timer is None:
            self._timer = loop.call_at(self._queue[0][0], self._deliver)

    def _deliver(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time() + 0.0005
        while self._queue and self._queue[0][0] <= now:
            self._queue.popleft()[1]()
        self._timer = loop.call_at(self._queue[0][0], self._deliver) if self._queue else None

    def close(self) -> None:
        """Lose what is under way."""
        self._queue.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _End(asyncio.Protocol):
    """One end of a proxied connection: takes bytes from its socket, and gives those of the other end to it."""

    def __init__(self, link: Link, back: Link, window_bytes: int, opened: Callable[[_End], None] | None = None) -> None:
        self.link, self.back, self.window = link, back, window_bytes
        self.opened = opened
        self.other: _End | None = None
        self.transport: asyncio.Transport | None = None
        self.under_way = 0
        self.early: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self.opened is not None:
            self.opened(self)

    def data_received(self, data: bytes) -> None:
        self.under_way += len(data)
        if self.under_way >= self.window and self.transport is not None:
            self.transport.pause_reading()
        self.link.carry(len(data), lambda: self._arrived(data))

    def _arrived(self, data: bytes) -> None:
        other = self.other
        if other is None or other.transport is None:
            self.early.append(data)
        elif not other.transport.is_closing():
            other.transport.write(data)
        # The sender hears of it half a round trip later.
        asyncio.get_running_loop().call_later(self.back.delay_seconds, self._acknowledged, len(data))

    def _acknowledged(self, size_bytes: int) -> None:
        was_full = self.under_way >= self.window
        self.under_way -= size_bytes
        if was_full and self.under_way < self.window and self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()

    def eof_received(self) -> bool:
        self.link.carry(0, self._end)
        return True

    def _end(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.link.carry(0, self._end)


class Shaper:
    """A proxy in front of one server. Use it as ``async with Shaper(...) as shaper``; it listens on ``shaper.port``.

    Args:
        host: Of the server.
        port: Of the server.
        round_trip_seconds: Of the link.
        bytes_per_second: In each direction; None: as many as there are.
        window_bytes: Of one connection in each direction.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        round_trip_seconds: float = 0.0,
        bytes_per_second: float | None = None,
        window_bytes: int = 512 * KIB,
    ) -> None:
        self._address = host, port
        self.up = Link(round_trip_seconds / 2, bytes_per_second)
        self.down = Link(round_trip_seconds / 2, bytes_per_second)
        self._round_trip = round_trip_seconds
        self._window = window_bytes
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: list[_End] = []
        self.connections = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _End(self.up, self.down, self._window, self._opened), "127.0.0.1", 0
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for end in self._ends:
            if end.transport is not None:
                end.transport.abort()
        self.up.close()
        self.down.close()
        await self._server.wait_closed()
        await asyncio.sleep(0)  # aborted sockets are closed in the next turn of the event loop

    def _opened(self, client: _End) -> None:
        self.connections += 1
        self._ends.append(client)
        task = asyncio.get_running_loop().create_task(self._connect(client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self, client: _End) -> None:
        await asyncio.sleep(self._round_trip)
        server = _End(self.down, self.up, self._window)
        server.other = client
        self._ends.append(server)
        try:
            await asyncio.get_running_loop().create_connection(lambda: server, *self._address)
        except OSError:
            assert client.transport is not None
            client.transport.abort()
            return
        client.other = server
        assert server.transport is not None
        for data in client.early:
            server.transport.write(data)
        client.early.clear()


async def _serve(options: argparse.Namespace) -> None:
    host, _, port = options.server.rpartition(":")
    rate = None if options.megabytes is None else options.megabytes * 1e6
    shaper = Shaper(
        host,
        int(port),
        round_trip_seconds=options.round_trip_ms / 1000,
        bytes_per_second=rate,
        window_bytes=options.window_kib * KIB,
    )
    async with shaper:
        print(shaper.port, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def main() -> None:
    """Run it until the standard input ends."""
    parser = argparse.ArgumentParser(description="A TCP proxy with a delay and a bandwidth.")
    parser.add_argument("server", help="HOST:PORT that it stands in front of")
    parser.add_argument("--round-trip-ms", type=float, default=0.0, help="round trip in milliseconds")
    parser.add_argument("--megabytes", type=float, help="megabytes per second in each direction")
    parser.add_argument("--window-kib", type=int, default=512, help="KiB of one connection that are under way")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
