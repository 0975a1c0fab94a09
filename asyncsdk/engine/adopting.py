"""Going on with a half-received file of an earlier process: what is in it is read and summed before it counts."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

from asyncsdk.checksums import Crc32c
from asyncsdk.engine.received import Received, Unfinished
from asyncsdk.engine.sinks import PartFile
from asyncsdk.transport.threads import Threads

__all__ = ["adopt"]

_READ_BYTES = 1024 * 1024


async def adopt(
    threads: Threads, file: PartFile, received: Received, now: Unfinished, ranges: Mapping[int, tuple[int, int]]
) -> dict[int, int] | None:
    """Let *file* go on with what *received* knows of, if that is of the same object; else remove it.

    Args:
        threads: Where files are read.
        file: Not begun yet.
        received: What is known of a file that was begun before.
        now: What is known of the object now.
        ranges: Start and size of the ranges that are needed, by number.

    Returns:
        Checksums of the ranges that are there, by number: only those whose bytes have the checksum that they had when
        they came. None: there is nothing to go on with.
    """
    known = received.unfinished
    if known is None:
        return None
    if not known.is_like(now) or not await threads.run(file.adopt, known.temporary, now.size_bytes):
        await threads.run(_remove, known.temporary)
        received.end()
        return None
    found = {}
    for number, (start, size_bytes) in ranges.items():
        if received.ranges.get(number, (-1, 0))[0] != size_bytes:
            continue
        checksum = await threads.run(_checksum_in, file, start, size_bytes)
        if checksum == received.ranges[number][1]:
            found[number] = checksum
    return found


def _checksum_in(file: PartFile, start: int, size_bytes: int) -> int:
    """Return the crc32c of a stretch of *file*. Blocking."""
    checksum = Crc32c()
    while checksum.size_bytes < size_bytes:
        data = file.read_at(min(_READ_BYTES, size_bytes - checksum.size_bytes), start + checksum.size_bytes)
        if not data:
            break  # shorter than it was: another checksum
        checksum.update(data)
    return checksum.value


def _remove(temporary: str) -> None:
    """Remove what an earlier process left of another version. Blocking."""
    with contextlib.suppress(OSError, ValueError):  # it may stay: nothing here needs its place
        os.unlink(temporary)  # noqa: PTH108
