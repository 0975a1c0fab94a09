"""One range of an object: which bytes it is, asking for it, and whether what comes is what was asked for.

Source: RFC 9110 section 14 (range requests), 13.1.1 (If-Match).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from asyncsdk.engine.attempts import Airtime
from asyncsdk.engine.download_digests import StatedDigest, stated_besides
from asyncsdk.engine.downloads import LargeObject, object_changed, precondition
from asyncsdk.engine.limits.hedging import Claim
from asyncsdk.engine.range_digests import Stated, stated_by
from asyncsdk.engine.replies import content_range, is_partial
from asyncsdk.engine.sinks import MemoryStore, PartFile, StoreSink
from asyncsdk.engine.work import Count, Work
from asyncsdk.errors import IncompleteTransfer, MalformedResponse, redact_url
from asyncsdk.targets import UrlOrigin
from asyncsdk.transport.base import ReplyHead, Request

__all__ = ["RangesIgnored", "Span", "SpanFetcher", "spans"]


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


class RangesIgnored(Exception):
    """The server gives the whole object whatever is asked."""


class SpanFetcher:
    """Fetches ranges of one version of one object.

    Args:
        work: The download they are of.
        large: What is known of the object.

    Attributes:
        etag: Validator of the version: what was known, or else what the first answer said.
        stated: What answers said of checksums, by number of the span.
        others: Other digests of the object that they stated.
    """

    def __init__(self, work: Work, large: LargeObject) -> None:
        self._work = work
        self._size = large.size_bytes
        self.etag = large.etag
        self.stated: dict[int, Stated] = {} if large.stated is None else {1: large.stated}
        self.others: set[StatedDigest] = set() if large.other is None else {large.other}

    def forget_unclear(self) -> None:
        """Keep of what was stated only what is of the whole object: its ranges are others from now on."""
        self.stated = {number: said for number, said in self.stated.items() if said.is_of_object}

    async def fetch(self, span: Span, store: PartFile | MemoryStore, *, base: int = 0) -> int:
        """Fetch *span*; when that takes far longer than others took, by a second request at the same time.

        Args:
            store: Where it goes.
            base: Where in the object the store begins.

        Returns:
            Its crc32c.

        Raises:
            RangesIgnored: The server does not answer ranges.
            ObjectChanged: The object is another one than it was.
            AsyncSDKError: It did not come.
        """

        async def repeat(claim: Claim) -> int:
            return await self._fetch_again(span, store, base, claim)

        return await self._work.resources.limits.hedging.run(
            "down", span.size_bytes, lambda airtime: self._fetch_once(span, store, base, airtime=airtime), repeat
        )

    async def _fetch_again(self, span: Span, store: PartFile | MemoryStore, base: int, claim: Claim) -> int:
        """Fetch *span* into memory, and into its place only once nobody else writes there."""
        lease = self._work.resources.budget.take_nowait(span.size_bytes)
        if lease is None:
            raise IncompleteTransfer(span.size_bytes, 0, source=self._work.transfer.name, part=span.number)
        is_used = False
        with lease:
            copy = MemoryStore(span.size_bytes)
            checksum = await self._fetch_once(span, copy, span.start, max_attempts=1)
            try:
                if await claim():
                    await self._work.resources.threads.run(store.write_at, copy.take(), span.start - base)
                    is_used = True
            finally:
                if not is_used:
                    self._work.moved(-span.size_bytes)
        return checksum

    async def _fetch_once(
        self,
        span: Span,
        store: PartFile | MemoryStore,
        base: int,
        *,
        max_attempts: int | None = None,
        airtime: Airtime | None = None,
    ) -> int:
        used = self._work.end

        async def origin() -> UrlOrigin:
            nonlocal used
            used = await self._work.current()
            assert isinstance(used, UrlOrigin)
            return used

        sink = await self._work.retry(
            lambda count: self._request(span, store, base, origin, count),
            renew=lambda: self._work.renew(used),
            max_attempts=max_attempts,
            airtime=airtime,
        )
        return sink.checksum.value

    async def _request(
        self,
        span: Span,
        store: PartFile | MemoryStore,
        base: int,
        current: Callable[[], Awaitable[UrlOrigin]],
        count: Count,
    ) -> StoreSink:
        origin = self._work.end
        assert isinstance(origin, UrlOrigin)
        shown = redact_url(origin.url)
        sink = StoreSink(store, span.start - base, span.size_bytes, source=shown, part=span.number)

        def on_head(head: ReplyHead) -> StoreSink | None:
            if not is_partial(head):
                if head.status in {200, 203}:
                    raise RangesIgnored
                return None
            self._check_head(head, span, shown)
            return sink

        async def freshen(request: Request) -> None:
            nonlocal origin
            origin = await current()
            request.url = origin.url
            request.headers = {**origin.headers, **precondition(self.etag or origin.etag), "Range": span.header}

        timeouts = self._work.resources.config.timeouts
        request = Request("GET", origin.url, on_head=on_head, on_received=count, timeouts=timeouts)
        reply = await self._work.send(request, "part", freshen=freshen, count=count)
        if reply.status in {412, 416}:
            raise object_changed(self._work)
        if not is_partial(reply):
            count.take_back()
            raise self._work.refused(reply, request, origin.expires_at)
        sink.check_whole()
        return sink

    def _check_head(self, head: ReplyHead, span: Span, shown: str) -> None:
        found = content_range(head.headers)
        if found is None:
            raise MalformedResponse(
                f"part {span.number}: a partial answer that does not say which: {shown}", status=head.status
            )
        start, stop, total = found
        if total is not None and total != self._size:
            raise object_changed(self._work, f"it has {total} bytes now, it had {self._size}")
        if start != span.start or stop > span.stop:
            raise MalformedResponse(
                f"part {span.number}: another range than the one asked for: {shown}", status=head.status
            )
        if stop < span.stop:
            raise IncompleteTransfer(span.size_bytes, stop - start, source=shown, part=span.number)
        etag = head.headers.get("etag")
        if self.etag is None:
            self.etag = etag
        elif etag is not None and etag != self.etag:
            raise object_changed(self._work)
        said = stated_by(head.headers)
        if said is None:
            self.stated.pop(span.number, None)
        else:
            self.stated[span.number] = said
        other = stated_besides(head.headers, is_range=True)
        if other is not None:
            self.others.add(other)
