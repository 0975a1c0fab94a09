"""Downloads by one request, and finding out that an object needs more of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from asyncsdk.engine.budget import Lease
from asyncsdk.engine.digests import Running, reply_crc32c
from asyncsdk.engine.download_digests import StatedDigest, check_crc32c, stated_besides
from asyncsdk.engine.range_digests import Stated, stated_by
from asyncsdk.engine.replies import content_range, is_partial
from asyncsdk.engine.sinks import BufferSink, PartFile, SpoolFile
from asyncsdk.engine.strays import StrayCancelledError, no_strays
from asyncsdk.engine.transfers import Download, Outcome, StreamSink
from asyncsdk.engine.work import Count, Work
from asyncsdk.errors import (
    AsyncSDKError,
    DestinationUnwritable,
    IncompleteTransfer,
    MalformedResponse,
    ObjectChanged,
    redact_url,
)
from asyncsdk.targets import UrlOrigin
from asyncsdk.transport.base import Headers, OnBytes, Reply, ReplyHead, Request

__all__ = [
    "Fetch",
    "LargeObject",
    "NoRanges",
    "download_whole",
    "give",
    "object_changed",
    "precondition",
]


@dataclass(slots=True)
class LargeObject:
    """An object that is read in ranges, and what is known of it.

    Attributes:
        size_bytes: Its size.
        etag: Its validator, if known.
        stated: What the server said of checksums, with its first range.
        other: Another digest of it that the server stated there.
        first: Its first range when that has come already, with the file that holds it.
    """

    size_bytes: int
    etag: str | None = None
    stated: Stated | None = None
    other: StatedDigest | None = None
    first: tuple[PartFile, BufferSink] | None = None

    @classmethod
    def of(cls, size_bytes: int, headers: Headers, first: tuple[PartFile, BufferSink] | None = None) -> LargeObject:
        """Return what the *headers* of an answer with the first range say of an object."""
        other = stated_besides(headers, is_range=True)
        return cls(size_bytes, headers.get("etag"), stated_by(headers), other, first)

    def discard(self) -> None:
        """Remove what has come already. Blocking."""
        if self.first is not None:
            self.first[0].discard()


class _MoreMemory(Exception):
    """The object is larger than the memory set aside for it; holds its size."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self.size_bytes = size_bytes


class _IsLarge(Exception):
    """The object needs ranges and its sink cannot take the first one yet."""

    def __init__(self, large: LargeObject) -> None:
        super().__init__(large.size_bytes)
        self.large = large


class NoRanges(Exception):
    """The server refuses to give a range of this object."""


async def download_whole(work: Work, *, may_split: bool = True) -> Outcome | LargeObject:
    """Fetch an object by one request; when its size is unknown and it turns out to be large, say so instead.

    Args:
        may_split: False: everything by one request, whatever its size; the server is known to ignore ranges.
    """
    download = work.transfer
    assert isinstance(download, Download)
    assert isinstance(download.origin, UrlOrigin)
    with_range = may_split and download.origin.size_bytes is None
    memory = _first_guess(work)
    while True:
        lease = await work.resources.budget.take(memory) if memory else None
        fetch = Fetch(work, lease, with_range=with_range)
        try:
            return await fetch.run()
        except _MoreMemory as more:
            memory = more.size_bytes
        except NoRanges:
            with_range = False
        except _IsLarge as found:
            return found.large
        finally:
            if lease is not None:
                lease.release()


def _first_guess(work: Work) -> int:
    """Return how much memory to set aside; 0 for files.

    Set aside before the request: waiting for memory while holding a slot could wait for ever.
    """
    download = work.transfer
    assert isinstance(download, Download)
    if isinstance(download.sink, (str, Path)):
        return 0
    part_size = work.resources.config.part_size
    size = download.origin.size_bytes
    if isinstance(download.sink, StreamSink):
        return part_size if size is None else min(max(size, 1), work.resources.config.multipart_threshold)
    return part_size if size is None else max(size, 1)


class Fetch:
    """One request and its repetitions, into one sink.

    ``run`` does everything. Who moves small objects without a task of their own uses its steps instead, for downloads
    to files: ``request``, ``judge``, ``finish``, and ``close`` in any case.
    """

    def __init__(self, work: Work, lease: Lease | None, *, with_range: bool) -> None:
        assert isinstance(work.transfer, Download)
        self._work = work
        self._download = work.transfer
        self._lease = lease
        self._asked = work.resources.config.part_size if with_range else None
        self._file: PartFile | None = None
        if isinstance(self._download.sink, (str, Path)):
            self._file = PartFile(self._download.sink)
        self._sink = BufferSink()
        self._total: int | None = None
        self._other: tuple[StatedDigest, Running] | None = None
        self._is_verified = False
        origin = work.end
        assert isinstance(origin, UrlOrigin)
        self._used = origin

    async def run(self) -> Outcome | LargeObject:
        """Fetch it, with all attempts; see `download_whole`."""
        try:
            reply = await self._work.retry(self._attempt, renew=self._renew, lane="small")
            if self.is_larger:
                assert self._file is not None
                await self._work.resources.threads.run(_flush_and_pause, self._file, self._sink)
                return self._large(reply)
            return await self._deliver(self._sink, self._etag(reply), verified=self._is_verified)
        finally:
            self.close()

    def finish(self, reply: Reply) -> Outcome | LargeObject:
        """Put what came into its file; the reply was judged. Blocking, as long as a small file takes."""
        file, sink = self._file, self._sink
        assert file is not None
        if self.is_larger:
            _flush_and_pause(file, sink)
            return self._large(reply)
        _flush_and_publish(file, sink)
        return self._work.done(
            sink.checksum.size_bytes, sink.checksum.value, etag=self._etag(reply), verified=self._is_verified
        )

    def close(self) -> None:
        """Remove what is left of an unfinished file. Calling it again does nothing."""
        if self._file is not None:
            self._file.discard()

    @property
    def is_larger(self) -> bool:
        """Whether what came is only the first range of the object."""
        return self._total is not None and self._total > self._sink.checksum.size_bytes

    def _large(self, reply: Reply) -> LargeObject:
        assert self._total is not None
        assert self._file is not None
        first, self._file = (self._file, self._sink), None
        return LargeObject.of(self._total, reply.headers, first)

    @staticmethod
    def _etag(reply: Reply) -> str | None:
        return reply.headers.get("etag") if reply.status != 416 else None

    async def _renew(self) -> bool:
        return await self._work.renew(self._used)

    async def _attempt(self, count: Count) -> Reply:
        async def freshen(request: Request) -> None:
            await self._work.current()  # a URL that is about to expire is renewed first
            request.url, request.headers = self._address()

        request = self.request(count)
        reply = await self._work.send(request, "small", freshen=freshen)
        self.judge(reply, request, count.take_back)
        return reply

    def request(self, on_received: OnBytes) -> Request:
        """Return the request of one attempt; what an attempt before it took is forgotten."""
        self._other, self._is_verified = None, False
        self._sink = BufferSink(self._file if isinstance(self._download.sink, (str, Path)) else None)
        url, headers = self._address()
        timeouts = self._work.resources.config.timeouts
        return Request("GET", url, headers, on_head=self._on_head, on_received=on_received, timeouts=timeouts)

    def _address(self) -> tuple[str, Mapping[str, str]]:
        """Return the URL to ask now, and the headers that go along."""
        origin = self._work.end
        assert isinstance(origin, UrlOrigin)
        self._used = origin
        headers = origin.headers
        if origin.etag is not None:
            headers = {**headers, **precondition(origin.etag)}
        if self._asked is not None:
            headers = {**headers, "Range": f"bytes=0-{self._asked - 1}"}
        return origin.url, headers

    def judge(self, reply: Reply, request: Request, take_back: Callable[[], None]) -> None:
        """Raise unless *reply* brought the object, or its first range, whole.

        Args:
            take_back: Called when what was counted as received was no object.
        """
        if reply.status == 416 and self._asked is not None:
            found = content_range(reply.headers)
            take_back()
            if found != (0, 0, 0):
                raise NoRanges
            self._total = 0  # an empty object has no first byte to give
        elif reply.status == 412:
            raise object_changed(self._work)
        elif reply.status not in {200, 203, 206}:
            take_back()
            raise self._work.refused(reply, request, self._used.expires_at)
        self._check(reply)

    def _on_head(self, head: ReplyHead) -> BufferSink | None:
        if is_partial(head):
            found = content_range(head.headers)
            if found is None or self._asked is None or found[0] != 0 or found[2] is None:
                raise MalformedResponse(f"a partial answer that was not asked for: {self._shown}", status=head.status)
            _, stop, total = found
            assert total is not None
            if stop != min(total, self._asked):
                raise MalformedResponse(f"another range than the one asked for: {self._shown}", status=head.status)
            self._total = total
            if total > stop and not isinstance(self._download.sink, (str, Path)):
                raise _IsLarge(LargeObject.of(total, head.headers))
            return self._proving(head, self._make_room(stop, stop))
        if head.status not in {200, 203}:
            return None
        self._total = None
        length = head.headers.get("content-length", "")
        is_declared = length.isdecimal() and len(length) < 20 and "transfer-encoding" not in head.headers
        declared = int(length) if is_declared else None
        known = self._download.origin.size_bytes
        if known is not None and declared is not None and declared != known:
            raise object_changed(self._work, f"it has {declared} bytes, {known} were announced")
        return self._proving(head, self._make_room(declared, known))

    def _proving(self, head: ReplyHead, sink: BufferSink) -> BufferSink:
        """Have *sink* take the digest that the reply states, if it brings the whole object and crc32c does not do."""
        is_whole = self._total is None or self._total == sink.limit_bytes
        other = stated_besides(head.headers) if is_whole and self._download.origin.crc32c is None else None
        if other is not None:
            self._other = other, other.begin()
            sink.tell = self._other[1].update
        return sink

    def _make_room(self, declared: int | None, expected: int | None) -> BufferSink:
        """Return what takes the body.

        Args:
            declared: What the reply says of its size.
            expected: What it must have: nothing beyond is taken.
        """
        size = declared if expected is None else expected
        if self._lease is not None:
            reserved = self._lease.size_bytes
            if size is not None and size <= reserved:
                self._lease.shrink(max(size, 1))
            elif isinstance(self._download.sink, StreamSink):
                # In order and of a size that memory may not hold: through a file nobody else sees.
                if self._file is None:
                    self._file = SpoolFile()
                self._sink = BufferSink(self._file)
            elif size is not None:
                raise _MoreMemory(size)
            else:
                self._sink.limit(reserved, lambda _: _MoreMemory(reserved * 4))
        if expected is not None:
            self._sink.limit(expected, self._too_long)
        return self._sink

    def _too_long(self, size_bytes: int) -> Exception:
        expected = self._sink.limit_bytes
        assert expected is not None
        return IncompleteTransfer(expected, size_bytes, source=self._shown, bytes_done=expected)

    def _check(self, reply: Reply) -> None:
        """Raise unless what came is whole and what it should be."""
        received = self._sink.checksum.size_bytes
        expected = self._download.origin.size_bytes
        if self._total is not None and self._asked is not None:
            expected = min(self._total, self._asked)
        if expected is not None and received != expected:
            raise IncompleteTransfer(expected, received, source=self._shown, bytes_done=received)
        if self._total is None or self._total == received:
            theirs = reply_crc32c(reply.headers) if reply.status != 416 else None
            check_crc32c(self._work, self._sink.checksum.value, theirs)
            if self._other is not None:
                self._other[0].check(self._work, self._other[1])
            known = (self._download.origin.crc32c, theirs, self._other)
            self._is_verified = any(one is not None for one in known)

    async def _deliver(self, sink: BufferSink, etag: str | None, *, verified: bool) -> Outcome:
        threads = self._work.resources.threads
        size, checksum, data = sink.checksum.size_bytes, sink.checksum.value, None
        if isinstance(self._download.sink, StreamSink):
            await self._hand_over(self._download.sink, sink)
        elif self._file is None:
            data = sink.take()
        else:
            await threads.run(_flush_and_publish, self._file, sink)
        return self._work.done(size, checksum, etag=etag, verified=verified, data=data)

    async def _hand_over(self, stream: StreamSink, sink: BufferSink) -> None:
        step = self._work.resources.config.part_size
        if self._file is None:
            data = sink.take()
            for start in range(0, len(data), step):
                await give(stream, data[start : start + step] if len(data) > step else data, self._download.name)
            return
        await self._work.resources.threads.run(sink.flush)
        for start in range(0, sink.checksum.size_bytes, 1024 * 1024):
            piece = await self._work.resources.threads.run(self._file.read_at, 1024 * 1024, start)
            await give(stream, piece, self._download.name)

    @property
    def _shown(self) -> str:
        return redact_url(self._used.url)


def _flush_and_publish(file: PartFile, sink: BufferSink) -> None:
    if sink.is_kept and not file.is_begun:
        file.put(sink.take())
        return
    sink.flush()
    file.publish()


def _flush_and_pause(file: PartFile, sink: BufferSink) -> None:
    sink.flush()
    file.pause()


def precondition(etag: str | None) -> dict[str, str]:
    """Return the header that asks for this very version; weak validators do not do (RFC 9110 section 13.1.1)."""
    # A header beyond ASCII cannot be sent; the ETag of the reply is compared all the same.
    return {} if etag is None or etag.startswith("W/") or not etag.isascii() else {"If-Match": etag}


def object_changed(work: Work, what: str = "it was replaced") -> ObjectChanged:
    """Return the error of an object that is not the one that was announced."""
    name = work.transfer.name
    return ObjectChanged(f"{name}: the object on the server changed, {what}; start the download again", source=name)


async def give(stream: StreamSink, data: bytes, name: str) -> None:
    """Hand *data* to the caller's stream; what it raises becomes the transfer's error.

    Raises:
        DestinationUnwritable: The stream raised something; that is its cause.
    """
    send: Callable[[bytes], object] = stream.send
    try:
        with no_strays():
            await send(data)  # type: ignore[misc]  # an awaitable of nothing
    except AsyncSDKError:
        raise
    except Exception as error:  # noqa: BLE001  # whatever the caller's code raises concerns this object alone
        cause = error.__cause__ if isinstance(error, StrayCancelledError) else error
        raise DestinationUnwritable(
            f"{name}: the stream that takes it raised {type(cause).__name__}", source=name
        ) from cause
