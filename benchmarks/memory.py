"""Peak memory of the client at full size: ``python -m benchmarks.memory small`` (1,000,000 files), ``large`` (10 GiB).

Through ``dataset.upload`` and ``dataset.download`` against ``asyncsdk serve`` in a process of its own, with everything
on: journal, budget, checksums, automatic concurrency. The small files are hard links to a few: the client opens, reads
and sums every one of them, and only the disk of whoever runs this is spared. The large ones are sparse.

Resident memory is the kernel's own figure: ``VmRSS`` and ``VmHWM`` of this process, whose peak is reset before the run.
It needs room for what the server stores: about 5 GB for a million files, 20 GiB for large ones (up and down again).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from asyncsdk import AsyncClient
from asyncsdk.engine import MiB, Progress, Report
from benchmarks.servers import ServedPlatform

__all__ = ["large", "main", "small"]

_SMALL_BYTES = 100
_LINKS = 1000
"""Names of one small file, and files in one folder."""

_LARGE_BYTES = 1024 * MiB


def make_small(folder: Path, count: int) -> None:
    """Make *count* names of small files, a thousand in each folder."""
    originals = folder.parent / "originals"
    originals.mkdir()
    for number in range(0, count, _LINKS):
        inside = folder / f"{number // _LINKS:05}"
        inside.mkdir(parents=True)
        original = originals / str(number)
        original.write_bytes(os.urandom(_SMALL_BYTES))
        for name in range(number, min(number + _LINKS, count)):
            (inside / f"{name:07}.bin").hardlink_to(original)


def make_large(folder: Path, count: int) -> None:
    """Make *count* sparse files of 1 GiB, all different."""
    folder.mkdir()
    for number in range(count):
        with (folder / f"{number:02}.bin").open("wb") as file:
            file.write(os.urandom(64))
            file.truncate(_LARGE_BYTES)


def _kibibytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise RuntimeError(f"the kernel tells no {field}")


class _Watched:
    """Prints resident memory while a run lasts and at its end."""

    def __init__(self, what: str, every: int) -> None:
        self._what = what
        self._every = every
        self._next = every
        Path("/proc/self/clear_refs").write_text("5")
        self.start_mib = _kibibytes("VmRSS") / 1024
        self._cpu = time.process_time()

    def on_progress(self, progress: Progress) -> None:
        done = progress.done + progress.skipped
        if done >= self._next:
            self._next = done - done % self._every + self._every
            print(f"  {done:9} objects  {_kibibytes('VmRSS') / 1024:6.1f} MiB", flush=True)

    def ended(self, report: Report) -> float:
        report.raise_for_failures()
        peak = _kibibytes("VmHWM") / 1024
        print(
            f"{self._what}: {report.done} done, {report.skipped} skipped, {report.bytes_done / MiB:.0f} MiB, "
            f"{report.seconds:.1f} s, {time.process_time() - self._cpu:.1f} s of CPU, "
            f"resident {self.start_mib:.1f} MiB at its start, peak {peak:.1f} MiB",
            flush=True,
        )
        return peak


async def small(parent: Path, platform: ServedPlatform, count: int) -> None:
    """Upload *count* tiny files, then the same again, which sends nothing."""
    make_small(parent / "files", count)
    await _up(parent, platform, max(1, count // 10))


async def large(parent: Path, platform: ServedPlatform, count: int) -> None:
    """Upload *count* files of 1 GiB, and download them."""
    make_large(parent / "files", count)
    await _up(parent, platform, max(1, count // 10), downloads=True)


async def _up(parent: Path, platform: ServedPlatform, every: int, *, downloads: bool = False) -> None:
    async with AsyncClient(platform.url, token=platform.token, home=parent / "home") as client:
        await client.whoami()
        dataset = await client.datasets.create("memory")
        calls: list[tuple[str, Callable[[_Watched], Awaitable[Report]]]] = [
            ("up", lambda watched: dataset.upload(parent / "files", on_progress=watched.on_progress))
        ]
        if downloads:
            calls.append(("down", lambda watched: dataset.download(parent / "copy", on_progress=watched.on_progress)))
        else:
            calls.append(("up again", calls[0][1]))
        for name, call in calls:
            print(f"{name}, load {os.getloadavg()[0]:.1f}", flush=True)
            watched = _Watched(name, every)
            watched.ended(await call(watched))


def main() -> int:
    """Make the files, run, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("what", choices=("small", "large"))
    parser.add_argument("--count", type=int, help="small files (1,000,000), or large ones of 1 GiB (10)")
    parser.add_argument("--parent", type=Path, help="folder for what is made meanwhile; that of temporary files")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="asyncsdk-memory-", dir=options.parent) as name,
        ServedPlatform(Path(name)) as platform,
    ):
        if options.what == "small":
            asyncio.run(small(Path(name), platform, options.count or 1_000_000))
        else:
            asyncio.run(large(Path(name), platform, options.count or 10))
    return 0


if __name__ == "__main__":
    sys.exit(main())
