"""Copying an open file into another one, a step at a time: a cancellation does not wait for the end.

A large copy that somebody remembers (`Received`) is made range by range. Whoever comes after a kill goes on with the
ranges that are there: they are read and summed, so what a loss of power took of them is copied again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from asyncsdk.checksums import Crc32c, combine_crc32c
from asyncsdk.engine.adopting import adopt
from asyncsdk.engine.received import COPIED_BYTES, Received, Unfinished
from asyncsdk.engine.sinks import MemoryStore, PartFile
from asyncsdk.engine.sources import FileSource
from asyncsdk.engine.spans import Span, spans
from asyncsdk.engine.work import Work
from asyncsdk.errors import ChecksumMismatch, DestinationFull, ObjectChanged, SourceChanged
from asyncsdk.transport.threads import Threads

__all__ = ["Copy", "KeptCopy"]

_CHUNK_BYTES = 256 * 1024

_NOT_GONE_ON_WITH = (ChecksumMismatch, DestinationFull, ObjectChanged, SourceChanged)
"""After these a half-made copy is of no use, or takes the place that others need."""


class Copy:
    """Copies an open file into a temporary one, or into memory. Blocking, but for `run`.

    Args:
        open_source: Opens what is read, in the first step.
        store: Where it goes; a file is opened in the first step, after the source.
        finish: Called in the last step with the checksum, after the source was found unchanged.
    """

    def __init__(
        self,
        open_source: Callable[[], FileSource],
        store: PartFile | MemoryStore,
        finish: Callable[[Crc32c], None],
    ) -> None:
        self._open_source = open_source
        self._store = store
        self._finish = finish
        self._source: FileSource | None = None
        self.checksum = Crc32c()

    def step(self) -> bool:
        """Copy up to 16 MiB; False when all is done."""
        source = self._source
        if source is None:
            source = self._source = self._open_source()
            if isinstance(self._store, PartFile):
                self._store.open()
        size = source.size_bytes or 0
        step_end = min(self.checksum.size_bytes + COPIED_BYTES, size)
        while self.checksum.size_bytes < step_end:
            offset = self.checksum.size_bytes
            data = source.read_at(min(_CHUNK_BYTES, step_end - offset), offset)
            self._store.write_at(data, offset)
            self.checksum.update(data)
        if step_end < size:
            return True
        self._end(source)
        return False

    def _end(self, source: FileSource) -> None:
        source.check_unchanged_now()
        self._finish(self.checksum)

    def close(self) -> None:
        """Close the source. Calling it again does nothing."""
        if self._source is not None:
            self._source.close()

    async def run(self, work: Work) -> None:
        """Do all steps in threads, counting what moved."""
        work.attempts = 1
        async with work.resources.slots.hold("small"):
            more = True
            while more:
                before = self.checksum.size_bytes
                more = await work.resources.threads.run(self.step)
                work.moved(self.checksum.size_bytes - before)


class KeptCopy(Copy):
    """A copy that can be gone on with. It leaves its temporary file when it fails, as a download in ranges does.

    Args:
        open_source: Opens what is read.
        file: Where it goes.
        finish: Called in the last step with the checksum, after the source was found unchanged.
        received: What is there of it, and who is told of each range. It is not told of the end of what came well.
        describe: Says of an open source which object it is.
    """

    def __init__(
        self,
        open_source: Callable[[], FileSource],
        file: PartFile,
        finish: Callable[[Crc32c], None],
        received: Received,
        describe: Callable[[FileSource], Unfinished],
    ) -> None:
        super().__init__(open_source, file, finish)
        self._file = file
        self._received = received
        self._describe = describe
        self._is_told = True

    async def run(self, work: Work) -> None:
        """Copy what is missing, in threads, counting what moved or was there."""
        work.attempts = 1
        try:
            async with work.resources.slots.hold("small"):
                await self._run(work)
        except BaseException as error:  # whatever ended it, what is there is kept for the next time; then raised again
            is_left = self._is_told and self._received.is_left
            if is_left and not isinstance(error, _NOT_GONE_ON_WITH):
                self._file.leave()
            else:
                self._received.end()
            raise

    async def _run(self, work: Work) -> None:
        threads = work.resources.threads
        source = self._source = await threads.run(self._open_source, undo=FileSource.close)
        cut, found = await self._begin(threads, source)
        for span in cut:
            checksum = found.get(span.number)
            if checksum is None:
                checksum = await threads.run(self._copy, source, span)
                if self._is_told:
                    self._received.add(span.number, span.size_bytes, checksum)
            self.checksum.value = combine_crc32c(self.checksum.value, checksum, span.size_bytes)
            self.checksum.size_bytes += span.size_bytes
            work.moved(span.size_bytes)
        await threads.run(self._end, source)

    async def _begin(self, threads: Threads, source: FileSource) -> tuple[list[Span], dict[int, int]]:
        """Return the ranges, and the checksums of those that are in the file."""
        now, received = self._describe(source), self._received
        known = received.unfinished
        cut = [] if known is None or known.part_size < 1 else spans(now.size_bytes, known.part_size)
        ranges = {span.number: (span.start, span.size_bytes) for span in cut}
        found = await adopt(threads, self._file, received, now, ranges)
        # Of a file that was replaced since it was looked at nothing is told: it would be kept as of the other one.
        self._is_told = received.identity in {None, source.identity}
        if found is not None:
            return cut, found
        await threads.run(self._file.open)
        if self._is_told:
            received.begin(replace(now, temporary=self._file.temporary))
        return spans(now.size_bytes, now.part_size), {}

    def _copy(self, source: FileSource, span: Span) -> int:
        """Copy a range and return its checksum."""
        checksum = Crc32c()
        while checksum.size_bytes < span.size_bytes:
            offset = span.start + checksum.size_bytes
            data = source.read_at(min(_CHUNK_BYTES, span.stop - offset), offset)
            self._file.write_at(data, offset)
            checksum.update(data)
        return checksum.value
