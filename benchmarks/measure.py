"""What a piece of work costs: wall time, CPU of this process and of the server, peak memory.

Run as a program it does one workload in a process of its own and prints one JSON object::

    python -m benchmarks.measure WORKLOAD --server nginx --url URL --server-pid PID --source FOLDER ...
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from benchmarks.workloads import WORKLOADS, Place

__all__ = ["Figures", "Meter"]


@dataclass(slots=True)
class Figures:
    """What one run cost.

    Attributes:
        workload: Its name.
        server: What it ran against.
        objects: Files that arrived, every one verified afterwards.
        size_bytes: Their bytes.
        wall_seconds: From the first request to the last outcome.
        client_cpu_seconds: User and system time of this process.
        server_cpu_seconds: The same of the server with its workers.
        rss_start_bytes: Resident memory just before.
        rss_peak_bytes: Highest resident memory during it.
    """

    workload: str = ""
    server: str = ""
    objects: int = 0
    size_bytes: int = 0
    wall_seconds: float = 0.0
    client_cpu_seconds: float = 0.0
    server_cpu_seconds: float = 0.0
    rss_start_bytes: int = 0
    rss_peak_bytes: int = 0


class Meter:
    """Measures what happens inside ``with``.

    Args:
        server_pid: Process whose CPU is counted too, with its children.
    """

    def __init__(self, server_pid: int) -> None:
        self._server = psutil.Process(server_pid)
        self._wall = self._cpu = self._server_cpu = 0.0
        self.figures = Figures()

    def __enter__(self) -> Self:
        self.figures.rss_start_bytes = psutil.Process().memory_info().rss
        # Linux then counts the peak from here on.
        Path("/proc/self/clear_refs").write_text("5")
        self._server_cpu, self._cpu, self._wall = self._server_seconds(), _own_seconds(), time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.figures.wall_seconds = time.perf_counter() - self._wall
        self.figures.client_cpu_seconds = _own_seconds() - self._cpu
        self.figures.server_cpu_seconds = self._server_seconds() - self._server_cpu
        self.figures.rss_peak_bytes = _peak_bytes()

    def _server_seconds(self) -> float:
        total = 0.0
        for process in (self._server, *self._server.children(recursive=True)):
            times = process.cpu_times()
            total += times.user + times.system
        return total


def _own_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _peak_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this kernel does not tell the peak of resident memory")


def main() -> int:
    """Do one workload and print its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("workload", choices=sorted(WORKLOADS))
    parser.add_argument("--server", choices=("nginx", "platform"), required=True)
    parser.add_argument("--url", required=True)
    parser.add_argument("--server-pid", type=int, required=True)
    parser.add_argument("--source", type=Path, required=True, help="folder with the files of this workload")
    parser.add_argument("--destination", type=Path, required=True, help="folder that downloads go to")
    parser.add_argument("--stored", type=Path, required=True, help="folder that nginx serves")
    parser.add_argument("--concurrency", type=int)
    options = parser.parse_args()
    place = Place(
        server=options.server,
        url=options.url,
        token=os.environ.get("ASYNCSDK_TOKEN", ""),  # on a command line everybody could read it
        source=options.source,
        destination=options.destination,
        stored=options.stored,
        concurrency=options.concurrency,
    )
    meter = Meter(options.server_pid)
    figures = meter.figures
    figures.workload, figures.server = options.workload, options.server
    figures.objects, figures.size_bytes = asyncio.run(WORKLOADS[options.workload](place, meter))
    print(json.dumps(asdict(figures)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
