"""Downloads in ranges: several at once, each checked against what was asked, joined by place and by checksum.

Source: RFC 9110 section 14 (range requests), 13.1.1 (If-Match).
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import anyio
from anyio.abc import TaskGroup

from asyncsdk.checksums import combine_crc32c
from asyncsdk.engine.budget import Lease
from asyncsdk.engine.downloads import LargeObject, check_crc32c, download_whole, give, object_changed, precondition
from asyncsdk.engine.replies import content_range, reply_crc32c
from asyncsdk.engine.sinks import MemoryStore, PartFile, StoreSink
from asyncsdk.engine.transfers import Download, Outcome, StreamSink
from asyncsdk.engine.work import Count, Work
from asyncsdk.errors import ChecksumMismatch, IncompleteTransfer, MalformedResponse, redact_url
from asyncsdk.targets import UrlOrigin
from asyncsdk.transport.base import ReplyHead, Request

__all__ = ["Span", "download_in_ranges", "spans"]


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes ``[start, stop)`` of an object, its part *number*."""

    number: int
    start: int
    stop: int

    @property
    def size_bytes(self) -> int:
        """How many bytes it covers."""
        return self.stop - self.start

    @property
    def header(self) -> str:
        """The ``Range`` header: inclusive at both ends."""
        return f"bytes={self.start}-{self.stop - 1}"


def spans(size_bytes: int, part_size: int) -> list[Span]:
    """Return the spans that cover ``[0, size_bytes)`` once, in order; none for an empty object."""
    return [
        Span(index + 1, start, min(start + part_size, size_bytes))
        for index, start in enumerate(range(0, size_bytes, part_size))
    ]


class _RangesIgnored(Exception):
    """The server gives the whole object whatever is asked."""


async def download_in_ranges(work: Work, large: LargeObject) -> Outcome:
    """Fetch an object of known size by several requests at once.

    A checksum that does not fit costs one more try of the whole. A server that ignores ranges is asked for everything
    by one request.
    """
    may_repeat = work.resources.config.retry.max_attempts > 1
    try:
        while True:
            moved = Count(work)
            ranges = _Ranges(work, large, moved)
            try:
                return await ranges.run()
            except ChecksumMismatch:
                moved.take_back()
                if not may_repeat or isinstance(work.transfer.sink, StreamSink):  # type: ignore[union-attr]
                    raise
                may_repeat = False
                large.discard()
                large.first = None
            except _RangesIgnored:
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
        self._etag = large.etag
        self._theirs = large.crc32c
        self._first = large.first
        self._moved = moved
        self._spans = deque(spans(self._size, work.resources.config.part_size))
        self._checksums: dict[int, tuple[int, int]] = {}
        self._failure: Exception | None = None
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
        checksum = self._checksum()
        verified = self._download.origin.crc32c is not None or self._theirs == checksum
        return self._work.done(self._size, checksum, etag=self._etag, verified=verified, data=data)

    def _checksum(self) -> int:
        value = 0
        for number in sorted(self._checksums):
            checksum, size = self._checksums[number]
            value = combine_crc32c(value, checksum, size)
        return value

    # --- files and memory: any order -------------------------------------------------------------------------

    async def _to_file(self, path: Path | str) -> None:
        if self._first is None:
            file = PartFile(path)
        else:
            file, first = self._first
            self._checksums[1] = (first.checksum.value, first.checksum.size_bytes)
            self._spans.popleft()
        threads = self._work.resources.threads
        try:
            await threads.run(file.open)
            await self._fill(file)
            # What a partial answer says of the whole is no proof against it: some servers mean the part.
            check_crc32c(self._work, self._checksum(), None)
            await threads.run(file.publish)
        finally:
            file.discard()

    async def _to_memory(self) -> bytes:
        with await self._work.resources.budget.take(max(self._size, 1)):
            store = await self._work.resources.threads.run(MemoryStore, self._size)
            await self._fill(store)
            check_crc32c(self._work, self._checksum(), None)
            return store.take()

    async def _fill(self, store: PartFile | MemoryStore) -> None:
        count = min(self._work.resources.config.concurrency, len(self._spans))
        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(self._fill_some, store, group)
        if self._failure is not None:
            raise self._failure
        self._check_whole()

    def _check_whole(self) -> None:
        """Raise when ranges are missing, whatever ended their tasks: nothing with holes may look like the object."""
        received = sum(size for _, size in self._checksums.values())
        if received != self._size:
            raise IncompleteTransfer(self._size, received, source=self._download.name, bytes_done=received)

    async def _fill_some(self, store: PartFile | MemoryStore, group: TaskGroup) -> None:
        try:
            while self._spans:
                await self._fetch(self._spans.popleft(), store)
        except Exception as error:  # noqa: BLE001  # raised again, alone, by `_fill`
            self._fail(error, group)

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
        check_crc32c(self._work, self._checksum(), None)

    async def _pass_on(
        self,
        stream: StreamSink,
        window: deque[tuple[asyncio.Future[Exception | bytes], Lease]],
        group: TaskGroup,
    ) -> None:
        """Keep a window of ranges in flight, as wide as slots and memory allow, and hand them over in order."""
        budget = self._work.resources.budget
        width = self._work.resources.config.concurrency
        while self._spans or window:
            while self._spans and len(window) < width:
                size = self._spans[0].size_bytes
                # Waits only while it holds nothing: two streams could wait for each other's windows.
                lease = budget.take_nowait(size) if window else await budget.take(size)
                if lease is None:
                    break
                future: asyncio.Future[Exception | bytes] = asyncio.get_running_loop().create_future()
                window.append((future, lease))
                group.start_soon(self._fetch_into, self._spans.popleft(), future)
            future, lease = window[0]
            data = await future
            if isinstance(data, Exception):
                raise data
            self.has_given = True
            await give(stream, data, self._download.name)
            del data
            window.popleft()
            lease.release()

    async def _fetch_into(self, span: Span, future: asyncio.Future[Exception | bytes]) -> None:
        store = MemoryStore(span.size_bytes)
        try:
            await self._fetch(span, store, base=span.start)
            result: Exception | bytes = store.take()
        except Exception as error:  # noqa: BLE001  # raised again by `_pass_on` when its turn comes
            result = error
        if not future.done():
            future.set_result(result)

    # --- one range -------------------------------------------------------------------------------------------

    async def _fetch(self, span: Span, store: PartFile | MemoryStore, *, base: int = 0) -> None:
        used: UrlOrigin | None = None

        async def attempt(count: Count) -> StoreSink:
            nonlocal used
            origin = self._work.end
            assert isinstance(origin, UrlOrigin)
            used = origin
            return await self._request(span, store, base, origin, count)

        async def renew() -> bool:
            assert used is not None
            return await self._work.renew(used)

        sink = await self._work.retry(attempt, renew=renew)
        self._checksums[span.number] = (sink.checksum.value, span.size_bytes)
        self._moved.size_bytes += span.size_bytes

    async def _request(
        self, span: Span, store: PartFile | MemoryStore, base: int, origin: UrlOrigin, count: Count
    ) -> StoreSink:
        shown = redact_url(origin.url)
        sink = StoreSink(store, span.start - base, span.size_bytes, source=shown, part=span.number)

        def on_head(head: ReplyHead) -> StoreSink | None:
            if head.status in {200, 203}:
                raise _RangesIgnored
            if head.status != 206:
                return None
            self._check_head(head, span, shown)
            return sink

        headers = {**origin.headers, **precondition(self._etag or origin.etag), "Range": span.header}
        request = Request(
            "GET",
            origin.url,
            headers,
            on_head=on_head,
            on_received=count,
            timeouts=self._work.resources.config.timeouts,
        )
        reply = await self._work.send(request, "part")
        if reply.status in {412, 416}:
            raise object_changed(self._work)
        if reply.status != 206:
            count.take_back()
            raise self._work.refused(reply, request, origin.expires_at)
        sink.check_whole()
        return sink

    def _check_head(self, head: ReplyHead, span: Span, shown: str) -> None:
        found = content_range(head.headers)
        if found is None:
            raise MalformedResponse(
                f"part {span.number}: a partial answer that does not say which: {shown}", status=206
            )
        start, stop, total = found
        if total is not None and total != self._size:
            raise object_changed(self._work, f"it has {total} bytes now, it had {self._size}")
        if start != span.start or stop > span.stop:
            raise MalformedResponse(f"part {span.number}: another range than the one asked for: {shown}", status=206)
        if stop < span.stop:
            raise IncompleteTransfer(span.size_bytes, stop - start, source=shown, part=span.number)
        etag = head.headers.get("etag")
        if self._etag is None:
            self._etag = etag
        elif etag is not None and etag != self._etag:
            raise object_changed(self._work)
        if self._theirs is None:
            self._theirs = reply_crc32c(head.headers)
