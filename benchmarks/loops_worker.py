"""One of the processes that `benchmarks.loops` measures: some event loops, each in a thread, that share transfers.

It connects and warms up, says ``ready``, waits for a line, moves its share, and prints what that cost as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import resource
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from asyncsdk.engine import Download, Engine, Outcome, TransferConfig, Upload
from asyncsdk.engine.transfers import Transfer
from asyncsdk.loops import new_event_loop
from asyncsdk.targets import Origin, PutTarget, Target, UrlOrigin
from asyncsdk.transport.tls import TlsConfig
from benchmarks.measure import server_seconds

__all__ = ["WARM", "Share", "main"]

MIB = 1024 * 1024
TAKE = 64
"""Transfers that a loop takes from the list at once, at most: what is left over at the end is little."""

WARM = 900_000
"""Number of the first object that is moved before the clock starts; each loop has a hundred."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one process of a variant does."""

    direction: str
    count: int
    size_bytes: int
    url: str
    ca_file: str
    source: str
    destination: str
    start: int
    step: int
    loops: int
    concurrency: int
    processes: int = 1


class _SharedFeed:
    """Gives the same transfers to the engines of several threads, each to one."""

    def __init__(self, transfers: Iterator[Transfer]) -> None:
        self._transfers = transfers
        self._lock = threading.Lock()

    async def take(self, want: int) -> Sequence[Transfer]:
        with self._lock:
            return [transfer for _, transfer in zip(range(min(want, TAKE)), self._transfers, strict=False)]

    async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> Target | Origin | None:
        return None

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        return outcomes


def _transfers(share: Share, place: str, numbers: range) -> Iterator[Transfer]:
    size = share.size_bytes
    made: list[Transfer] = []
    for number in numbers:
        name = f"{place}{number:06d}"
        if share.direction == "up":
            made.append(Upload(Path(share.source), PutTarget(f"{share.url}/{name}")))
        else:
            # Parts share few names: fresh memory would be what is measured.
            path = Path(share.destination, str(number // 1000), f"{place}{number if size < MIB else number % 32:06d}")
            path.parent.mkdir(exist_ok=True)
            made.append(Download(UrlOrigin(f"{share.url}/{size}/{name}", size_bytes=size), path))
    return iter(made)


async def _loop(share: Share, number: int, feed: _SharedFeed, start: threading.Barrier, pids: list[int]) -> int:
    each, rest = divmod(share.concurrency, share.loops)
    concurrency = each + (number < rest)
    config = TransferConfig(
        concurrency=concurrency,
        large_objects=max(1, 4 // share.loops),
        tls=TlsConfig(ca_file=share.ca_file or None),
        processes=share.processes,
    )
    first = WARM + 100 * (share.start + number)
    warm = 4 * concurrency if share.size_bytes <= config.multipart_threshold else 1
    async with Engine(config) as engine:
        pids += await _workers(engine, share.processes)
        await _move(engine, _SharedFeed(_transfers(share, "w", range(first, first + warm))))
        start.wait()
        start.wait()
        count = await _move(engine, feed)
        start.wait()
        start.wait()  # until the worker processes have been looked at
        return count


async def _workers(engine: Engine, count: int) -> list[int]:
    """Start the worker processes of *engine* before it would start them itself, and return their numbers."""
    if count == 1:
        return []
    crew = engine._open().crew
    assert crew is not None
    crew.start()
    while len(crew.pids) < count:  # noqa: ASYNC110  # nothing says when, and nobody but this needs to know
        await asyncio.sleep(0.01)
    return crew.pids


async def _move(engine: Engine, feed: _SharedFeed) -> int:
    count = 0
    async with engine.run(feed) as outcomes:
        async for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
            count += 1
    return count


def main(argument: str) -> int:
    """Do the share that *argument* is, as JSON, between the lines ``ready`` and ``go``, and print what it cost."""
    share = Share(**json.loads(argument))
    feed = _SharedFeed(_transfers(share, "m", range(share.start, share.count, share.step)))
    barrier = threading.Barrier(share.loops + 1, timeout=120)
    moved: list[int] = []
    pids: list[int] = []
    failures: list[BaseException] = []

    def thread(number: int) -> None:
        loop = new_event_loop()
        try:
            moved.append(loop.run_until_complete(_loop(share, number, feed, barrier, pids)))
        except BaseException as error:  # noqa: BLE001  # raised again by the main thread, whatever it is
            failures.append(error)
            barrier.abort()
        finally:
            loop.close()

    threads = [threading.Thread(target=thread, args=(number,)) for number in range(share.loops)]
    for one in threads:
        one.start()
    with contextlib.suppress(threading.BrokenBarrierError):
        barrier.wait()
        gc.collect()
        gc.freeze()
        print("ready", flush=True)
        sys.stdin.readline()
        workers_before = server_seconds(pids)
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        barrier.wait()
        barrier.wait()
        ended, after = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        workers = server_seconds(pids) - workers_before
        barrier.wait()
    for one in threads:
        one.join()
    if failures:
        raise failures[0]
    user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
    said = {"count": sum(moved), "started": started, "ended": ended, "user": user, "system": system, "workers": workers}
    print(json.dumps(said))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
