"""Downloads in ranges: several at once, joined by place and by checksum in a file, in memory or in a stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import copy_context
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from asyncsdk.checksums import combine_crc32c
from asyncsdk.engine.adopting import adopt
from asyncsdk.engine.budget import Lease
from asyncsdk.engine.digests import Running
from asyncsdk.engine.download_digests import StatedDigest, cheapest, check_crc32c, check_others, check_stored
from asyncsdk.engine.downloads import LargeObject, download_whole, give, object_changed
from asyncsdk.engine.range_digests import judge_stated
from asyncsdk.engine.received import Received, Unfinished
from asyncsdk.engine.sinks import MemoryStore, PartFile
from asyncsdk.engine.spans import RangesIgnored, Span, SpanFetcher, spans
from asyncsdk.engine.transfers import Download, Outcome, StreamSink
from asyncsdk.engine.work import Count, Work
from asyncsdk.errors import ChecksumMismatch, DestinationFull, IncompleteTransfer, ObjectChanged

__all__ = ["download_in_ranges"]


_NOT_GONE_ON_WITH = (ChecksumMismatch, DestinationFull, ObjectChanged, RangesIgnored)
"""After these a half-received file is of no use, or takes the place that others need: a full disk stays full."""


async def download_in_ranges(work: Work, large: LargeObject) -> Outcome:
    """Fetch an object of known size by several requests at once.

    A checksum that does not fit costs one more try of the whole. A server that ignores ranges is asked for everything
    by one request.
    """
    may_repeat = work.resources.config.retry.max_attempts > 1
    try:
        while True:
            moved = Count(work, is_part=True)
            ranges = _Ranges(work, large, moved)
            try:
                return await ranges.run()
            except ChecksumMismatch:
                moved.take_back()
                if not may_repeat or isinstance(work.transfer.sink, StreamSink):  # type: ignore[union-attr]
                    raise
                may_repeat = False
                large.discard()
                large.first = large.stated = large.other = None
            except RangesIgnored:
                moved.take_back()
                if ranges.has_given:
                    # What a stream has taken cannot be taken back: the start would come twice.
                    raise object_changed(work, "the server stopped answering ranges half-way") from None
                break
    finally:
        large.discard()
    whole = await download_whole(work, may_split=False)
    assert isinstance(whole, Outcome)
    return whole


class _Ranges:
    """One attempt at all ranges.

    Attributes:
        has_given: Whether a stream was handed anything.
    """

    def __init__(self, work: Work, large: LargeObject, moved: Count) -> None:
        assert isinstance(work.transfer, Download)
        self._work = work
        self._download = work.transfer
        self._size = large.size_bytes
        self._fetcher = SpanFetcher(work, large)
        self._first = large.first
        self._moved = moved
        self._spans = deque(spans(self._size, work.resources.config.part_size))
        self._checksums: dict[int, tuple[int, int]] = {}
        self._failure: Exception | None = None
        self._fetching = 0
        self._is_verified = False
        self._passed: tuple[StatedDigest, Running] | None = None
        self.has_given = False

    async def run(self) -> Outcome:
        sink = self._download.sink
        data: bytes | None = None
        if isinstance(sink, (str, Path)):
            await self._to_file(sink)
        elif sink is None:
            data = await self._to_memory()
        else:
            await self._to_stream(sink)
        return self._work.done(
            self._size, self._checksum(), etag=self._fetcher.etag, verified=self._is_verified, data=data
        )

    async def _check_checksum(self, store: PartFile | MemoryStore | None) -> None:
        """Raise when what came has not the checksum announced, or the digest that the server states of the object.

        Args:
            store: Where it lies; None: it was passed on.
        """
        checksum = self._checksum()
        theirs, is_confirmed = judge_stated(self._fetcher.stated, self._checksums, checksum)
        check_crc32c(self._work, checksum, theirs)
        others = self._fetcher.others
        if is_confirmed or self._download.origin.crc32c is not None:
            self._is_verified = True
        elif store is not None:
            self._is_verified = await check_stored(self._work, others, store.read_at, self._size)
        elif self._passed is not None:
            check_others(self._work, others, self._passed[0].name, self._passed[1])
            self._is_verified = True

    def _checksum(self) -> int:
        value = 0
        for number in sorted(self._checksums):
            checksum, size = self._checksums[number]
            value = combine_crc32c(value, checksum, size)
        return value

    # --- files and memory: any order -------------------------------------------------------------------------

    async def _to_file(self, path: Path | str) -> None:
        threads = self._work.resources.threads
        received = self._download.received
        file = PartFile(path)
        try:
            if received is None or not await self._adopt(file, received):
                if self._first is None:
                    await threads.run(file.open)
                    self._tell_begun(file)
                else:
                    file, first = self._first
                    await threads.run(file.open)
                    self._tell_begun(file)
                    self._spans.popleft()
                    self._keep(1, first.checksum.value, first.checksum.size_bytes)
            await self._fill(file)
            await self._check_checksum(file)
            await threads.run(file.publish)
        except BaseException as error:  # whatever ended it, what came is kept for the next time; then raised again
            if received is not None and received.is_left and not isinstance(error, _NOT_GONE_ON_WITH):
                file.leave()
                received = None
            raise
        finally:
            file.discard()
            if received is not None:
                received.end()

    def _tell_begun(self, file: PartFile) -> None:
        if self._download.received is not None:
            self._download.received.begin(self._unfinished(file.temporary))

    def _unfinished(self, temporary: str) -> Unfinished:
        part_size = self._work.resources.config.part_size
        return Unfinished(temporary, self._size, part_size, self._fetcher.etag, self._download.origin.crc32c)

    def _keep(self, number: int, checksum: int, size_bytes: int) -> None:
        """Count a range whose bytes are in their place."""
        self._checksums[number] = checksum, size_bytes
        if self._download.received is not None:
            self._download.received.add(number, size_bytes, checksum)

    def _came(self, span: Span, checksum: int) -> None:
        self._keep(span.number, checksum, span.size_bytes)
        self._moved.size_bytes += span.size_bytes

    async def _adopt(self, file: PartFile, received: Received) -> bool:
        """Go on with the file that an earlier process left, if it is of this object; False: start anew."""
        known = received.unfinished
        cut = [] if known is None or known.part_size < 1 else spans(self._size, known.part_size)
        sizes = {span.number: (span.start, span.size_bytes) for span in cut}
        found = await adopt(self._work.resources.threads, file, received, self._unfinished(""), sizes)
        if found is None:
            return False
        if len(found) == len(cut) and self._download.origin.crc32c is None:
            found.pop(cut[-1].number, None)  # what the whole must be is stated by an answer, so there has to be one
        self._spans = deque(cut)
        self._fetcher.forget_unclear()
        for span in [span for span in self._spans if span.number in found]:
            self._checksums[span.number] = found[span.number], span.size_bytes
            self._spans.remove(span)
            self._work.moved(span.size_bytes)
            self._moved.size_bytes += span.size_bytes
        return True

    async def _to_memory(self) -> bytes:
        with await self._work.resources.budget.take(max(self._size, 1)):
            store = await self._work.resources.threads.run(MemoryStore, self._size)
            await self._fill(store)
            await self._check_checksum(store)
            return store.take()

    async def _fill(self, store: PartFile | MemoryStore) -> None:
        async with AsyncExitStack() as stack, anyio.create_task_group() as group:
            await stack.enter_async_context(self._following(lambda: self._fetch_more(store, group)))
            self._fetch_more(store, group)
        if self._failure is not None:
            raise self._failure
        self._check_whole()

    @asynccontextmanager
    async def _following(self, widen: Callable[[], None]) -> AsyncIterator[None]:
        """Call *widen* whenever there may be more requests at once: a range may take a minute, and waits for nobody."""
        listeners = self._work.resources.slots.has_grown
        context = copy_context()  # what ranges begun then wait for is counted for this object, too
        waking: set[asyncio.Task[None]] = set()

        async def wake() -> None:
            if self._failure is None:
                widen()

        def grown() -> None:
            # In a task: who tells may be a timer of the loop, and a group takes no task from there.
            task = asyncio.get_running_loop().create_task(wake(), context=context)
            waking.add(task)
            task.add_done_callback(waking.discard)

        listeners.append(grown)
        try:
            yield
        finally:
            listeners.remove(grown)
            if waking:
                with anyio.CancelScope(shield=True):
                    for task in waking:
                        task.cancel()
                    await asyncio.wait(waking)

    def _check_whole(self) -> None:
        """Raise when ranges are missing, whatever ended their tasks: nothing with holes may look like the object."""
        received = sum(size for _, size in self._checksums.values())
        if received != self._size:
            raise IncompleteTransfer(self._size, received, source=self._download.name, bytes_done=received)

    def _fetch_more(self, store: PartFile | MemoryStore, group: TaskGroup) -> None:
        """Have as many ranges under way as there may be by now: it may be more than when this began."""
        for _ in range(min(self._work.resources.slots.part_limit - self._fetching, len(self._spans))):
            self._fetching += 1
            group.start_soon(self._fill_some, store, group)

    async def _fill_some(self, store: PartFile | MemoryStore, group: TaskGroup) -> None:
        try:
            while self._spans:
                span = self._spans.popleft()
                self._fetch_more(store, group)
                self._came(span, await self._fetcher.fetch(span, store))
        except Exception as error:  # noqa: BLE001  # raised again, alone, by `_fill`
            self._fail(error, group)
        finally:
            self._fetching -= 1

    def _fail(self, error: Exception, group: TaskGroup) -> None:
        if self._failure is None:
            self._failure = error
        group.cancel_scope.cancel()

    # --- streams: in order -----------------------------------------------------------------------------------

    async def _to_stream(self, stream: StreamSink) -> None:
        window: deque[tuple[asyncio.Future[Exception | bytes], Lease]] = deque()
        try:
            async with anyio.create_task_group() as group:
                try:
                    await self._pass_on(stream, window, group)
                except Exception as error:  # noqa: BLE001  # raised again below, outside of the group that would wrap it
                    self._fail(error, group)
        finally:
            for _, lease in window:
                lease.release()
        if self._failure is not None:
            raise self._failure
        self._check_whole()
        await self._check_checksum(None)

    async def _pass_on(
        self,
        stream: StreamSink,
        window: deque[tuple[asyncio.Future[Exception | bytes], Lease]],
        group: TaskGroup,
    ) -> None:
        """Keep a window of ranges in flight, as wide as slots and memory allow, and hand them over in order."""
        budget = self._work.resources.budget
        slots = self._work.resources.slots

        def begin(lease: Lease) -> None:
            future: asyncio.Future[Exception | bytes] = asyncio.get_running_loop().create_future()
            window.append((future, lease))
            group.start_soon(self._fetch_into, self._spans.popleft(), future, group)

        def widen() -> None:
            # Whoever holds nothing waits for memory, nobody else: two streams could wait for each other's windows.
            while window and self._spans and len(window) < slots.part_limit:
                lease = budget.take_nowait(self._spans[0].size_bytes)
                if lease is None:
                    break
                begin(lease)

        async with self._following(widen):
            while self._spans or window:
                if not window:
                    begin(await budget.take(self._spans[0].size_bytes))
                widen()
                future, lease = window[0]
                data = await future
                if isinstance(data, Exception):
                    raise data
                if not self.has_given:
                    self._passed = self._begin_digest()
                if self._passed is not None:
                    await self._work.resources.threads.run(self._passed[1].update, data)
                self.has_given = True
                await give(stream, data, self._download.name)
                del data
                window.popleft()
                lease.release()

    def _begin_digest(self) -> tuple[StatedDigest, Running] | None:
        """Return what a stream needs besides crc32c: its bytes cannot be read once more in the end."""
        best = cheapest(self._fetcher.others) if self._download.origin.crc32c is None else None
        return None if best is None else (best, best.begin())

    async def _fetch_into(self, span: Span, future: asyncio.Future[Exception | bytes], group: TaskGroup) -> None:
        store = MemoryStore(span.size_bytes)
        try:
            self._came(span, await self._fetcher.fetch(span, store, base=span.start))
            result: Exception | bytes = store.take()
        except Exception as error:  # noqa: BLE001  # raised again by `_pass_on` when its turn comes
            result = error
        if not future.done():
            future.set_result(result)
