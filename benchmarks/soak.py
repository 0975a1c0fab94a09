"""The soak: ``python -m benchmarks.soak [--minutes 30] [--seed 1]``, or ``make soak ARGS="--minutes 30"``.

A client works against ``asyncsdk serve`` in a process of its own, through the fault server as a proxy in a third
process, which by chance refuses, resets, stalls, truncates, loses replies and flips bits. Round by round: a folder of
small, middle and multipart files, streams and a checkpoint go up at once; the same again sends nothing; a few change
and go up anew; everything comes back, large objects in ranges, while predictions go up, and is compared digest by
digest; every item is there once; then the round is deleted. Every fourth round works on a dataset that stays, and
replaces what is in it.

What fails with a typed error is done again, as its user would, and counted. After every round, when nothing is under
way, it is noted what client and server hold; ``--record FILE`` also notes it every two seconds in between.

Exit status 1 when an object is lost, wrong or there twice, when something cannot be done though it is done again, or
when memory, descriptors, tasks or threads grow (`benchmarks.growth`). At least nine rounds are made, whatever the time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from asyncsdk import AsyncClient, AsyncSDKError
from asyncsdk.engine import RetryPolicy, TransferConfig
from asyncsdk.transport.base import Timeouts
from benchmarks.growth import LEAST_POINTS, Holding, growths, holding, settle
from benchmarks.servers import ServedPlatform, ServerFailed
from benchmarks.soak_round import Round, Tally

__all__ = ["Soaked", "faults", "main", "soak"]

_ROOT = Path(__file__).resolve().parents[1]
_RECORD_SECONDS = 2.0
_STAYS_EVERY = 4
"""Rounds between two that work on the dataset that stays."""

_ARENAS = "MALLOC_ARENA_MAX"
"""Of the C library (glibc): one heap for all threads. With one for each, the fragments that every new thread leaves in
its own look like a leak: +4.2 MiB in three minutes (one run) in place of +1.2 and +1.1, and 19 MiB more in all."""

_CONFIG = TransferConfig(
    concurrency_max=32,  # the proxy is Python and holds bodies whole
    timeouts=Timeouts(idle=2.0, reply=15.0),
    retry=RetryPolicy(max_attempts=8, wait_initial_seconds=0.02, wait_max_seconds=1.0),
)


def faults(share: float, seed: int) -> dict[str, Any]:
    """Return the script of the fault server: about *share* of all requests go wrong, by chance.

    Bits flip, and ends are cut off in good order, only in objects: nothing sums the JSON of messages.
    """
    objects = {"path": "/objects/*"}
    common: list[dict[str, Any]] = [
        {"fault": "Refuse", "status": 503},
        {"fault": "Refuse", "status": 503, "retry_after": 1},
        {"fault": "Refuse", "status": 429, "retry_after": 0},
        {"fault": "Lost"},
        {"fault": "Lost", "how": "close"},
        {"fault": "Reset", "after": -2, "direction": "up"},
        {"fault": "Reset", "after": -2},
        {"fault": "Truncate", "after": -2, "method": "GET"},
        {"fault": "Truncate", "after": -2, "declared": True, "direction": "up", "method": "PUT", **objects},
        {"fault": "Flip", "direction": "up", "method": "PUT", **objects},
        {"fault": "Flip", "direction": "down", "method": "GET", **objects},
    ]
    # They cost seconds each: a tenth as many, or a soak does little but wait.
    slow: list[dict[str, Any]] = [
        {"fault": "Stall", "after": 10, "seconds": 3},
        {"fault": "Stall", "after": 10, "direction": "up", "seconds": 3},
        {"fault": "SlowFirstByte", "seconds": 2},
    ]
    each = share / (len(common) + len(slow) / 10)
    rules = [{**rule, "probability": each} for rule in common] + [{**rule, "probability": each / 10} for rule in slow]
    return {"seed": seed, "rules": rules, "connections": [{"fault": "refuse", "probability": share / 4}]}


class _Proxy:
    """The fault server in front of *upstream*, in a process of its own; ``met`` is known when it has ended."""

    def __init__(self, folder: Path, upstream: str, script: dict[str, Any]) -> None:
        self._log = folder / "proxy.log"
        file = folder / "faults.json"
        file.write_text(json.dumps(script))
        self._command = [sys.executable, "-m", "tests.support.faults", "--script", str(file), "--upstream", upstream]
        self.url = ""
        self.met: Counter[str] = Counter()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Start it, and end it.

        Raises:
            ServerFailed: It did not start, or something broke in it.
        """
        with (
            self._log.open("w") as log,
            subprocess.Popen(
                self._command, cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True
            ) as process,
        ):
            assert process.stdout is not None
            try:
                self.url = process.stdout.readline().strip()
                if not self.url:
                    raise ServerFailed(f"the proxy did not start: {self._log.read_text()[-2000:]}")
                yield
                process.terminate()
                said = process.stdout.read()
                if process.wait() != 0:
                    raise ServerFailed(f"the proxy broke: {self._log.read_text()[-2000:]}")
                self.met.update(json.loads(said)["met"])
            finally:
                process.kill()


@dataclass
class Soaked:
    """What a soak amounted to.

    Attributes:
        tally: What was moved, what was done again, what is wrong.
        met: How often each fault was met.
        points: What was held after each round.
        peak_rss_mib: Highest resident memory of the client that was seen, every two seconds.
        seconds: How long it took.
    """

    tally: Tally = field(default_factory=Tally)
    met: Counter[str] = field(default_factory=Counter)
    points: list[Holding] = field(default_factory=list)
    peak_rss_mib: float = 0.0
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether everything is right and nothing grows."""
        return not self.tally.problems and not any(growth.grows for growth in growths(self.points))

    def lines(self) -> list[str]:
        """Return what is printed at the end."""
        tally = self.tally
        moved = f"{tally.objects} objects and {tally.size_bytes / 1e9:.2f} GB moved"
        return [
            f"{'':15} {'first':>9} {'last':>9} {'change':>8} {'tolerance':>9} {'highest':>9}",
            *(growth.line() for growth in growths(self.points)),
            f"highest resident memory of the client in between: {self.peak_rss_mib:.1f} MiB",
            f"faults met: {self.met.total()}: "
            + ", ".join(f"{count} {name}" for name, count in sorted(self.met.items())),
            f"failed with a typed error and done again: {tally.repeated.total()}",
            *(
                f"  {count} {code}, such as {tally.examples.get(code)}"
                for code, count in sorted(tally.repeated.items())
            ),
            *(f"PROBLEM: {problem}" for problem in tally.problems[:20]),
            f"{len(self.points)} rounds in {self.seconds:.0f} s: {moved}, {tally.compared} digests compared",
            f"{len(tally.problems)} problems: {'ok' if self.ok else 'FAILED'}",
        ]


async def soak(
    folder: Path, platform: ServedPlatform, url: str, *, seconds: float, seed: int, scale: float, record: IO[str] | None
) -> Soaked:
    """Work for *seconds* through the proxy at *url*, nine rounds at least.

    Args:
        scale: 1.0: some 340 objects of 90 MB in a round.
        record: Where a JSON line goes every two seconds; None: nowhere.
    """
    soaked = Soaked()
    chance = random.Random(seed)
    started = shown = time.monotonic()
    async with AsyncClient(url, token=platform.token, home=folder / "home", config=_CONFIG) as client:
        stays = await soaked.tally.again("create", lambda: client.datasets.create("stays", exist_ok=True))
        recorder = asyncio.create_task(_record(soaked, platform.pid, started, record))
        try:
            while (left := started + seconds - time.monotonic()) > 0 or len(soaked.points) < LEAST_POINTS:
                number = len(soaked.points)
                one = Round(client, soaked.tally, folder, number, chance, scale)
                try:
                    await one.run(stays if number % _STAYS_EVERY == _STAYS_EVERY - 1 else None)
                except* AsyncSDKError as errors:  # doing it again did not help, or was no use
                    soaked.tally.problems += [f"round {number}: {error!r}" for error in _single(errors)]
                if recorder.done():
                    recorder.result()
                await settle()
                soaked.points.append(holding(platform.pid))
                if time.monotonic() - shown >= seconds / 20 or number == 0 or left <= 0:
                    shown = time.monotonic()
                    print(_row(number, shown - started, soaked), flush=True)
        finally:
            recorder.cancel()
            await asyncio.gather(recorder, return_exceptions=True)
        await soaked.tally.again("delete", stays.delete)
    soaked.seconds = time.monotonic() - started
    return soaked


def _single(errors: BaseException) -> Iterator[BaseException]:
    if isinstance(errors, BaseExceptionGroup):
        for error in errors.exceptions:
            yield from _single(error)
    else:
        yield errors


def _row(number: int, seconds: float, soaked: Soaked) -> str:
    at, tally = soaked.points[-1], soaked.tally
    return (
        f"round {number + 1:4}  {seconds:6.0f} s  {tally.objects:8} objects  {tally.size_bytes / 1e6:8.0f} MB  "
        f"client {at.rss_mib:6.1f} MiB {at.blocks:4.0f}k blocks {at.files:3} files {at.sockets:3} sockets "
        f"{at.tasks:3} tasks {at.threads:3} threads  "
        f"server {at.server_rss_mib:6.1f} MiB {at.server_files:3} files  {len(tally.problems)} problems"
    )


async def _record(soaked: Soaked, pid: int, started: float, record: IO[str] | None) -> None:
    while True:
        now = holding(pid)
        soaked.peak_rss_mib = max(soaked.peak_rss_mib, now.rss_mib)
        if record is not None:
            line = {"seconds": round(time.monotonic() - started, 1), "rounds": len(soaked.points), **now.to_json()}
            record.write(json.dumps(line) + "\n")
            record.flush()
        await asyncio.sleep(_RECORD_SECONDS)


def run(options: argparse.Namespace) -> Soaked:
    """Start server and proxy, soak, end them."""
    with (
        tempfile.TemporaryDirectory(prefix="asyncsdk-soak-", dir=options.parent) as name,
        ServedPlatform(Path(name)) as platform,
    ):
        proxy = _Proxy(Path(name), platform.url, faults(options.faults, options.seed))
        record = None if options.record is None else options.record.open("w")
        try:
            with proxy.running():
                soaked = asyncio.run(
                    soak(
                        Path(name),
                        platform,
                        proxy.url,
                        seconds=options.minutes * 60,
                        seed=options.seed,
                        scale=options.scale,
                        record=record,
                    )
                )
        finally:
            if record is not None:
                record.close()
    soaked.met = proxy.met
    return soaked


def main() -> int:
    """Soak and print; 1 when something is wrong or grows."""
    parser = argparse.ArgumentParser(
        prog="make soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="how long; 30")
    parser.add_argument("--seed", type=int, default=1, help="of chance; 1")
    parser.add_argument("--scale", type=float, default=1.0, help="size of a round; 1.0")
    parser.add_argument("--faults", type=float, default=0.03, help="share of requests that go wrong; 0.03")
    parser.add_argument("--record", type=Path, metavar="FILE", help="JSON lines of what is held, every two seconds")
    parser.add_argument("--parent", type=Path, help="folder for what is made meanwhile; that of temporary files")
    options = parser.parse_args()
    if _ARENAS not in os.environ:
        # The allocator reads it when a process starts.
        command = [sys.executable, "-m", "benchmarks.soak", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, _ARENAS: "1"})
    ends: list[int] = []

    def end(number: int, frame: object) -> None:
        # The servers are processes of their own: they are ended as when Ctrl-C is pressed.
        ends.append(number)
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, end)
    print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores, seed {options.seed}", flush=True)
    try:
        soaked = run(options)
    except KeyboardInterrupt:
        return 128 + (ends[0] if ends else signal.SIGINT)
    except (ServerFailed, AsyncSDKError) as error:
        print(f"soak: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print("\n".join(soaked.lines()))
    return 0 if soaked.ok else 1


if __name__ == "__main__":
    sys.exit(main())
