"""Adaptive concurrency against fixed numbers, on a shaped link: does it find what a person would have found by trying?

``python -m benchmarks.adaptive --round-trip-ms 20 --megabytes 20`` uploads objects of 20 KiB to nginx, then downloads
objects in ranges of 8 MiB, each for some seconds with every fixed number and with ``auto``, ramp-up included, and
prints what moved per second and the share of the best fixed number that ``auto`` reached.

With ``--loss 0.01`` the link is one of packets (`benchmarks.packets`: Linux, root): the kernel's TCP meets delay, loss
and a queue. Without, it is a proxy (`benchmarks.shaper`) that only delays.
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
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import anyio

from asyncsdk.engine import Download, Engine, Progress, PutTarget, Transfer, TransferConfig, Upload, UrlOrigin
from asyncsdk.engine.config import Concurrency, KiB, MiB
from benchmarks.nginx import Nginx
from benchmarks.packets import FAR, FarAway, PacketsUnavailable, why_not

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
    """Return bytes per second of *seconds* from the start, those of objects that are under way at the end too."""
    moved, ended = 0, 0.0
    started = monotonic()

    def count(progress: Progress) -> None:
        nonlocal moved, ended
        if monotonic() - started <= seconds:  # what is cancelled afterwards counts for nothing any more
            moved, ended = progress.bytes_done, monotonic()

    config = TransferConfig(concurrency=concurrency, large_objects=8)
    async with Engine(config) as engine:
        started = monotonic()
        with anyio.move_on_after(seconds):
            async with engine.run(WORK[name](url, folder), on_progress=count) as outcomes:
                async for outcome in outcomes:
                    if outcome.error is not None:
                        raise outcome.error
        slots = engine.limits.slots
        at_once = slots.small_limit if "up" in name else slots.part_limit
        return Result(concurrency, moved / (ended - started), at_once)


async def compare(name: str, url: str, folder: Path, options: argparse.Namespace) -> dict[str, object]:
    """Measure every number and ``auto``; print and return what came out."""
    results = [await measure(name, url, folder, number, options.seconds) for number in options.fixed]
    auto = await measure(name, url, folder, "auto", options.auto_seconds)
    best = max(results, key=lambda result: result.per_second)
    shown = ", ".join(f"{result.concurrency}: {result.per_second / 1e6:.2f}" for result in results)
    share = auto.per_second / best.per_second
    link = f"{options.round_trip_ms:g} ms, {options.megabytes:g} MB/s"
    link += "" if options.loss is None else f", {options.loss:.1%} of packets lost"
    ended = f"{auto.per_second / 1e6:.2f} MB/s (ended at {auto.ended_at})"
    print(f"{name}, {link}: fixed {shown} MB/s; auto {ended}, {share:.0%} of the best ({best.concurrency})", flush=True)
    return {"work": name, "share": share, "best": best.concurrency, "ended_at": auto.ended_at}


def run(options: argparse.Namespace) -> list[dict[str, object]]:
    """Compare all kinds of work on one link."""
    if options.loss is not None:
        return _run_on_packets(options)
    with tempfile.TemporaryDirectory() as place, Nginx() as nginx:
        folder = Path(place)
        (nginx.data / "large").write_bytes(os.urandom(LARGE_BYTES))
        command = [sys.executable, "-m", "benchmarks.shaper", f"127.0.0.1:{_port(nginx)}"]
        command += ["--round-trip-ms", str(options.round_trip_ms), "--megabytes", str(options.megabytes)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as shaper:
            assert shaper.stdout is not None
            assert shaper.stdin is not None
            try:
                url = f"http://127.0.0.1:{int(shaper.stdout.readline())}"
                return [asyncio.run(compare(name, url, folder, options)) for name in options.work]
            finally:
                shaper.stdin.close()


def _run_on_packets(options: argparse.Namespace) -> list[dict[str, object]]:
    far = FarAway(
        round_trip_seconds=options.round_trip_ms / 1000,
        loss=options.loss,
        bytes_per_second=options.megabytes * 1e6,
        seed=options.seed,
        congestion=options.congestion,
    )
    os.environ["no_proxy"] = FAR
    with ExitStack() as stack:
        stack.enter_context(far)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        nginx = stack.enter_context(Nginx(address="0.0.0.0"))  # of a namespace with no other network
        (nginx.data / "large").write_bytes(os.urandom(LARGE_BYTES))
        url = f"http://{FAR}:{_port(nginx)}"
        results = [asyncio.run(compare(name, url, folder, options)) for name in options.work]
    print(f"packets: {json.dumps(far.counts)}")
    return results


def _port(nginx: Nginx) -> int:
    return int(nginx.url.rpartition(":")[2])


def main() -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(description="Adaptive against fixed concurrency on a shaped link.")
    parser.add_argument("--round-trip-ms", type=float, default=20.0)
    parser.add_argument("--megabytes", type=float, default=20.0, help="megabytes per second in each direction")
    parser.add_argument("--fixed", type=int, nargs="*", default=FIXED, help="numbers that auto is held against")
    parser.add_argument("--loss", type=float, help="share of packets lost in each direction; takes Linux and root")
    parser.add_argument("--congestion", default="reno", help="of TCP on that link; reno")
    parser.add_argument("--seed", type=int, default=1, help="of lost packets")
    parser.add_argument(
        "--seconds",
        type=float,
        default=4.0,
        help="for each fixed number; with loss as long as for auto, TCP is fast until its first one",
    )
    parser.add_argument("--auto-seconds", type=float, default=15.0, help="for auto, which has to find out first")
    parser.add_argument("--work", nargs="*", choices=sorted(WORK), default=sorted(WORK))
    parser.add_argument("--json", action="store_true", help="print the shares as JSON at the end")
    options = parser.parse_args()
    if options.loss is not None and (reason := why_not()):
        print(f"adaptive: skipped, {reason}")
        return
    try:
        results = run(options)
    except PacketsUnavailable as error:
        print(f"adaptive: skipped, {error}")
        return
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
