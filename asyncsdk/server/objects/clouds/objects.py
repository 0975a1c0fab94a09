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
from concurrent.futures import Future, ThreadPoolExecutor, wait
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from asyncsdk.checksums import Crc32c
from asyncsdk.domain.ids import is_id, time_of_id
from asyncsdk.errors import BadRequest, NotFound, ResponseError, ServerError
from asyncsdk.protocol.uploads import BAD_DIGEST, STILL_CHECKING
from asyncsdk.server.objects.clouds.bucket import Bucket, Facts, ObjectGone
from asyncsdk.server.objects.clouds.checking import Checks
from asyncsdk.server.objects.discarding import Swept
from asyncsdk.server.objects.local import check_crc32c, check_object_id
from asyncsdk.server.objects.minting import Minter
from asyncsdk.server.objects.store import Found

__all__ = ["CloudObjects"]

QUESTIONS_AT_ONCE = 16
"""Requests about objects that one message has under way."""

CHECK_SECONDS = 3.0
"""How long a message waits for the reading of what it commits. Small objects are read by then; for large ones its
client comes again, and holds no thread of the server meanwhile."""

_LISTED_FROM = 16
"""Objects from which on a listing is asked first, where there is one that tells enough."""

_AGAIN_SECONDS = 2.0
"""After which a client is asked to come again."""

_Looked = tuple[Facts | None, Future[str] | None]
"""What the cloud says of an object, and its checksum when it is to be read."""

_MARKER = "asyncsdk.json"
_PROBE = "asyncsdk.probe"
_BATCH = 1000
_MEMORY_BYTES = 1024 * 1024


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
        """Stop reading and close its connections. Calling it again does nothing."""
        self._checks.close()
        self._bucket.close()

    # --- what arrived --------------------------------------------------------------------------------------------

    def name(self, object_id: str) -> str:
        """Return the name of an object in the bucket; `BadRequest` when the id is none."""
        day = datetime.fromtimestamp(time_of_id(check_object_id(object_id)) / 1000, tz=UTC)
        return f"{self._root}{day:%Y-%m-%d}/{object_id}"

    def sizes(self, objects: Collection[tuple[str, str]]) -> Sequence[Found]:
        """Return what is there of each object; see `ObjectStore`. At most 16 requests at once ask what is there.

        What must be read is waited for `CHECK_SECONDS`; reading goes on afterwards.
        """
        wanted = [(self.name(object_id), check_crc32c(crc32c)) for object_id, crc32c in objects]
        looked = self._look_at_all([name for name, _ in wanted])
        wait([summed for _, summed in looked if summed is not None], timeout=CHECK_SECONDS)
        return [self._judge(*one, *found) for one, found in zip(wanted, looked, strict=True)]

    def _look_at_all(self, names: Sequence[str]) -> list[_Looked]:
        # Prepared by one job at about the same time, they are neighbours: ids sort by the time of their making.
        known = self._bucket.listed_facts(names) if len(names) >= _LISTED_FROM else {}
        if known:
            rest = iter(self._look_at_each([name for name in names if name not in known]))
            return [self._looked(name, known[name]) if name in known else next(rest) for name in names]
        return self._look_at_each(names)

    def _look_at_each(self, names: Sequence[str]) -> list[_Looked]:
        if len(names) < 2:
            return [self._look_at(name) for name in names]
        threads = min(QUESTIONS_AT_ONCE, len(names))
        # Threads of its own for each call: they are cheap beside the requests, and a fork finds none of them.
        with ThreadPoolExecutor(threads, thread_name_prefix="asyncsdk-cloud") as pool:
            futures = [pool.submit(self._look_at, name) for name in names]
            try:
                return [future.result() for future in futures]
            finally:
                for future in futures:
                    future.cancel()  # after a failure nobody wants the others

    def _look_at(self, name: str) -> _Looked:
        return self._looked(name, self._bucket.facts(name))

    def _looked(self, name: str, facts: Facts | None) -> _Looked:
        if facts is None or (self._trusts_stated and facts.crc32c is not None):
            return facts, None
        return facts, self._checks.begin(name, facts)

    def _judge(self, name: str, told: str, facts: Facts | None, summed: Future[str] | None) -> Found:
        if facts is None:
            return None
        found = facts.crc32c
        if summed is not None:
            if not summed.done():
                return _still_checking(facts)
            failure = summed.exception()
            if failure is not None:
                self._checks.heard(name, facts)
                if isinstance(failure, ObjectGone):
                    return None
                if isinstance(failure, ResponseError):
                    return failure
                raise failure
            found = summed.result()
        if found == told:
            return facts.size_bytes
        return _other_bytes(told, found)

    def open_staged(self, object_id: str, crc32c: str) -> BinaryIO:
        """Return the bytes of an object that arrived, in a temporary file (in memory up to 1 MiB).

        Raises:
            NotFound: It is not there.
            BadRequest: It is there with another checksum (code ``bad_digest``).
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
            if facts is None or checksum.size_bytes != facts.size_bytes:
                raise ObjectGone(name)
            if checksum.hex() != crc32c:
                raise _other_bytes(crc32c, checksum.hex())
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

        Whether the whole has that checksum is not looked at: `sizes` says that.

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

    def remove(self, objects: Iterable[tuple[str, str]]) -> Mapping[str, str]:
        """Remove objects, a thousand in one request where the cloud can; see `ObjectStore`."""
        stayed: dict[str, str] = {}
        names = (self.name(object_id) for object_id, _ in objects)
        while batch := list(islice(names, _BATCH)):
            stayed |= self._bucket.remove(batch)
        return {name.rpartition("/")[2]: reason for name, reason in stayed.items()}

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
                    stayed = self._bucket.remove(gone)
                    removed += len(gone) - len(stayed)
        return removed + self._bucket.discard_uploads(self._root, before_ms)


def _still_checking(facts: Facts) -> ServerError:
    return ServerError(
        f"the {facts.size_bytes} bytes that arrived are still being read for their checksum; repeat this in a while",
        status=503,
        code=STILL_CHECKING,
        retry_after=_AGAIN_SECONDS,
    )


def _other_bytes(told: str, found: str | None) -> BadRequest:
    return BadRequest(
        f"checksum differs: crc32c {told} was told, the bytes that arrived have {found}; upload again", code=BAD_DIGEST
    )


def _never_arrived(object_id: str) -> NotFound:
    return NotFound(f"the bytes of object {object_id} never arrived; upload them again")


def _end_of(day: str) -> int | None:
    """Return when a day ended, in milliseconds since 1970 UTC; None when it is none."""
    try:
        start = datetime.combine(date.fromisoformat(day), datetime.min.time(), tzinfo=UTC)
    except ValueError:
        return None
    return int((start + timedelta(days=1)).timestamp() * 1000)
