"""Objects arriving in parts: in any order, again, from several processes; joined without copying.

An upload has two files beside the staged objects: ``<id>.<upload id>.part`` takes every part at its place, and
``<id>.<upload id>.list`` is the list of receipts (`ledger`), appended to and never rewritten. Nothing else is kept
anywhere, least of all in memory. What makes that safe:

* An attempt writes only while it holds the lock of its part, and only as long as nobody began the part anew; the
  later attempt wins, wherever it runs. Completing holds the locks of all parts.
* Every lock is followed by a look whether the list is still the file of that name: once completed or aborted it is
  not, so that a straggler never writes into a published object (they are one file).
* The first half of an attempt's name is that of the machine's start: receipts of parts that may have been lost with
  the power do not count. Completing makes the bytes durable before it says that they are there.

Source: Amazon S3 API reference, UploadPart, CompleteMultipartUpload, ListParts, AbortMultipartUpload.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from asyncsdk.checksums import combine_crc32c, crc32c_hex
from asyncsdk.errors import BadRequest, Conflict, NotFound
from asyncsdk.os_errors import os_errors
from asyncsdk.server.objects.arrivals import Digests, Expected, write_all
from asyncsdk.server.objects.ledger import Ledger, append_line, begun_line, done_line, new_attempt
from asyncsdk.server.objects.local import LocalObjects, crc32c_of_file
from asyncsdk.server.objects.locks import locked
from asyncsdk.server.objects.parts import Completed, Receipt, UploadId
from asyncsdk.server.objects.private import make_private_folder
from asyncsdk.server.objects.syncing import reserve

__all__ = ["MultipartUpload", "PartArrival"]


class MultipartUpload:
    """One upload in parts. Blocking; cheap to make for every request.

    Args:
        objects: The store.
        object_id: Under which the whole is staged.
        upload_id: Names the upload.
    """

    def __init__(self, objects: LocalObjects, object_id: str, upload_id: UploadId) -> None:
        self.objects = objects
        self.object_id = object_id
        self.upload_id = upload_id
        folder = objects.staging_folder(object_id)
        self.data_path = folder / f"{object_id}.{upload_id}.part"
        self.list_path = folder / f"{object_id}.{upload_id}.list"

    def receipts(self) -> list[Receipt]:
        """Return the parts that are there, by number; none when nothing arrived yet."""
        try:
            data = self.list_path.read_bytes()
        except FileNotFoundError:
            return []
        return sorted(Ledger(data).receipts.values(), key=lambda receipt: receipt.part)

    def complete(self, parts: Sequence[tuple[int, str]], *, crc32c: str | None = None) -> Completed:
        """Join the parts to the staged object, durable when it returns. Repeating it gives the same answer.

        Args:
            parts: Number and ETag of every part, in order.
            crc32c: What the whole must have, when known.

        Raises:
            NotFound: There is no such upload: no part arrived, or it was aborted (code ``no_such_upload``).
            BadRequest: The list is not that of the parts that arrived (codes ``invalid_part``,
                ``invalid_part_order``), or the whole is not what was expected (``incomplete``, ``bad_digest``);
                the parts stay, so that the wrong ones can be sent again.
        """
        wanted = self._check_list(parts)
        whole = _join(wanted)
        if self.upload_id.size_bytes is not None:
            Expected(self.upload_id.size_bytes).check(whole.size_bytes, whole.crc32c, None)
        with os_errors("destination", destination=self.object_id):
            descriptor = self._open_list(create=False)
            if descriptor is None:
                return self._completed_before(whole)
            try:
                with locked(descriptor):
                    if not _is_named(descriptor, self.list_path):
                        return self._completed_before(whole)
                    self._check_arrived(wanted, Ledger(_read(descriptor)).receipts)
                    if crc32c is not None:
                        Expected(whole.size_bytes, (crc32c,)).check(whole.size_bytes, whole.crc32c, None)
                    self._stage(descriptor, whole)
            finally:
                os.close(descriptor)
        return whole

    def abort(self) -> None:
        """Remove the parts; nothing happens when there are none."""
        descriptor = self._open_list(create=False)
        if descriptor is None:
            return
        try:
            with locked(descriptor):
                if _is_named(descriptor, self.list_path):
                    self.data_path.unlink(missing_ok=True)
                    self.list_path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def _check_list(self, parts: Sequence[tuple[int, str]]) -> list[Receipt]:
        numbers = [part for part, _ in parts]
        if not numbers or numbers != sorted(set(numbers)):
            raise BadRequest("list every part once, in ascending order", code="invalid_part_order")
        if numbers != list(range(1, len(numbers) + 1)) or len(numbers) > self.upload_id.parts:
            raise BadRequest(
                f"list every part from 1 to the last, without a gap: {_shown(numbers)}", code="invalid_part"
            )
        receipts = []
        for part, etag in parts:
            receipt = Receipt.from_etag(part, etag)
            if receipt is None:
                raise BadRequest(f"part {part}: this ETag was not given for it", code="invalid_part")
            if part < len(numbers) and receipt.size_bytes != self.upload_id.part_size:
                raise BadRequest(
                    f"part {part} has {receipt.size_bytes} bytes; only the last may differ from "
                    f"{self.upload_id.part_size}",
                    code="invalid_part",
                )
            receipts.append(receipt)
        return receipts

    def _check_arrived(self, wanted: Sequence[Receipt], arrived: Mapping[int, Receipt]) -> None:
        for receipt in wanted:
            if arrived.get(receipt.part) != receipt:
                raise BadRequest(f"part {receipt.part} with this ETag is not here; send it again", code="invalid_part")

    def _stage(self, list_descriptor: int, whole: Completed) -> None:
        """Make the data file the staged object. The locks of all parts are held."""
        try:
            descriptor = os.open(self.data_path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            os.ftruncate(list_descriptor, 0)  # receipts for bytes that somebody took away
            raise BadRequest("the parts are gone; send them again", code="invalid_part") from None
        try:
            # An earlier attempt at the last part of a stream may have been longer.
            os.ftruncate(descriptor, whole.size_bytes)
            os.fdatasync(descriptor) if hasattr(os, "fdatasync") else os.fsync(descriptor)
        finally:
            os.close(descriptor)
        # In this order a kill in between never leaves receipts without their bytes.
        os.ftruncate(list_descriptor, 0)
        self.objects.place(self.data_path, self.object_id, whole.crc32c)
        self.list_path.unlink(missing_ok=True)

    def _completed_before(self, whole: Completed) -> Completed:
        """Return *whole* when that very object is there: the reply to a first call was lost."""
        if self.objects.staged_size(self.object_id, whole.crc32c) == whole.size_bytes:
            return whole
        with suppress(FileNotFoundError):  # committed with an earlier release, its name does not tell its checksum
            if crc32c_of_file(self.objects.path(self.object_id, whole.crc32c)) == whole.crc32c:
                return whole
        raise NotFound("there is no such upload: no part arrived, or it was aborted", code="no_such_upload")

    def _open_list(self, *, create: bool) -> int | None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT if create else 0)
        for _ in range(2):
            try:
                return os.open(self.list_path, flags, 0o600)
            except FileNotFoundError:
                if not create:
                    return None
                make_private_folder(self.list_path.parent)
        raise NotFound("the folder of this upload keeps disappearing", code="no_such_upload")

    # --- one attempt at one part ---------------------------------------------------------------------------------

    def begin(self, part: int, expected: Expected) -> PartArrival:
        """Start an attempt at a part; what was there of it counts no more, and an attempt still running loses.

        Raises:
            BadRequest: The object has no part of that number and size.
            DestinationFull: No space is left for the object.
        """
        self.upload_id.check_part(part, expected.size_bytes)
        with os_errors("destination", destination=self.object_id, part=part):
            return self._begin(part, expected)

    def _begin(self, part: int, expected: Expected) -> PartArrival:
        attempt = new_attempt()
        for _ in range(100):
            descriptor = self._open_list(create=True)
            assert descriptor is not None
            try:
                with locked(descriptor, part):
                    # Completed or aborted this moment, it is another file: this part then starts the upload anew.
                    begun = self._register(descriptor, part, attempt) if _is_named(descriptor, self.list_path) else None
            except BaseException:  # closed whatever ended it, then raised again
                os.close(descriptor)
                raise
            if begun is not None:
                return PartArrival(self, part, expected, attempt, descriptor, *begun)
            os.close(descriptor)
        raise Conflict("this upload is completed or aborted all the time; use one of your own", code="superseded")

    def _register(self, descriptor: int, part: int, attempt: str) -> tuple[int, int]:
        """Return the data file, open, and where the line of this attempt ends. The lock of the part is held."""
        data_descriptor = self._open_data()
        try:
            return data_descriptor, append_line(descriptor, begun_line(part, attempt))
        except BaseException:  # closed whatever ended it, then raised again
            os.close(data_descriptor)
            raise

    def _open_data(self) -> int:
        flags = os.O_WRONLY | os.O_CLOEXEC
        try:
            return os.open(self.data_path, flags)
        except FileNotFoundError:
            descriptor = os.open(self.data_path, flags | os.O_CREAT, 0o600)
        try:
            reserve(descriptor, self.upload_id.size_bytes or 0)
        except BaseException:  # closed whatever ended it, then raised again
            # The file stays for abort or the sweep: another part may already lie in it.
            os.close(descriptor)
            raise
        return descriptor


class PartArrival:
    """Takes the bytes of one attempt at one part. Blocking; used by one thread at a time. Made by `begin`."""

    def __init__(
        self,
        upload: MultipartUpload,
        part: int,
        expected: Expected,
        attempt: str,
        list_descriptor: int,
        data_descriptor: int,
        position: int,
    ) -> None:
        self._upload = upload
        self._part = part
        self._expected = expected
        self._attempt = attempt
        self._list = list_descriptor
        self._data = data_descriptor
        self._position = position
        self._digests = Digests(expected)

    def write(self, chunks: Sequence[bytes]) -> None:
        """Take the next bytes.

        Raises:
            Conflict: A newer attempt at the part has begun, or the upload is over (code ``superseded``).
            DestinationFull: No space is left.
            BadRequest: More bytes came than were declared: they belong to the next part's place.
        """
        offset = (self._part - 1) * self._upload.upload_id.part_size + self._digests.size_bytes
        for data in chunks:
            self._digests.update(data)
        if self._digests.size_bytes > self._expected.size_bytes:
            raise BadRequest(f"more than the {self._expected.size_bytes} bytes declared came", code="incomplete")
        with self._current():
            write_all(self._data, chunks, offset)

    def finish(self) -> Receipt:
        """Give the part its receipt when its bytes are those expected; raises as `write` and `Expected.check`."""
        crc32c = self._digests.check(self._expected)
        receipt = Receipt(self._part, self._digests.size_bytes, crc32c)
        with self._current():
            append_line(self._list, done_line(receipt, self._attempt))
        return receipt

    def discard(self) -> None:
        """Close the files. A part without a receipt is not there."""
        list_descriptor, self._list = self._list, -1
        if list_descriptor >= 0:
            os.close(list_descriptor)
            os.close(self._data)

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Hold the part's lock, as its latest attempt."""
        with (
            os_errors("destination", destination=self._upload.object_id, part=self._part),
            locked(self._list, self._part),
        ):
            if not _is_named(self._list, self._upload.list_path) or self._is_superseded():
                raise Conflict(f"a newer attempt at part {self._part} took over", code="superseded")
            yield

    def _is_superseded(self) -> bool:
        end = os.fstat(self._list).st_size
        if end < self._position:
            return True  # emptied: the upload is being completed by somebody who died at it
        tail = os.pread(self._list, end - self._position, self._position)
        self._position = end
        latest = Ledger(tail).latest.get(self._part, self._attempt)
        return latest != self._attempt

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.discard()


def _read(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _is_named(descriptor: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)


def _join(receipts: Sequence[Receipt]) -> Completed:
    value = size_bytes = 0
    for receipt in receipts:
        value = combine_crc32c(value, int(receipt.crc32c, 16), receipt.size_bytes)
        size_bytes += receipt.size_bytes
    return Completed(size_bytes, crc32c_hex(value))


def _shown(numbers: Sequence[int]) -> str:
    text = ", ".join(map(str, numbers[:10]))
    return f"{text}, ..." if len(numbers) > 10 else text
