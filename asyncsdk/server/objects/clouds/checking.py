"""Checksums of objects that the cloud states none for: the server reads the bytes back.

Reading goes on in threads of its own, whoever waits for it and for however long: a commit whose client comes again
finds the work done, or further on. The result is kept by the object's ETag. Objects that are read at the same time
take turns, so that a small one does not wait for a large one.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from asyncsdk.checksums import Crc32c, combine_crc32c, crc32c_hex
from asyncsdk.errors import ServerError
from asyncsdk.server.objects.clouds.bucket import Bucket, Facts, ObjectGone, store_unavailable

__all__ = ["RANGE_BYTES", "Checks"]

RANGE_BYTES = 32 * 1024 * 1024
"""What one request reads."""

READS_AT_ONCE = 8
"""Requests that read, in this process, whatever the number of commits. A buffer of 1 MiB each."""

CLOSE_SECONDS = 10.0
"""How long closing waits for threads that read. They stop between two pieces; a store that hangs is not waited for."""

_READS_OF_OBJECT = 4
_KNOWN = 20_000
_ATTEMPTS = 3

_Key = tuple[str, str, int]


@dataclass(slots=True)
class _Reading:
    """One object that is being read, range by range. Its counts change under the lock of `_Readings`."""

    key: _Key
    ranges: Sequence[tuple[int, int]]
    sums: list[int]
    begun: int = 0
    done: int = 0
    future: Future[str] = field(default_factory=Future)


class Checks:
    """Reads objects of a bucket back and sums them. Safe for several threads, and again after a fork."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._of_process = (os.getpid(), _Readings(bucket))

    def begin(self, name: str, facts: Facts) -> Future[str]:
        """Return the checksum of an object, eight hexadecimal digits, as soon as it is known.

        Nobody need wait for it: what is known later is kept, and so is a failure until somebody `heard` of it. Its
        errors are `ObjectGone` (it is not there with that ETag any more) and `ServerError` (the store fails).
        """
        return self._readings().begin((name, facts.etag, facts.size_bytes))

    def heard(self, name: str, facts: Facts) -> None:
        """Forget that reading an object failed: whoever asks next has it read again."""
        self._readings().heard((name, facts.etag, facts.size_bytes))

    def close(self) -> None:
        """Stop reading; returns when no thread does any more, or after 10 s. Asked again, it begins anew."""
        (pid, readings), self._of_process = self._of_process, (os.getpid(), _Readings(self._bucket))
        if pid == os.getpid():
            readings.close()

    def _readings(self) -> _Readings:
        if self._of_process[0] != os.getpid():  # after a fork, threads and locks are the other side's
            self._of_process = (os.getpid(), _Readings(self._bucket))
        return self._of_process[1]


class _Readings:
    """What is read, and what was, in one process."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._lock = threading.Condition()  # told when a thread has read its range
        self._reading = 0
        self._known: OrderedDict[_Key, str] = OrderedDict()
        self._failed: OrderedDict[_Key, Future[str]] = OrderedDict()
        self._running: dict[_Key, _Reading] = {}
        self._is_closing = False
        self._pool = ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="asyncsdk-checks")

    def begin(self, key: _Key) -> Future[str]:
        size = key[2]
        with self._lock:
            if (known := self._known.get(key)) is not None:
                self._known.move_to_end(key)
                return _result(known)
            if (failure := self._failed.get(key)) is not None:
                return failure
            if (running := self._running.get(key)) is not None:
                return running.future
            if self._is_closing:
                closed: Future[str] = Future()
                closed.set_exception(store_unavailable("GetObject"))
                return closed
            ranges = [(start, min(start + RANGE_BYTES, size)) for start in range(0, size, RANGE_BYTES)]
            if not ranges:
                return _result(crc32c_hex(0))
            reading = self._running[key] = _Reading(key, ranges, [0] * len(ranges))
            try:
                for _ in range(min(_READS_OF_OBJECT, len(ranges))):
                    self._pool.submit(self._read_one, reading)
            except RuntimeError:  # no thread could be started; or the interpreter ends
                del self._running[key]  # nobody would end it, nor anybody's wait for it
                raise
        return reading.future

    def heard(self, key: _Key) -> None:
        with self._lock:
            self._failed.pop(key, None)

    def close(self) -> None:
        with self._lock:
            self._is_closing = True
            self._pool.shutdown(wait=False, cancel_futures=True)
            has_ended = self._lock.wait_for(lambda: not self._reading, CLOSE_SECONDS)
            left = list(self._running.values())
        if has_ended:  # else a store does not answer: its own timeouts end what is left
            self._pool.shutdown(wait=True)
        for reading in left:
            self._fail(reading, store_unavailable("GetObject"))

    def _read_one(self, reading: _Reading) -> None:
        """Read the next range of an object; the one after it waits behind those of others."""
        with self._lock:
            number = reading.begun
            is_wanted = self._running.get(reading.key) is reading and not self._is_closing
            if not is_wanted or number == len(reading.ranges):
                return
            reading.begun += 1
            self._reading += 1
        try:
            found = self._sum(reading.key, *reading.ranges[number])
        except BaseException as error:  # noqa: BLE001  # raised again where the result is asked for
            self._fail(reading, error)
            return
        finally:
            with self._lock:
                self._reading -= 1
                self._lock.notify_all()
        whole = None
        with self._lock:
            reading.sums[number] = found
            reading.done += 1
            if self._running.get(reading.key) is not reading:
                return  # closed meanwhile, or another range failed
            if reading.done == len(reading.ranges):
                whole = crc32c_hex(_joined(reading.sums, reading.ranges))
                del self._running[reading.key]
                self._known[reading.key] = whole
                if len(self._known) > _KNOWN:
                    self._known.popitem(last=False)
            elif reading.begun < len(reading.ranges) and not self._is_closing:
                self._pool.submit(self._read_one, reading)
        if whole is not None:
            reading.future.set_result(whole)

    def _fail(self, reading: _Reading, error: BaseException) -> None:
        with self._lock:
            if self._running.get(reading.key) is not reading:
                return  # another range of it failed before
            del self._running[reading.key]
            # Whatever it is: begun anew for each who asks, a reading whose end nobody waits for would never end.
            self._failed[reading.key] = reading.future
            if len(self._failed) > _KNOWN:
                self._failed.popitem(last=False)
        reading.future.set_exception(error)

    def _sum(self, key: _Key, start: int, stop: int) -> int:
        name, etag, _ = key
        for attempt in range(1, _ATTEMPTS + 1):
            checksum = Crc32c()
            try:
                for data in self._bucket.read(name, start, stop, etag):
                    if self._is_closing:
                        raise store_unavailable("GetObject")
                    checksum.update(data)
            except ServerError as error:
                if attempt == _ATTEMPTS or not error.retryable or self._is_closing:
                    raise
                continue
            if checksum.size_bytes == stop - start:
                return checksum.value
        raise ObjectGone(name)


def _result(found: str) -> Future[str]:
    future: Future[str] = Future()
    future.set_result(found)
    return future


def _joined(sums: Sequence[int], ranges: Sequence[tuple[int, int]]) -> int:
    total = 0
    for checksum, (start, stop) in zip(sums, ranges, strict=True):
        total = combine_crc32c(total, checksum, stop - start)
    return total
