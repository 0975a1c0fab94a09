"""What a piece of work costs: wall time, CPU of the client and of the server, peak memory.

Memory first: a virtual machine gives pages that nobody uses back to its host, and the first touch of such a page costs
ten times the copy. `pretouch` has them handed out before the clock runs.
"""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import resource
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

__all__ = ["Figures", "Section", "ToolFailed", "ToolUsage", "available_bytes", "pretouch", "run_tool", "server_seconds"]

PAGE = mmap.PAGESIZE
POLL_SECONDS = 0.02
SAID_CHARACTERS = 1000


class ToolFailed(RuntimeError):
    """A program ended with an exit status that is not 0; the message holds what it said last."""


@dataclass(slots=True)
class Figures:
    """What one run cost.

    Attributes:
        objects: Transfers that arrived, verified afterwards.
        size_bytes: Their bytes.
        wall_seconds: From the first request to the last outcome.
        client_user_seconds: User time of the contender.
        client_system_seconds: System time of the contender.
        server_cpu_seconds: User and system time of the server, all its processes.
        rss_start_bytes: Resident memory of the contender, open but before its warm-up; 0 for a program that starts with
            its work.
        rss_peak_bytes: Highest resident memory during it.
    """

    objects: int = 0
    size_bytes: int = 0
    wall_seconds: float = 0.0
    client_user_seconds: float = 0.0
    client_system_seconds: float = 0.0
    server_cpu_seconds: float = 0.0
    rss_start_bytes: int = 0
    rss_peak_bytes: int = 0


@dataclass(slots=True)
class ToolUsage:
    """What the programs cost that a contender started.

    Attributes:
        user_seconds: User time, with that of their own children.
        system_seconds: The same for system time.
        peak_bytes: Highest resident memory of any.
    """

    user_seconds: float = 0.0
    system_seconds: float = 0.0
    peak_bytes: int = 0


class Section:
    """Measures what happens inside ``with``; the result is ``figures``.

    Args:
        server_pids: Processes whose CPU is counted too, with their children.
        usage: Where a contender that runs other programs adds up what they cost: that then counts, and not the CPU and
            the memory of this process, which only waits for them. None: this process does the work.
    """

    def __init__(self, server_pids: Sequence[int], usage: ToolUsage | None = None) -> None:
        self._server_pids = server_pids
        self._usage = usage
        self._before = resource.getrusage(resource.RUSAGE_SELF)
        self._server = self._wall = 0.0
        self.figures = Figures()
        if usage is None:
            self.figures.rss_start_bytes = psutil.Process().memory_info().rss

    def __enter__(self) -> Self:
        gc.collect()
        gc.freeze()  # the list of work is the benchmark's; nobody's garbage collection shall walk it
        if self._usage is None:
            # From here on Linux counts the peak anew; where it may not be asked to, the peak includes the warm-up.
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
        self._server = server_seconds(self._server_pids)
        self._before = resource.getrusage(resource.RUSAGE_SELF)
        self._wall = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        figures = self.figures
        figures.wall_seconds = time.perf_counter() - self._wall
        after = resource.getrusage(resource.RUSAGE_SELF)
        figures.server_cpu_seconds = server_seconds(self._server_pids) - self._server
        if self._usage is None:
            figures.client_user_seconds = after.ru_utime - self._before.ru_utime
            figures.client_system_seconds = after.ru_stime - self._before.ru_stime
            figures.rss_peak_bytes = _peak_bytes("self")
        else:
            figures.client_user_seconds = self._usage.user_seconds
            figures.client_system_seconds = self._usage.system_seconds
            figures.rss_peak_bytes = self._usage.peak_bytes


def server_seconds(pids: Sequence[int]) -> float:
    """Return the CPU that processes and all their children have used.

    To the nanosecond where the kernel tells (``schedstat``: the live threads of each), else in steps of 10 ms.
    """
    total = 0.0
    for pid in pids:
        parent = psutil.Process(pid)
        total += sum(_cpu_seconds(process) for process in (parent, *parent.children(recursive=True)))
    return total


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    coarse = times.user + times.system
    try:
        tasks = list(Path(f"/proc/{process.pid}/task").iterdir())
        fine = sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except (OSError, IndexError):
        return coarse
    # Threads that ended are missing from the fine sum; the coarse one has them.
    return fine if abs(fine - coarse) < 0.05 else coarse


def available_bytes() -> int:
    """Return how much memory can be taken without anybody else losing any."""
    return int(psutil.virtual_memory().available)


def pretouch(size_bytes: int) -> None:
    """Have the host hand over *size_bytes* of memory (at most half of what is free), by a process that ends at once."""
    size = min(size_bytes, available_bytes() // 2) // PAGE * PAGE
    if size:
        code = f"import mmap; m = mmap.mmap(-1, {size}); m[::{PAGE}] = bytes({size // PAGE})"
        subprocess.run([sys.executable, "-S", "-c", code], stdin=subprocess.DEVNULL, check=True)


def run_tool(command: Sequence[str], usage: ToolUsage, environment: Mapping[str, str] | None = None) -> None:
    """Run a program to its end and add what it cost to *usage*.

    Raises:
        ToolFailed: Its exit status is not 0.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    )
    assert process.stderr is not None
    said: list[str] = []
    stream = process.stderr
    reader = threading.Thread(target=lambda: said.append(stream.read().decode(errors="replace")))
    reader.start()
    peak = 0
    ended = select.poll()
    descriptor = os.pidfd_open(process.pid)
    try:
        ended.register(descriptor, select.POLLIN)
        while not ended.poll(POLL_SECONDS * 1000):
            # The kernel's own figure for children (ru_maxrss) includes this process as it was before exec.
            with contextlib.suppress(OSError):
                peak = max(peak, _peak_bytes(str(process.pid)))
    finally:
        os.close(descriptor)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    reader.join()
    stream.close()
    usage.user_seconds += used.ru_utime
    usage.system_seconds += used.ru_stime
    usage.peak_bytes = max(usage.peak_bytes, peak)
    if process.returncode:
        raise ToolFailed(f"{Path(command[0]).name} ended with {process.returncode}: {said[0][-SAID_CHARACTERS:]}")


def _peak_bytes(process: str) -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0  # it has ended and waits to be collected
