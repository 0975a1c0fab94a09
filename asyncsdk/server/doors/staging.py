"""One file of a form on its way into the object store: in constant memory, and gone when its request fails."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self, TypeVar

import anyio

from asyncsdk.errors import AsyncSDKError, BadRequest
from asyncsdk.protocol.base import Message
from asyncsdk.protocol.uploads import PreparedUpload
from asyncsdk.server.doors.host import DoorHost, Visit
from asyncsdk.server.http.replies import error_status
from asyncsdk.server.objects.arrivals import Arrival
from asyncsdk.server.objects.clouds.passing import PassingArrival

__all__ = ["StagedFile"]

logger = logging.getLogger("asyncsdk.server")

R = TypeVar("R")

BUFFER_CHUNKS = 1024
"""The same in pieces: each takes some dozens of bytes beside its own, which may be one."""

BUFFER_BYTES = 1024 * 1024
"""Bytes that are gathered before a thread checksums and writes them: a hop for each chunk would cost more than that."""


class StagedFile:
    """Takes the bytes of one file; an async context manager.

    Unless it was committed before its end, whatever arrived is removed: when the client goes away, when its form is
    broken, when the record is refused that the bytes were for. Where objects are kept in a bucket, the bytes come to a
    file without a name in the data folder first, and to the bucket with `finish`.

    Args:
        host: Whose threads write.
        prepared: The platform's answer, made for this process.
        max_bytes: Bytes it may have; None: any number.
    """

    def __init__(self, host: DoorHost, prepared: PreparedUpload, *, max_bytes: int | None = None) -> None:
        assert prepared.key is not None, prepared.verdict  # nothing is told that could make an upload needless
        self.key = prepared.key
        self._host = host
        self._max_bytes = max_bytes
        self._object_id = prepared.key[:24]
        self._arrival: Arrival | PassingArrival | None = None
        self._staged: tuple[str, str] | None = None
        self._buffer: list[bytes] = []
        self._held = 0
        self.size_bytes = 0

    async def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            BadRequest: They are too many (413).
        """
        if self._max_bytes is not None and self.size_bytes + len(data) > self._max_bytes:
            raise BadRequest(f"the file has more than {self._max_bytes} bytes", status=413, code="too_large")
        self._buffer.append(data)
        self._held += len(data)
        self.size_bytes += len(data)
        if self._held >= BUFFER_BYTES or len(self._buffer) >= BUFFER_CHUNKS:
            await self._flush()

    async def finish(self) -> str:
        """Give the object its place and return its crc32c; it counts as arrived then.

        Raises:
            ServerError: The bucket that it is kept in cannot be reached, or refuses.
        """
        await self._flush()
        return await self._host.in_mover(self._finish)

    async def commit(self, visit: Visit, message: Message[R]) -> R:
        """Send the message that makes the object part of something, and return its reply.

        It is heard to its end whatever becomes of the request. Only when it is refused are the bytes removed: after any
        other failure nobody knows whether they are part of something now, and the sweep finds out.

        Raises:
            ResponseError: The platform refused.
        """
        staged, self._staged = self._staged, None
        with anyio.CancelScope(shield=True):
            try:
                reply = await visit.send(message, to_files=True)
            except AsyncSDKError as error:
                if error_status(error) < 500:
                    self._staged = staged
                raise
        return reply

    async def _flush(self) -> None:
        chunks, self._buffer, self._held = self._buffer, [], 0
        await self._host.in_thread(lambda: self._write(chunks))

    def _write(self, chunks: list[bytes]) -> None:
        if self._arrival is None:
            self._arrival = self._host.backend.arrival(self._object_id)
        self._arrival.write(chunks)

    def _finish(self) -> str:
        assert self._arrival is not None
        crc32c = ""
        try:
            crc32c = self._arrival.finish()
        finally:  # a bucket may have it although it did not say so
            if crc32c or isinstance(self._arrival, PassingArrival):
                self._staged = (self._object_id, crc32c)
        return crc32c

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self._host.in_mover(self._discard)

    def _discard(self) -> None:
        if self._arrival is not None:
            self._arrival.discard()
        if self._staged is not None:
            try:
                self._host.backend.store.remove([self._staged])
            except (AsyncSDKError, OSError) as error:  # what ended the request is what its client is to hear
                logger.warning("object %s is left for the sweep: %s", self._object_id, error)
