"""The object store over a bucket.

::

    PREFIX/NAMESPACE/YYYY-MM-DD/<id>     the date is that of the id, in UTC
    PREFIX/NAMESPACE/asyncsdk.json       says whose it is

``NAMESPACE`` is random, made with the data folder and kept in its database: folders that share a bucket never touch
each other's objects, and no name can be guessed. Whether an object is committed is a row of the database and nothing
else.

Bytes count as arrived when their crc32c is known to be that of the commit: the cloud states it, and was seen to refuse
bytes that differ from it; otherwise the server reads them back (`checking`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from asyncsdk.checksums import Crc32c
from asyncsdk.domain.ids import is_id, time_of_id
from asyncsdk.errors import NotFound
from asyncsdk.server.objects.clouds.bucket import Bucket, ObjectGone
from asyncsdk.server.objects.clouds.checking import Checks
from asyncsdk.server.objects.discarding import Swept
from asyncsdk.server.objects.local import check_crc32c, check_object_id
from asyncsdk.server.objects.minting import Minter

__all__ = ["CloudObjects"]

QUESTIONS_AT_ONCE = 16
"""Requests about objects that one message has under way."""

_MARKER = "asyncsdk.json"
_PROBE = "asyncsdk.probe"
_BATCH = 1000
_MEMORY_BYTES = 8 * 1024 * 1024


class CloudObjects:
    """An `ObjectStore` in a bucket. All methods block: call them in worker threads.

    Args:
        bucket: The bucket.
        prefix: What all names begin with; empty or without slashes around it.
        namespace: The data folder's own.

    Attributes:
        minter: Mints the cloud's signed URLs.
    """

    def __init__(self, bucket: Bucket, prefix: str, namespace: str) -> None:
        self._bucket = bucket
        self._root = f"{prefix}/{namespace}/" if prefix else f"{namespace}/"
        self._checks = Checks(bucket)
        self._trusts_stated = False
        self.minter: Minter = bucket.minter(self.name)

    # --- opening -------------------------------------------------------------------------------------------------

    def claim(self) -> None:
        """Make this place the data folder's own; done once, with a new namespace."""
        content = {"what": "objects of an asyncsdk data folder", "made_at": datetime.now(UTC).isoformat()}
        self._bucket.write(self._root + _MARKER, json.dumps(content).encode())

    def is_claimed(self) -> bool:
        """Whether it is: another bucket of the same name, or an emptied one, is not."""
        return self._bucket.facts(self._root + _MARKER) is not None

    def look(self) -> None:
        """Find out whether checksums that the store states can be trusted. Before that none is."""
        self._trusts_stated = self._bucket.verifies_checksums(self._root + _PROBE)

    def close(self) -> None:
        """Close its connections. Calling it again does nothing."""
        self._bucket.close()

    # --- what arrived --------------------------------------------------------------------------------------------

    def name(self, object_id: str) -> str:
        """Return the name of an object in the bucket; `BadRequest` when the id is none."""
        day = datetime.fromtimestamp(time_of_id(check_object_id(object_id)) / 1000, tz=UTC)
        return f"{self._root}{day:%Y-%m-%d}/{object_id}"

    def sizes(self, objects: Collection[tuple[str, str]]) -> list[int | None]:
        """Return the size of each object that arrived; see `ObjectStore`. At most 16 requests at once."""
        if len(objects) < 2:
            return [self.staged_size(*staged) for staged in objects]
        threads = min(QUESTIONS_AT_ONCE, len(objects))
        # Threads of its own for each call: they are cheap beside the requests, and a fork finds none of them.
        with ThreadPoolExecutor(threads, thread_name_prefix="asyncsdk-cloud") as pool:
            futures = [pool.submit(self.staged_size, *staged) for staged in objects]
            try:
                return [future.result() for future in futures]
            finally:
                for future in futures:
                    future.cancel()  # after a failure nobody wants the others

    def staged_size(self, object_id: str, crc32c: str) -> int | None:
        """Return the size of an object that arrived; None when it is not there with that checksum."""
        name = self.name(object_id)
        facts = self._bucket.facts(name)
        if facts is None:
            return None
        found = facts.crc32c if self._trusts_stated else None
        if found is None:
            try:
                found = self._checks.crc32c(name, facts)
            except ObjectGone:
                return None
        return facts.size_bytes if found == check_crc32c(crc32c) else None

    def open_staged(self, object_id: str, crc32c: str) -> BinaryIO:
        """Return the bytes of an object that arrived, in a temporary file (in memory up to 8 MiB).

        Raises:
            NotFound: It is not there with that checksum.
        """
        name = self.name(object_id)
        facts = self._bucket.facts(name)
        checksum = Crc32c()
        file = SpooledTemporaryFile(_MEMORY_BYTES)  # noqa: SIM115  # the caller's to close
        try:
            if facts is not None and facts.size_bytes:
                for data in self._bucket.read(name, 0, facts.size_bytes, facts.etag):
                    checksum.update(data)
                    file.write(data)
            if facts is None or (checksum.size_bytes, checksum.hex()) != (facts.size_bytes, crc32c):
                raise ObjectGone(name)
        except ObjectGone:
            file.close()
            raise _never_arrived(object_id) from None
        except BaseException:  # closed whatever ended it, then raised again
            file.close()
            raise
        file.seek(0)
        return cast("BinaryIO", file)

    def head(self, object_id: str, crc32c: str, count: int) -> bytes:
        """Return the first *count* bytes of an object, or all it has. One request for them; none is made for the rest.

        Whether the whole has that checksum is not looked at: `staged_size` says that.

        Raises:
            NotFound: It is not there.
        """
        check_crc32c(crc32c)
        name = self.name(object_id)
        facts = self._bucket.facts(name)
        try:
            if facts is None:
                raise ObjectGone(name)
            stop = min(count, facts.size_bytes)
            return b"".join(self._bucket.read(name, 0, stop, facts.etag)) if stop else b""
        except ObjectGone:
            raise _never_arrived(object_id) from None

    def publish(self, objects: Sequence[tuple[str, str]]) -> None:
        """Do nothing: a cloud says that an object is there once it is durable."""

    def put(self, object_id: str, crc32c: str, file: BinaryIO, size_bytes: int) -> None:
        """Store an object that came through this server, in constant memory; see `Bucket.write_file`."""
        self._bucket.write_file(self.name(object_id), file, size_bytes, check_crc32c(crc32c))

    # --- what is to go -------------------------------------------------------------------------------------------

    def remove(self, objects: Iterable[tuple[str, str]]) -> None:
        """Remove objects, a thousand in one request where the cloud can."""
        names = (self.name(object_id) for object_id, _ in objects)
        while batch := list(islice(names, _BATCH)):
            self._bucket.remove(batch)

    def discard_expired(
        self, *, before_ms: int, keep: Callable[[Sequence[str]], Mapping[str, str]], swept: Swept | None = None
    ) -> int:
        """Remove what was never committed; see `ObjectStore`. Uploads in parts that were left are removed as well.

        A day is looked at until nothing can be put there any more. Where only signed URLs lead there, that is once:
        they ended a week later.
        """
        removed = 0
        over_ms = None if swept is None else swept.before_ms - self._bucket.late_ms
        for day in list(self._bucket.folders(self._root)):
            end_ms = _end_of(day)
            if end_ms is None or end_ms > before_ms or (over_ms is not None and end_ms <= over_ms):
                continue
            names = self._bucket.names(f"{self._root}{day}/")
            while batch := list(islice(names, _BATCH)):
                ids = {name: name.rpartition("/")[2] for name in batch}
                committed = keep(sorted({object_id for object_id in ids.values() if is_id(object_id)}))
                gone = [name for name, object_id in ids.items() if object_id not in committed]
                if gone:
                    self._bucket.remove(gone)
                removed += len(gone)
        return removed + self._bucket.discard_uploads(self._root, before_ms)


def _never_arrived(object_id: str) -> NotFound:
    return NotFound(f"the bytes of object {object_id} never arrived; upload them again")


def _end_of(day: str) -> int | None:
    """Return when a day ended, in milliseconds since 1970 UTC; None when it is none."""
    try:
        start = datetime.combine(date.fromisoformat(day), datetime.min.time(), tzinfo=UTC)
    except ValueError:
        return None
    return int((start + timedelta(days=1)).timestamp() * 1000)
