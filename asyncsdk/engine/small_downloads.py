"""Downloads of small objects of known size to files: one request, one buffer, one visit to the file system.

What `Fetch` does for any object, without what only large or unknown ones need; the express lane uses the same object
for one download after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from asyncsdk.checksums import crc32c
from asyncsdk.engine.digests import reply_crc32c
from asyncsdk.engine.download_digests import DOWNLOAD_DIGESTS, check_crc32c, stated_besides
from asyncsdk.engine.downloads import object_changed, precondition
from asyncsdk.engine.sinks import PartFile
from asyncsdk.engine.transfers import Outcome
from asyncsdk.engine.work import Work
from asyncsdk.errors import IncompleteTransfer, MalformedResponse, redact_url
from asyncsdk.targets import UrlOrigin
from asyncsdk.transport.base import Headers, Reply, ReplyHead, Request

__all__ = ["MAX_SMALL_BYTES", "SmallFetch"]

MAX_SMALL_BYTES = 256 * 1024


class SmallFetch:
    """Fetches one small object after the other; it is itself the sink of their bodies."""

    __slots__ = ("_checksum", "_data", "_file", "_is_verified", "_origin", "_request", "_size", "_work")

    _work: Work
    _origin: UrlOrigin

    def __init__(self) -> None:
        self._data: bytes | bytearray = b""
        self._size = 0
        self._checksum = 0
        self._is_verified = False
        self._file: PartFile | None = None
        self._request = Request("GET", "", {}, None, self._on_head)

    def begin(self, work: Work, size_bytes: int) -> Request:
        """Turn to another download, of *size_bytes* from a URL to a path; returns its request, good until the next."""
        origin: UrlOrigin = work.end  # type: ignore[assignment]  # see `Express.takes`
        self._work, self._origin, self._size = work, origin, size_bytes
        self._data = b""
        request, headers = self._request, origin.headers
        if origin.etag is not None:
            headers = {**headers, **precondition(origin.etag)}
        request.url, request.headers = origin.url, headers
        request.on_received, request.timeouts = work.moved, work.resources.config.timeouts
        return request

    def _on_head(self, head: ReplyHead) -> SmallFetch | None:
        if head.status == 206:
            raise MalformedResponse(f"a partial answer that was not asked for: {self._shown}", status=206)
        if head.status not in {200, 203}:
            return None
        declared = head.headers.get("content-length")
        if declared is not None and declared != str(self._size) and self._differs(declared, head):
            raise object_changed(self._work, f"it has {declared[:20]} bytes, {self._size} were announced")
        return self

    def _differs(self, declared: str, head: ReplyHead) -> bool:
        is_meant = declared.isdecimal() and len(declared) < 20 and "transfer-encoding" not in head.headers
        return is_meant and int(declared) != self._size

    def write(self, data: bytes | memoryview) -> None:
        """Keep what came."""
        received = len(self._data) + len(data)
        if received > self._size:
            raise IncompleteTransfer(self._size, received, source=self._shown, bytes_done=self._size)
        if not self._data:
            self._data = bytes(data)
        else:
            if isinstance(self._data, bytes):
                self._data = bytearray(self._data)
            self._data += data

    def judge(self, reply: Reply, request: Request, take_back: Callable[[], None]) -> None:
        """Raise unless *reply* brought the object, whole; see `Fetch.judge`."""
        if reply.status not in {200, 203}:
            if reply.status == 412:
                raise object_changed(self._work)
            take_back()
            raise self._work.refused(reply, request, self._origin.expires_at)
        received = len(self._data)
        if received != self._size:
            raise IncompleteTransfer(self._size, received, source=self._shown, bytes_done=received)
        self._data = data = bytes(self._data)
        self._checksum = crc32c(data)
        self._is_verified = self._is_as_stated(data, reply.headers)

    def _is_as_stated(self, data: bytes, headers: Headers) -> bool:
        """Whether a digest was announced or stated; raises unless it is that of *data*."""
        theirs: int | None = None
        if self._work.transfer.origin.crc32c is None:  # type: ignore[union-attr]  # of a download, see `Express.takes`
            if not headers.has_any_of(DOWNLOAD_DIGESTS):
                return False
            theirs = reply_crc32c(headers)
            other = stated_besides(headers) if theirs is None else None
            if other is not None:
                taken = other.begin()
                taken.update(data)
                other.check(self._work, taken)
            if theirs is None:
                return other is not None
        check_crc32c(self._work, self._checksum, theirs)
        return True

    def finish(self, reply: Reply) -> Outcome:
        """Put the object, which was judged, into its file. Blocking, as long as a small file takes."""
        sink: Path | str = self._work.transfer.sink  # type: ignore[assignment, union-attr]  # see `Express.takes`
        self._file = file = PartFile(sink)
        looks: bool = self._work.transfer.wants_identity  # type: ignore[union-attr]  # as above
        identity = file.put(bytes(self._data), looks=looks)
        self._file = None
        etag, verified = reply.headers.get("etag"), self._is_verified
        outcome = self._work.done(self._size, self._checksum, etag=etag, verified=verified)
        outcome.identity = identity
        return outcome

    def close(self) -> None:
        """Remove what is left of an unfinished file. Calling it again does nothing."""
        self._data = b""
        if self._file is not None:
            self._file.discard()
            self._file = None

    @property
    def _shown(self) -> str:
        return redact_url(self._origin.url)
