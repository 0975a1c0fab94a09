"""Parts of streams that memory has no room for: they go through a file without a name.

Streams that are uploaded while they are fed by downloads of the same process could wait for each other for ever: each
upload holds memory for a part that is not full yet, and each download waits for the memory that would fill it. So no
upload waits for memory for long, or holds it for long while its source gives nothing and somebody else waits for it:
the part goes on in a temporary file. That costs the disk some work, and never an answer.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from typing import IO

import anyio

from asyncsdk.checksums import Crc32c
from asyncsdk.engine.budget import Lease
from asyncsdk.engine.parts import MemoryPart, Part
from asyncsdk.engine.work import Work
from asyncsdk.os_errors import os_errors
from asyncsdk.transport.base import Body, FileBody

__all__ = ["PATIENCE_SECONDS", "PartBuffer", "SpooledPart"]

PATIENCE_SECONDS = 0.5
"""How long memory is waited for, and how long it is held for a source that gives nothing though others wait for it."""

_STEP_BYTES = 8 * 1024 * 1024
"""Memory for a part is taken as it fills, in steps: the part may be large, and its stream tiny."""


class SpooledPart:
    """A part in a temporary file that has no name."""

    def __init__(self, file: IO[bytes], size_bytes: int, name: str) -> None:
        self._file = file
        self._name = name
        self.size_bytes = size_bytes

    def body(self) -> Body:
        return FileBody(self._file.fileno(), 0, self.size_bytes, name=self._name, checksum=Crc32c())

    async def sent_crc32c(self, work: Work, body: Body) -> int:
        assert isinstance(body, FileBody)
        assert body.checksum is not None
        return body.checksum.value

    async def crc32c(self, work: Work) -> int:
        checksum = Crc32c()
        body = FileBody(self._file.fileno(), 0, self.size_bytes, name=self._name, checksum=checksum)

        def step() -> bool:
            body.read(checksum.size_bytes, 1024 * 1024)
            return checksum.size_bytes < body.size_bytes

        if self.size_bytes:
            await work.resources.threads.run_in_steps(step)
        return checksum.value

    def release(self) -> None:
        self._file.close()


class PartBuffer:
    """Collects the bytes of one part: in memory that was leased, or in a temporary file.

    Args:
        size_bytes: How many there may be.
        name: Of the source, for errors.
    """

    def __init__(self, work: Work, size_bytes: int, name: str) -> None:
        self._work = work
        self._most = size_bytes
        self._name = name
        self._lease: Lease | None = None
        self._data = bytearray()
        self._file: IO[bytes] | None = None
        self._spilling: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._seen = 0
        self.size_bytes = 0

    async def open(self) -> None:
        """Get memory for it; a file if that is long in coming."""
        budget = self._work.resources.budget
        first = min(self._most, _STEP_BYTES)
        with anyio.move_on_after(PATIENCE_SECONDS):
            self._lease = await budget.take(first)
        if self._lease is None:
            await self._work.resources.threads.run(self._make_file)
            return
        self._data = bytearray(first)  # at once: appending takes up to an eighth more than the budget knows of
        self._watch()

    async def _grow(self, size_bytes: int) -> None:
        """Get memory for *size_bytes* in all; everything goes to a file if that is long in coming."""
        lease, more = self._lease, None
        if lease is None or size_bytes <= lease.size_bytes:
            return
        steps = -(-(size_bytes - lease.size_bytes) // _STEP_BYTES)
        with anyio.move_on_after(PATIENCE_SECONDS):  # never for long: it holds some, and others may do the same
            more = await self._work.resources.budget.take(min(steps * _STEP_BYTES, self._most - lease.size_bytes))
        if more is None or self._spilling is not None:
            if more is not None:
                more.release()
            self._spilling = self._spilling or asyncio.ensure_future(self._spill())
            return
        lease.absorb(more)
        self._data.extend(bytes(lease.size_bytes - len(self._data)))

    async def write(self, data: memoryview) -> None:
        """Take *data*."""
        if self._spilling is None:
            await self._grow(self.size_bytes + len(data))
        if self._spilling is not None:
            await self._spilling
        if self._file is None:
            self._data[self.size_bytes : self.size_bytes + len(data)] = data
        else:
            await self._work.resources.threads.run(self._write_file, data, self.size_bytes)
        self.size_bytes += len(data)

    async def finish(self) -> Part:
        """Return what was collected; this is of no more use."""
        self._stop_watching()
        if self._spilling is not None:
            await self._spilling
        if self._file is not None:
            part = SpooledPart(self._file, self.size_bytes, self._name)
            self._file = None
            return part
        assert self._lease is not None
        del self._data[self.size_bytes :]
        self._lease.shrink(self.size_bytes)
        lease, self._lease = self._lease, None
        return MemoryPart(self._data, lease)

    async def discard(self) -> None:
        """Give everything back. After `finish` there is nothing left to."""
        self._stop_watching()
        if self._spilling is not None:
            with anyio.CancelScope(shield=True):  # a thread reads the memory and writes the file
                await asyncio.wait([self._spilling])
            if not self._spilling.cancelled():
                self._spilling.exception()  # whoever wrote next has it; nobody did when the source ended otherwise
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    # --- from memory into a file -----------------------------------------------------------------------------

    def _watch(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._look)

    def _stop_watching(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Let go of the memory if others wait for it and the source gave nothing lately."""
        self._timer = None
        if self._seen == self.size_bytes and self._work.resources.budget.is_wanted:
            self._spilling = asyncio.ensure_future(self._spill())
        else:
            self._seen = self.size_bytes
            self._watch()

    async def _spill(self) -> None:
        await self._work.resources.threads.run(self._move_to_file)
        self._data = bytearray()
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def _move_to_file(self) -> None:
        self._make_file()
        with memoryview(self._data) as view:
            self._write_file(view[: self.size_bytes], 0)

    def _make_file(self) -> None:
        with os_errors("destination", source=self._name):
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  # closed by whoever releases the part

    def _write_file(self, data: memoryview, offset: int) -> None:
        assert self._file is not None
        with os_errors("destination", source=self._name):
            while len(data):
                count = os.pwrite(self._file.fileno(), data, offset)
                data, offset = data[count:], offset + count
