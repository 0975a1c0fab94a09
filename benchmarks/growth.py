"""Whether a process grows: what it holds at quiescent points, and a rule that is not fooled by a single one of them.

The first quarter of the points is warm-up: pools fill, caches take their size. Of the rest, the median of the last
third is held against the median of the first third. What is above the tolerance of its measure grows.

Before a point is taken, `settle` has the C library give back what is free. Else resident memory goes up and down
by tens of MiB with the buffers of the last minutes, and a leak of ten would not be seen.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import statistics
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import psutil

__all__ = ["LEAST_POINTS", "TOLERANCES", "Growth", "Holding", "growths", "holding", "settle"]

LEAST_POINTS = 9
"""Fewer are no ground to judge on."""

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Holding:
    """What client and server hold at one moment.

    Attributes:
        rss_mib: Resident memory of the client, in MiB: of this process, with whoever measures.
        blocks: What Python itself has allocated in it, in thousands of blocks: blind to buffers, and exact.
        files: Its open descriptors that are no sockets.
        sockets: Its sockets.
        tasks: Its asyncio tasks that are not done.
        threads: Its threads.
        server_rss_mib: Resident memory of the server and its children, in MiB.
        server_files: Their open descriptors, sockets included.
    """

    rss_mib: float
    blocks: float
    files: int
    sockets: int
    tasks: int
    threads: int
    server_rss_mib: float
    server_files: int

    def to_json(self) -> dict[str, float]:
        """Return the fields as a dict."""
        return asdict(self)


TOLERANCES: dict[str, float] = {
    "rss_mib": 8.0,  # with one heap for all threads (`soak`); a leak of 1 KiB per object is more after 8,000 objects
    "blocks": 10.0,  # records of what was met and learned, each with an upper end; a leak per object is more at once
    "files": 2.0,
    "sockets": 16.0,  # connections kept for a while: as many as the last work had use for
    "tasks": 1.0,
    "threads": 6.0,  # of the pool: idle ones end by themselves after some seconds
    "server_rss_mib": 48.0,  # the cache of its database fills for as long as there is something new
    "server_files": 20.0,
}
"""How much more the last third may hold than the first, by measure."""


async def settle() -> None:
    """Collect garbage, let closed connections go, and give free memory back to the system (with glibc)."""
    gc.collect()
    await asyncio.sleep(0.1)  # connections that were closed are gone a turn of the loop later
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def holding(server_pid: int) -> Holding:
    """Return what this process and the server hold now; called in the event loop of the client."""
    files = sockets = 0
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that reads this folder is gone by now
            if str(entry.readlink()).startswith("socket:"):
                sockets += 1
            else:
                files += 1
    parent = psutil.Process(server_pid)
    servers = [parent, *parent.children(recursive=True)]
    return Holding(
        rss_mib=psutil.Process().memory_info().rss / _MIB,
        blocks=sys.getallocatedblocks() / 1000,
        files=files,
        sockets=sockets,
        tasks=len(asyncio.all_tasks()),
        threads=threading.active_count(),
        server_rss_mib=sum(server.memory_info().rss for server in servers) / _MIB,
        server_files=sum(server.num_fds() for server in servers),
    )


@dataclass(frozen=True, slots=True)
class Growth:
    """What became of one measure.

    Attributes:
        measure: Field of `Holding`.
        first: Median of the first third after the warm-up.
        last: Median of the last third.
        highest: Of all points after the warm-up.
        tolerance: How much more *last* may be than *first*.
    """

    measure: str
    first: float
    last: float
    highest: float
    tolerance: float

    @property
    def grows(self) -> bool:
        """Whether it is more than it may be."""
        return self.last - self.first > self.tolerance

    def line(self) -> str:
        """Return its row of the table that is printed."""
        word = "GROWS" if self.grows else "flat"
        return (
            f"{self.measure:15} {self.first:9.1f} {self.last:9.1f} {self.last - self.first:+8.1f} "
            f"{self.tolerance:9.1f} {self.highest:9.1f}  {word}"
        )


def growths(points: Sequence[Holding]) -> list[Growth]:
    """Judge every measure by what was held at quiescent *points*, in order.

    Raises:
        ValueError: There are fewer than `LEAST_POINTS`.
    """
    if len(points) < LEAST_POINTS:
        raise ValueError(f"{len(points)} points are too few to judge by; it takes {LEAST_POINTS}")
    warm = points[-(-len(points) // 4) :]
    third = len(warm) // 3
    found = []
    for field in fields(Holding):
        values = [float(getattr(point, field.name)) for point in warm]
        first, last = statistics.median(values[:third]), statistics.median(values[-third:])
        found.append(Growth(field.name, first, last, max(values), TOLERANCES[field.name]))
    return found
