"""A relay below HTTP: bytes pass both ways as they come, but single bits flip, in heads as well as in bodies.

TCP's own checksum lets about one in 65,536 damaged segments through; this is what they look like to a client.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from types import TracebackType
from typing import Self

from tests.support.faults.fault import Direction

__all__ = ["FlippingRelay"]


class FlippingRelay:
    """Use it as an async context manager.

    Args:
        port: Of the server on loopback that it leads to.
        direction: Whose bytes are damaged: what the client sends, or what it receives.
        every_bytes: How many bytes pass between two flips, on average.
        seed: Of chance.

    Attributes:
        port: Where it listens.
        flips: How many bits it flipped.
    """

    def __init__(self, port: int, *, direction: Direction, every_bytes: int, seed: int = 0) -> None:
        self._target = port
        self._direction = direction
        self._every_bytes = every_bytes
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.flips = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
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
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        ends = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            ends.append(far_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer, damages=self._direction == "up"))
                group.create_task(self._pump(far_reader, writer, damages=self._direction == "down"))
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            for end in ends:
                end.transport.abort()
                with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                    await end.wait_closed()
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, damages: bool) -> None:
        left = self._next()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(64 * 1024):
                if damages and left < len(data):
                    changed = bytearray(data)
                    while left < len(changed):
                        changed[left] ^= 1 << self._random.randrange(8)
                        self.flips += 1
                        left += 1 + self._next()
                    data = bytes(changed)
                left -= len(data)
                writer.write(data)
                await writer.drain()
        with contextlib.suppress(ConnectionError, OSError):
            writer.write_eof()

    def _next(self) -> int:
        return int(self._random.expovariate(1 / self._every_bytes))
