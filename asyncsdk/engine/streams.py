"""Sources that give their bytes once, in order: asynchronous iterables, and file objects read in threads.

They are read into parts that draw from the byte budget, or go through a file where it has no room, and are kept until
they were sent, so that a part can be tried again though its source cannot.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, AsyncIterator
from typing import IO

import anyio

from asyncsdk.engine.parts import Part
from asyncsdk.engine.spooling import PartBuffer
from asyncsdk.engine.strays import StrayCancelledError, no_strays
from asyncsdk.engine.work import SMALL_BYTES, Work
from asyncsdk.errors import AsyncSDKError, SourceUnreadable
from asyncsdk.transport.threads import run_abandonable

__all__ = ["StreamSource"]

_log = logging.getLogger("asyncsdk.engine")


class StreamSource:
    """Bytes that come in order, once, from an asynchronous iterable or a file object read in threads."""

    def __init__(
        self,
        work: Work,
        name: str,
        *,
        pieces: AsyncIterable[bytes] | None = None,
        file: IO[bytes] | None = None,
    ) -> None:
        self._work = work
        self._name = name
        self._pieces: AsyncIterator[bytes] | None = None if pieces is None else aiter(pieces)
        self._file = file
        self._rest = memoryview(b"")
        self._at_end = False
        self.size_bytes: int | None = None

    async def next_part(self, size_bytes: int) -> Part | None:
        # Nothing is set aside before the first byte: a source may be long in coming, or wait for memory itself.
        if not await self.has_more():
            return None
        buffer = PartBuffer(self._work, size_bytes, self._name)
        try:
            await buffer.open()
            await self._read(buffer, size_bytes)
            return await buffer.finish() if buffer.size_bytes else None
        finally:
            await buffer.discard()

    async def has_more(self) -> bool:
        """Whether bytes follow; holds at most one piece of the source to find out."""
        if not self._rest and not self._at_end:
            self._rest = memoryview(await self._next_piece(SMALL_BYTES))
        return bool(self._rest)

    async def _read(self, buffer: PartBuffer, size_bytes: int) -> None:
        while (left := size_bytes - buffer.size_bytes) > 0:
            if not self._rest:
                self._rest = memoryview(await self._next_piece(left))
                if not self._rest:
                    return
            taken = self._rest[:left]
            await buffer.write(taken)
            # An empty view of the piece would still keep all of it.
            self._rest = self._rest[len(taken) :] if len(taken) < len(self._rest) else memoryview(b"")
            del taken

    async def _next_piece(self, size_bytes: int) -> bytes:
        """Return the next piece, not empty but at the end."""
        if self._at_end:
            return b""
        try:
            with no_strays():
                piece = await self._raw_piece(size_bytes)
        except StopAsyncIteration:
            piece = b""
        except AsyncSDKError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever the caller's source raises is a failure of this source
            cause = error.__cause__ if isinstance(error, StrayCancelledError) else error
            raise SourceUnreadable(
                f"{self._name}: reading the source failed with {type(cause).__name__}", source=self._name
            ) from cause
        if not _is_bytes(piece):
            raise SourceUnreadable(
                f"{self._name}: gave {type(piece).__name__} instead of bytes; open files in binary mode",
                source=self._name,
            )
        if not len(piece):
            self._at_end = True
        return bytes(piece)

    async def _raw_piece(self, size_bytes: int) -> bytes:
        if self._pieces is None:
            assert self._file is not None
            # It may be a pipe, on which a read can block for ever; it is the caller's, nothing here closes it.
            return await run_abandonable(
                self._file.read,
                min(size_bytes, 1024 * 1024),
                grace_seconds=self._work.resources.config.cleanup_seconds,
            )
        piece = await anext(self._pieces)
        while _is_bytes(piece) and not len(piece):
            piece = await anext(self._pieces)
        return piece

    async def check_unchanged(self) -> None:
        """Nothing to do: what was read is what was sent."""

    async def aclose(self) -> None:
        # A generator that is left half-way would be finalised by a stray task; it is the caller's code, so bounded.
        close = getattr(self._pieces, "aclose", None)
        if close is not None:
            with anyio.move_on_after(self._work.resources.config.cleanup_seconds, shield=True):
                try:
                    with no_strays():
                        await close()
                except Exception as error:  # noqa: BLE001  # the upload has its outcome; this cannot change it
                    _log.warning("closing the source of %s failed with %s", self._name, type(error).__name__)


def _is_bytes(piece: object) -> bool:
    """Whether a source gave what its type promises; checked because it is the caller's code."""
    return isinstance(piece, (bytes, bytearray, memoryview))
