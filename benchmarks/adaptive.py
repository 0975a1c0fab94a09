"""Adaptive concurrency against fixed numbers, on a shaped link: does it find what a person would have found by trying?

``python -m benchmarks.adaptive --round-trip-ms 20 --megabytes 20`` uploads objects of 20 KiB to nginx, then downloads
objects in ranges of 8 MiB, each for some seconds with every fixed number and with ``auto``, ramp-up included, and
prints what moved per second and the share of the best fixed number that ``auto`` reached.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from asyncsdk.engine import Download, Engine, Progress, PutTarget, Transfer, TransferConfig, Upload, UrlOrigin
from asyncsdk.engine.config import Concurrency, KiB, MiB
from benchmarks.nginx import Nginx

__all__ = ["main"]

FIXED = (1, 4, 16, 64, 256)
SMALL_BYTES = 20 * KiB
LARGE_BYTES = 32 * MiB


@dataclass(frozen=True)
class Result:
    """What one number did."""

    concurrency: Concurrency
    per_second: float
    ended_at: int


def small_uploads(url: str, folder: Path) -> Iterator[Transfer]:
    """Yield uploads of one small file for ever."""
    path = folder / "small"
    path.write_bytes(os.urandom(SMALL_BYTES))
    for number in itertools.count():
        yield Upload(path, PutTarget(f"{url}/put/{number % 500}"))


def large_downloads(url: str, folder: Path) -> Iterator[Transfer]:
    """Yield downloads of one large object for ever."""
    for number in itertools.count():
        yield Download(UrlOrigin(f"{url}/large", size_bytes=LARGE_BYTES), folder / f"large{number % 4}")


WORK = {"20 KiB up": small_uploads, "8 MiB ranges down": large_downloads}


async def measure(name: str, url: str, folder: Path, concurrency: Concurrency, seconds: float) -> Result:
    """Return bytes per second of *seconds* from the start."""
    moved = 0

    def count(progress: Progress) -> None:
        nonlocal moved
        moved = progress.bytes_done

    config = TransferConfig(concurrency=concurrency, large_objects=8)
    async with Engine(config) as engine:
        started = monotonic()
        async with engine.run(WORK[name](url, folder), on_progress=count) as outcomes:
            async for outcome in outcomes:
                if outcome.error is not None:
                    raise outcome.error
                if monotonic() - started >= seconds:
                    break
            per_second = moved / (monotonic() - started)
        slots = engine.limits.slots
        return Result(concurrency, per_second, slots.small_limit if "up" in name else slots.part_limit)


async def compare(name: str, url: str, folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Measure every number and ``auto``; print and return what came out."""
    results = [await measure(name, url, folder, number, options.seconds) for number in FIXED]
    auto = await measure(name, url, folder, "auto", options.auto_seconds)
    best = max(results, key=lambda result: result.per_second)
    shown = ", ".join(f"{result.concurrency}: {result.per_second / 1e6:.2f}" for result in results)
    share = auto.per_second / best.per_second
    link = f"{options.round_trip_ms:g} ms, {options.megabytes:g} MB/s"
    ended = f"{auto.per_second / 1e6:.2f} MB/s (ended at {auto.ended_at})"
    print(f"{name}, {link}: fixed {shown} MB/s; auto {ended}, {share:.0%} of the best ({best.concurrency})", flush=True)
    return {"work": name, "share": share, "best": best.concurrency, "ended_at": auto.ended_at}


def run(options: argparse.Namespace) -> list[dict[str, object]]:
    """Compare all kinds of work on one link."""
    with tempfile.TemporaryDirectory() as place, Nginx() as nginx:
        folder = Path(place)
        (nginx.data / "large").write_bytes(os.urandom(LARGE_BYTES))
        command = [sys.executable, "-m", "benchmarks.shaper", f"127.0.0.1:{nginx.url.rpartition(':')[2]}"]
        command += ["--round-trip-ms", str(options.round_trip_ms), "--megabytes", str(options.megabytes)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shaper:
            assert shaper.stdout is not None
            assert shaper.stdin is not None
            try:
                url = f"http://127.0.0.1:{int(shaper.stdout.readline())}"
                return [asyncio.run(compare(name, url, folder, options)) for name in options.work]
            finally:
                shaper.stdin.close()


def main() -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description="Adaptive against fixed concurrency on a shaped link.")
    parser.add_argument("--round-trip-ms", type=float, default=20.0)
    parser.add_argument("--megabytes", type=float, default=20.0, help="megabytes per second in each direction")
    parser.add_argument("--seconds", type=float, default=4.0, help="for each fixed number")
    parser.add_argument("--auto-seconds", type=float, default=15.0, help="for auto, which has to find out first")
    parser.add_argument("--work", nargs="*", choices=sorted(WORK), default=sorted(WORK))
    parser.add_argument("--json", action="store_true", help="print the shares as JSON at the end")
    options = parser.parse_args()
    results = run(options)
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
