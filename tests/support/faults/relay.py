"""Relays on loopback: bytes pass both ways as they come, until the test is over; each kind does something to them."""

from __future__ import annotations

import asyncio
import contextlib
from ssl import SSLContext
from types import TracebackType
from typing import Self

from tests.support.faults.fault import Direction

__all__ = ["Relay"]


class Relay:
    """Leads to a server as it is; use it as an async context manager.

    Args:
        port: Of the server on loopback that it leads to.
        ssl: Who it is to its clients, which speak TLS then; None: they do not.

    Attributes:
        port: Where it listens.
        connections: How many it accepted.
    """

    def __init__(self, port: int, *, ssl: SSLContext | None = None) -> None:
        self._target = port
        self._ssl = ssl
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._ssl)
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
        return f"{'http' if self._ssl is None else 'https'}://127.0.0.1:{self.port}"

    def through(self, data: bytes, direction: Direction, number: int) -> bytes:
        """Return what becomes of *data* on connection *number*, counted from 1."""
        return data

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        number, ends = self.connections, [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            ends.append(far_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer, "up", number))
                group.create_task(self._pump(far_reader, writer, "down", number))
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            for end in ends:
                end.transport.abort()
                with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                    await end.wait_closed()
            self._tasks.discard(task)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction, number: int
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(64 * 1024):
                writer.write(self.through(data, direction, number))
                await writer.drain()
        with contextlib.suppress(OSError):
            if writer.can_write_eof():
                writer.write_eof()
            else:  # TLS knows no end of one way alone
                writer.close()
