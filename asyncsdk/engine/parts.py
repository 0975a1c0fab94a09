"""Parts: bytes that go out by one request, which may be tried again."""

from __future__ import annotations

from typing import Protocol

from asyncsdk.engine.budget import Lease
from asyncsdk.engine.work import Work
from asyncsdk.transport.base import Body, BytesBody

__all__ = ["MemoryPart", "Part"]


class Part(Protocol):
    """Some bytes of a source, sent by one request, which may be tried again."""

    @property
    def size_bytes(self) -> int:
        """How many bytes it holds."""

    def body(self) -> Body:
        """Return what the transport sends; a new one for every attempt."""

    async def sent_crc32c(self, work: Work, body: Body) -> int:
        """Return the crc32c of what was sent as *body*."""

    async def crc32c(self, work: Work) -> int:
        """Return the crc32c of the bytes, before they are sent."""

    def release(self) -> None:
        """Give the memory back. Calling it again does nothing."""


class MemoryPart:
    """Bytes in memory."""

    def __init__(self, data: bytes | bytearray | memoryview, lease: Lease | None = None, checksum: int | None = None):
        self._view = data if isinstance(data, bytes) else memoryview(data)
        self._lease = lease
        self._checksum = checksum
        self.size_bytes = len(self._view)

    def body(self) -> Body:
        return BytesBody(self._view)

    async def sent_crc32c(self, work: Work, body: Body) -> int:
        return await self.crc32c(work)

    async def crc32c(self, work: Work) -> int:
        if self._checksum is None:
            self._checksum = await work.crc32c(self._view)
        return self._checksum

    def release(self) -> None:
        if self._lease is not None:
            self._view = b""
            self._lease.release()
