"""Uploads of small sources by one request each: one look at the file, one buffer, one request.

What `asyncsdk.engine.uploads` does for any source, without what only large, slow or repeated ones need; the express
lane uses the same object for one upload after the other.
"""

from __future__ import annotations

from pathlib import Path

from asyncsdk.checksums import Crc32c, crc32c
from asyncsdk.engine.digests import CRC32C_ALONE, asked_for, filled_in, is_confirmed
from asyncsdk.engine.seen import SeenFile, check_seen
from asyncsdk.engine.sources import FileSource, MemorySource, fitting_size, read_or_open
from asyncsdk.engine.transfers import Outcome, Upload
from asyncsdk.engine.uploads import check_expected
from asyncsdk.engine.work import Work
from asyncsdk.errors import IncompleteTransfer
from asyncsdk.targets import PutTarget
from asyncsdk.transport.base import BytesBody, FileBody, Reply, Request

__all__ = ["SmallPut"]


class SmallPut:
    """Sends one source after the other.

    Attributes:
        request: What sends the source `begin` was given last; good until the next.
        file: The source, if it stays a file until it is sent; None: its bytes are in memory.
    """

    __slots__ = ("_body", "_checksum", "_of_bytes", "_seen", "file", "request")

    def __init__(self) -> None:
        self._body = BytesBody(b"")
        self._of_bytes = self.request = Request("PUT", "", {}, self._body)
        self._checksum = 0
        self._seen: SeenFile | None = None  # the file that its bytes were read from, if it is looked at again
        self.file: FileSource | None = None

    def begin(self, work: Work, upload: Upload) -> bool:
        """Turn to another upload: open or read its source and make the request; False: it is not to be sent this way.

        Blocking, as long as a small file takes.

        Raises:
            AsyncSDKError: The source is not there, or is not what was announced.
        """
        target: PutTarget = upload.target  # type: ignore[assignment]  # see `Express.takes`
        config, source, headers = work.resources.config, upload.source, target.headers
        self._seen = seen = None
        if isinstance(source, (str, Path)):
            found = read_or_open(source, check=config.checks_source)
            if isinstance(found, FileSource):
                self.file = found
                return self._begin_file(work, upload, found)
            data, seen = found
        else:
            data = source if isinstance(source, bytes) else bytes(source)  # type: ignore[arg-type]  # a view
            seen = upload.read_from
        if seen is not None and config.checks_source:
            self._seen = seen
        if upload.size_bytes is not None and upload.size_bytes != len(data):
            data = data[: fitting_size(upload, len(data), accepts=not config.checks_source)]
        request = self.request = self._of_bytes
        self._body.data = data
        self._checksum = checksum = crc32c(data)
        if upload.crc32c is not None:
            check_expected(upload, checksum)
        if headers and (asked := asked_for(headers)):
            if asked != CRC32C_ALONE:
                return False
            headers = filled_in(headers, {"crc32c": checksum.to_bytes(4, "big")})
        request.method, request.url, request.headers = target.method, target.url, headers
        request.on_sent, request.timeouts = work.moved, config.timeouts
        return True

    def _begin_file(self, work: Work, upload: Upload, file: FileSource) -> bool:
        """Make the request for a file that is sent from where it is; False: its digest is wanted beforehand."""
        target: PutTarget = upload.target  # type: ignore[assignment]  # see `Express.takes`
        config = work.resources.config
        file.cut_at(fitting_size(upload, file.stop, accepts=not config.checks_source))
        body = FileBody(file.fd, 0, file.stop, name=file.name, checksum=Crc32c())
        self.request = Request(
            target.method, target.url, target.headers, body, on_sent=work.moved, timeouts=config.timeouts
        )
        return not asked_for(target.headers)

    def finish(self, work: Work, reply: Reply, sent: int) -> Outcome:
        """Return the outcome of an upload that was answered, and forget its source. Blocking for one look at its file.

        Args:
            sent: How many bytes of it went out before the answer.

        Raises:
            AsyncSDKError, UrlExpired: The source is not there as it was sent; it is kept.
        """
        upload: Upload = work.transfer  # type: ignore[assignment]
        if not 200 <= reply.status < 300:
            raise work.refused(reply, self.request, upload.target.expires_at)  # type: ignore[union-attr]
        file, size, checksum = self.file, len(self._body.data), self._checksum
        if file is not None:
            body = self.request.body
            assert isinstance(body, FileBody)
            assert body.checksum is not None
            size, checksum = body.size_bytes, body.checksum.value
        if sent != size:
            # It said yes before it had everything.
            raise IncompleteTransfer(size, sent, source=upload.name)
        verified = is_confirmed(work, reply, checksum)
        if file is None:
            if self._seen is not None:
                check_seen(self._seen)
            self._body.data = b""
        else:
            file.check_unchanged_now()
            check_expected(upload, checksum)
            self.file = None
            file.close()
        return work.done(size, checksum, etag=reply.headers.get("etag"), verified=verified, reply=reply.body)

    def take(self, work: Work) -> FileSource | MemorySource:
        """Give *work* the source, as it is open or in memory: what is sent again is what was sent."""
        file, self.file = self.file, None
        if file is not None:
            return file
        return MemorySource(self._body.data, self._checksum, seen=self._seen, threads=work.resources.threads)

    def close(self) -> None:
        """Close the source, and forget it. Calling it again does nothing."""
        self._body.data = b""
        file = self.file
        if file is not None:
            self.file = None
            file.close()
