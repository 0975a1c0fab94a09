"""What gets through to a server that refuses at random: ``python -m benchmarks.goodput``.

Small objects go up to the fault server, in a process of its own, which answers a share of all requests with 503. Every
object must get there: what is printed is how many did, how fast, by how many requests, and how many did not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asyncsdk.engine import Engine, PutTarget, Upload

__all__ = ["Goodput", "main", "measure"]

_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Goodput:
    """What came out for one share of refusals.

    Attributes:
        share: Of requests that were refused.
        done: Objects that got there.
        failed: Objects that did not.
        attempts: Requests made.
        seconds: How long it took.
    """

    share: float
    done: int
    failed: int
    attempts: int
    seconds: float

    def line(self) -> str:
        """Return its row of the table that is printed."""
        return (
            f"{self.share:6.0%} {self.done:9,} {self.failed:7,} {self.attempts:9,} "
            f"{self.done / self.seconds:10,.0f} {self.attempts / (self.done + self.failed):8.2f}"
        )


async def measure(url: str, share: float, count: int, size_bytes: int) -> Goodput:
    """Upload *count* objects to the server at *url*, with everything as it is by default."""
    data = os.urandom(size_bytes)

    def uploads() -> Iterator[Upload]:
        for number in range(count):
            yield Upload(data, PutTarget(f"{url}/{number % 100}"))

    done = failed = attempts = 0
    async with Engine() as engine:
        started = time.monotonic()
        async with engine.run(uploads()) as outcomes:
            async for outcome in outcomes:
                done += outcome.ok
                failed += not outcome.ok
                attempts += outcome.attempts
        return Goodput(share, done, failed, attempts, time.monotonic() - started)


def run(share: float, count: int, size_bytes: int) -> Goodput:
    """Start a server that refuses *share* of all requests, and upload to it."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "script.json")
        rules = [{"fault": "Refuse", "status": 503, "probability": share}] if share else []
        script.write_text(json.dumps({"seed": 1, "rules": rules}))
        command = [sys.executable, "-m", "tests.support.faults", "--script", str(script)]
        with subprocess.Popen(
            command, cwd=_ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            try:
                return asyncio.run(measure(process.stdout.readline().strip(), share, count, size_bytes))
            finally:
                process.terminate()
                process.communicate()  # it prints what it met


def main() -> int:
    """Measure each share, and print; 1 when an object did not get there."""
    parser = argparse.ArgumentParser(description="Goodput under random refusals.")
    parser.add_argument("--shares", type=float, nargs="*", default=[0.0, 0.01, 0.05, 0.2])
    parser.add_argument("--objects", type=int, default=10_000, help="of each share; 10,000")
    parser.add_argument("--bytes", type=int, default=2_000, help="of each object; 2,000")
    options = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}, {options.objects:,} objects of {options.bytes:,} B")
    print("  503s      done  failed  requests  objects/s per object")
    results = []
    for share in options.shares:
        results.append(run(share, options.objects, options.bytes))
        print(results[-1].line(), flush=True)
    return 1 if any(result.failed for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
