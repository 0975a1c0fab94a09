"""Checksums of objects that the cloud states none for: the server reads the bytes back.

The result is kept by the object's ETag, and whoever asks meanwhile waits for it: a commit whose client lost patience
and comes again finds the work done.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from asyncsdk.checksums import Crc32c, combine_crc32c, crc32c_hex
from asyncsdk.errors import ServerError
from asyncsdk.server.objects.clouds.bucket import Bucket, Facts, ObjectGone

__all__ = ["RANGE_BYTES", "Checks"]

RANGE_BYTES = 32 * 1024 * 1024
"""What one request reads."""

READS_AT_ONCE = 8
"""Requests that read, in this process, whatever the number of commits. A buffer of 1 MiB each."""

_THREADS_OF_OBJECT = 4
_KNOWN = 20_000
_ATTEMPTS = 3

_Key = tuple[str, str, int]


class Checks:
    """Reads objects of a bucket back and sums them. Safe for several threads."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._lock = threading.Lock()
        self._known: OrderedDict[_Key, str] = OrderedDict()
        self._running: dict[_Key, Future[str]] = {}
        self._reading = threading.BoundedSemaphore(READS_AT_ONCE)

    def crc32c(self, name: str, facts: Facts) -> str:
        """Return the checksum of an object, eight hexadecimal digits.

        Raises:
            ObjectGone: It is not there with that ETag any more.
            ServerError: The store fails.
        """
        key = (name, facts.etag, facts.size_bytes)
        with self._lock:
            if (known := self._known.get(key)) is not None:
                self._known.move_to_end(key)
                return known
            running = self._running.get(key)
            if running is None:
                mine: Future[str] = Future()
                self._running[key] = mine
        if running is not None:
            return running.result()
        try:
            found = self._sum(name, facts)
        except BaseException as error:  # told to those who wait for it too, then raised again
            mine.set_exception(error)
            raise
        else:
            mine.set_result(found)
            return found
        finally:
            with self._lock:
                del self._running[key]
                if mine.exception() is None:
                    self._known[key] = mine.result()
                    if len(self._known) > _KNOWN:
                        self._known.popitem(last=False)

    def _sum(self, name: str, facts: Facts) -> str:
        ranges = [
            (start, min(start + RANGE_BYTES, facts.size_bytes)) for start in range(0, facts.size_bytes, RANGE_BYTES)
        ]
        if len(ranges) < 2:
            return crc32c_hex(sum(self._sum_range(name, facts.etag, *bounds) for bounds in ranges))
        with ThreadPoolExecutor(min(_THREADS_OF_OBJECT, len(ranges)), thread_name_prefix="asyncsdk-checks") as pool:
            futures = [pool.submit(self._sum_range, name, facts.etag, *bounds) for bounds in ranges]
            try:
                sums = [future.result() for future in futures]
            finally:
                for future in futures:
                    future.cancel()  # after a failure nobody wants the others
        return crc32c_hex(_joined(sums, ranges))

    def _sum_range(self, name: str, etag: str, start: int, stop: int) -> int:
        for attempt in range(1, _ATTEMPTS + 1):
            checksum = Crc32c()
            try:
                with self._reading:
                    for data in self._bucket.read(name, start, stop, etag):
                        checksum.update(data)
            except ServerError as error:
                if attempt == _ATTEMPTS or not error.retryable:
                    raise
                continue
            if checksum.size_bytes == stop - start:
                return checksum.value
        raise ObjectGone(name)


def _joined(sums: Sequence[int], ranges: Sequence[tuple[int, int]]) -> int:
    total = 0
    for checksum, (start, stop) in zip(sums, ranges, strict=True):
        total = combine_crc32c(total, checksum, stop - start)
    return total
