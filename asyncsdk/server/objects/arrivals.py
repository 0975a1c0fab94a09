"""One object arriving in one request: to a temporary name, checksummed as it comes, then renamed to its staged name."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import google_crc32c

from asyncsdk.checksums import crc32c_hex
from asyncsdk.errors import BadRequest
from asyncsdk.os_errors import os_errors
from asyncsdk.server.objects.local import LocalObjects
from asyncsdk.server.objects.private import make_private_folder

__all__ = ["Arrival", "Digests", "Expected", "write_all"]

_MAX_VECTORS = 512  # below IOV_MAX everywhere


@dataclass(frozen=True, slots=True)
class Expected:
    """What is known of bytes before they come; whatever is given is checked.

    Args:
        size_bytes: How many there are.
        crc32c: Their checksums as told by the signed URL and by the request, each eight hexadecimal digits.
        md5: Their MD5 as the request tells it, 16 bytes.
    """

    size_bytes: int
    crc32c: tuple[str, ...] = ()
    md5: bytes | None = None

    def check(self, size_bytes: int, crc32c: str, md5: bytes | None) -> None:
        """Raise `BadRequest` (code ``incomplete`` or ``bad_digest``) when the bytes are not those expected."""
        if size_bytes != self.size_bytes:
            raise BadRequest(f"{self.size_bytes} bytes were declared, {size_bytes} came", code="incomplete")
        for expected in self.crc32c:
            if expected != crc32c:
                raise BadRequest(f"checksum differs: crc32c {expected} was told, {crc32c} came", code="bad_digest")
        if self.md5 is not None and self.md5 != md5:
            raise BadRequest("checksum differs: the bytes do not have the MD5 of Content-MD5", code="bad_digest")


class Digests:
    """Running crc32c, and MD5 where somebody asks for it: it costs as much as the transfer."""

    __slots__ = ("_crc32c", "_md5", "size_bytes")

    def __init__(self, expected: Expected | None) -> None:
        self._crc32c = 0
        self._md5 = None if expected is None or expected.md5 is None else hashlib.md5(usedforsecurity=False)
        self.size_bytes = 0

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        self._crc32c = google_crc32c.extend(self._crc32c, data)
        if self._md5 is not None:
            self._md5.update(data)
        self.size_bytes += len(data)

    def check(self, expected: Expected | None) -> str:
        """Return the crc32c as eight hexadecimal digits; raises as `Expected.check`."""
        crc32c = crc32c_hex(self._crc32c)
        if expected is not None:
            expected.check(self.size_bytes, crc32c, None if self._md5 is None else self._md5.digest())
        return crc32c


class Arrival:
    """Takes the bytes of one object; a context manager that leaves nothing behind unless `finish` was reached.

    Blocking; used by one thread at a time.

    Args:
        objects: The store.
        object_id: Under which the bytes are staged.
        expected: What they are checked against; None when nothing is known before they end (a file in a form).
    """

    def __init__(self, objects: LocalObjects, object_id: str, expected: Expected | None) -> None:
        self._objects = objects
        self._object_id = object_id
        self._expected = expected
        self._digests = Digests(expected)
        folder = objects.staging_folder(object_id)
        self._temporary = folder / f"{object_id}.{secrets.token_hex(8)}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os_errors("destination", destination=object_id):
            try:
                self._descriptor = os.open(self._temporary, flags, 0o600)
            except FileNotFoundError:
                make_private_folder(folder)
                self._descriptor = os.open(self._temporary, flags, 0o600)

    def write(self, chunks: Sequence[bytes]) -> None:
        """Take the next bytes.

        Raises:
            DestinationFull: No space is left.
            BadRequest: More bytes came than were declared.
        """
        for data in chunks:
            self._digests.update(data)
        expected = self._expected
        if expected is not None and self._digests.size_bytes > expected.size_bytes:
            raise BadRequest(f"more than the {expected.size_bytes} bytes declared came", code="incomplete")
        with os_errors("destination", destination=self._object_id):
            write_all(self._descriptor, chunks)

    def finish(self) -> str:
        """Stage the object when its bytes are those expected; returns their crc32c.

        Raises:
            BadRequest: They are not; nothing is stored.
        """
        crc32c = self._digests.check(self._expected)
        with os_errors("destination", destination=self._object_id):
            self._close()
            self._objects.place(self._temporary, self._object_id, crc32c)
        return crc32c

    def discard(self) -> None:
        """Leave nothing behind; does nothing after `finish`."""
        self._close()
        self._temporary.unlink(missing_ok=True)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.discard()


def write_all(descriptor: int, chunks: Sequence[bytes], offset: int | None = None) -> None:
    """Write all of *chunks*, at *offset* or where the file stands; partial writes are gone on with."""
    views = [memoryview(data) for data in chunks if data]
    first = 0
    while first < len(views):
        batch = views[first : first + _MAX_VECTORS]
        written = os.writev(descriptor, batch) if offset is None else os.pwritev(descriptor, batch, offset)
        if offset is not None:
            offset += written
        while first < len(views) and written >= len(views[first]):
            written -= len(views[first])
            first += 1
        if written:
            views[first] = views[first][written:]
