"""Requests as httpx pulls them: targets byte for byte, bodies in pieces, off the event loop when they are large."""

from __future__ import annotations

from collections.abc import Callable

import httpcore
import httpx

from asyncsdk.transport.base import Body, BytesBody, FileBody, FramedBody, OnBytes, Request, reset_checksum
from asyncsdk.transport.pacing import Turnstile
from asyncsdk.transport.rates import LeastRate
from asyncsdk.transport.threads import Threads

__all__ = ["SMALL_BYTES", "ExactURL", "Outgoing"]

SMALL_BYTES = 64 * 1024
"""Up to here a body is read, checksummed and sent in one piece: a thread costs more than the work."""

FILE_CHUNK_BYTES = 1024 * 1024
BYTES_CHUNK_BYTES = 256 * 1024


class ExactURL(httpx.URL):
    """A URL whose target goes out as it was given: httpx would normalise escapes and break signatures.

    Not httpx's extension ``target``: httpcore says that to a proxy too, in CONNECT, signature and all.
    """

    def __init__(self, root: str, target: bytes) -> None:
        super().__init__(root)
        self._target = target

    @property
    def raw_path(self) -> bytes:
        """Path and query."""
        return self._target


class Outgoing(httpx.AsyncByteStream):
    """The body of one request as httpx pulls it.

    A class with ``__anext__``, no generator: one that httpx drops half-way would be finalised by a stray task.
    """

    def __init__(
        self,
        request: Request,
        has_early_reply: Callable[[], bool],
        threads: Threads,
        rate: LeastRate,
        pace: Turnstile | None = None,
    ) -> None:
        body = request.body
        self._body: Body = BytesBody(b"") if body is None else body
        self._on_sent: OnBytes | None = request.on_sent
        self._has_early_reply = has_early_reply
        self._threads = threads
        self._rate = rate
        self._pace = pace
        self._offset = 0  # read so far
        self._reported = 0  # handed to the socket so far
        self.cut_short = False

    def __aiter__(self) -> Outgoing:
        return self

    async def __anext__(self) -> bytes:
        self._report()
        body = self._body
        left = body.size_bytes - self._offset
        if left <= 0:
            self._rate.pause()
            raise StopAsyncIteration
        if not self._offset:
            self._rate.begin()
        elif self._has_early_reply():
            self._rate.pause()
            self.cut_short = True
            raise httpcore.WriteError  # httpcore then stops sending and reads the reply
        limit = self._rate.piece_bytes or FILE_CHUNK_BYTES
        if self._pace is not None:
            limit = min(limit, self._pace.piece_bytes)
            self._rate.pause()  # waiting for our own limit is no fault of the other side
            await self._pace.take(min(left, limit))
            self._rate.begin()
        if isinstance(body, (FileBody, FramedBody)):
            if body.size_bytes <= SMALL_BYTES:
                data = body.read(self._offset, min(left, limit))
            else:
                self._rate.hold()
                data = await self._threads.run(body.read, self._offset, min(FILE_CHUNK_BYTES, limit))
                self._rate.go_on()
        elif body.size_bytes <= min(SMALL_BYTES, limit):
            data = body.data if isinstance(body.data, bytes) else bytes(body.data)
        else:
            view = memoryview(body.data)[self._offset : self._offset + min(BYTES_CHUNK_BYTES, limit)]
            data = view  # type: ignore[assignment]  # h11 joins it without another copy
        self._offset += len(data)
        self._rate.handed(len(data))
        return data

    def _report(self) -> None:
        moved = self._offset - self._reported
        if moved:
            self._reported = self._offset
            self._rate.moved(moved)
            if self._on_sent is not None:
                self._on_sent(moved)

    def take_back(self) -> None:
        """Undo what was counted: the same body is sent again on another connection."""
        if self._reported and self._on_sent is not None:
            self._on_sent(-self._reported)
        self._reported = 0
        reset_checksum(self._body)
