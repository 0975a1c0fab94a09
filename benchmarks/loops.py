"""Does more than one event loop pay? One loop, loop threads and worker processes on the same work, interleaved.

``python -m benchmarks.loops [--case NAME ...] [--repeat 3]`` prints a table per case: wall time, CPU of client and
server, medians. A run counts only if other programs left it the cores (``--others``, in cores they used meanwhile);
rounds are repeated until each variant has ``--repeat`` such runs, or ``--rounds`` were made. Variants:

- ``1 loop``: one process, one event loop, one engine.
- ``2 threads``, ``3 threads``: one process, that many threads, each with its own event loop, engine and connections;
  transfers come from one list under a lock. No result crosses a thread: a real implementation can only be slower.
- ``2 processes``: two started interpreters, each with half of the list. No result crosses here either.
- ``crew of 2``: what is built: one process whose engine has ``processes=2``. Its own CPU is a column of its own.

All have the same number of connections in all. Servers: nginx with two workers, and `benchmarks.cheap_server`, which
leaves nearly both cores to the client. ``bound`` is the wall time that the CPU of the variant with one loop would take
spread evenly over all cores: no number of loops can be faster on this machine without using less CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.loops_worker import WARM, Share
from benchmarks.measure import pretouch, server_seconds
from benchmarks.nginx import Nginx, make_certificate

__all__ = ["CASES", "Case", "main"]

KIB = 1024
MIB = 1024 * KIB
VARIANTS = {
    "1 loop": (1, 1, 1),
    "2 threads": (1, 2, 1),
    "3 threads": (1, 3, 1),
    "2 processes": (2, 1, 1),
    "crew of 2": (1, 1, 2),
}
"""Processes, loops in each, and worker processes of each engine."""


@dataclass(frozen=True, slots=True)
class Case:
    """One piece of work: *count* objects of *size_bytes* over *concurrency* connections in all."""

    name: str
    server: str
    direction: str
    count: int
    size_bytes: int
    concurrency: int
    is_tls: bool


_SMALL = (20_000, 20 * KIB, 12)
_PARTS = (128, 8 * MIB, 6)
_LARGE = (8, 256 * MIB, 6)
CASES = tuple(
    Case(f"{server}-{name}-{'tls' if is_tls else 'plain'}", server, direction, *size, is_tls)
    for server, name, direction, size in (
        ("nginx", "small-up", "up", _SMALL),
        ("nginx", "small-down", "down", _SMALL),
        ("nginx", "large-up", "up", _LARGE),
        ("nginx", "large-down", "down", _LARGE),
        ("cheap", "small-up", "up", _SMALL),
        ("cheap", "small-down", "down", _SMALL),
        ("cheap", "parts-up", "up", _PARTS),
        ("cheap", "parts-down", "down", _PARTS),
    )
    for is_tls in (False, True)
)
"""``large-down`` goes in ranges of 8 MiB; ``parts`` are objects of 8 MiB, one request each."""


COLUMNS = ("wall", "client", "parent", "server", "others")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run of one variant cost, in seconds; *others*: cores that other programs used meanwhile."""

    wall: float
    user: float
    system: float
    workers: float
    server: float
    others: float

    @property
    def parent(self) -> float:
        """User and system time of the processes that hold the engines."""
        return self.user + self.system

    @property
    def client(self) -> float:
        """The same, with their worker processes."""
        return self.parent + self.workers


@contextlib.contextmanager
def _cheap(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    command = [sys.executable, "-m", "benchmarks.cheap_server", str(folder)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def measure(case: Case, variant: str, folder: Path, nginx: Nginx) -> Cost:
    """Run *case* once."""
    destination = folder / "destination"
    destination.mkdir(exist_ok=True)
    for used in (destination, *nginx.data.glob("[mw]*")):
        shutil.rmtree(used) if used.is_dir() else used.unlink()
    destination.mkdir()
    pretouch(min(case.count * case.size_bytes, 2048 * MIB))
    with contextlib.ExitStack() as stack:
        if case.server == "cheap":
            server, ports = stack.enter_context(_cheap(folder))
            url, pid = f"127.0.0.1:{ports[case.is_tls]}", server.pid
            ca_file = folder / "authority.pem"
        else:
            server, pid = None, nginx.pid
            url = (nginx.tls_url if case.is_tls else nginx.url).partition("//")[2]
            assert nginx.ca_file is not None
            ca_file = nginx.ca_file
        url = f"{'https' if case.is_tls else 'http'}://{url}"
        processes, loops, workers_each = VARIANTS[variant]
        workers = [
            stack.enter_context(
                _worker(
                    Share(
                        case.direction, case.count, case.size_bytes, url, str(ca_file) if case.is_tls else "",
                        str(folder / str(case.size_bytes)), str(destination), number, processes, loops,
                        case.concurrency // processes, workers_each,
                    )
                )
            )
            for number in range(processes)
        ]  # fmt: skip
        for worker in workers:
            if _said(worker) != "ready":
                raise RuntimeError(f"{case.name}, {variant}: a worker failed before its start")
        if server is not None:
            _tell(server, f"prepare {case.count // case.concurrency * 3 // 2}")
            assert _said(server) == "ready"
        before, busy_before = server_seconds([pid]), _busy_seconds()
        for worker in workers:
            _tell(worker, "go")
        said = [json.loads(_said(worker)) for worker in workers]
        spent, busy = server_seconds([pid]) - before, _busy_seconds() - busy_before
    if sum(one["count"] for one in said) != case.count:
        raise RuntimeError(f"{case.name}, {variant}: transfers are missing")
    wall = max(one["ended"] for one in said) - min(one["started"] for one in said)
    user, system = sum(one["user"] for one in said), sum(one["system"] for one in said)
    theirs = sum(one["workers"] for one in said)
    return Cost(wall, user, system, theirs, spent, max(0.0, busy - user - system - theirs - spent) / wall)


def _busy_seconds() -> float:
    """Return what all cores have worked since the machine started, with what its host kept from them."""
    user, nice, system, _, _, irq, softirq, steal, *_ = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(map(int, (user, nice, system, irq, softirq, steal))) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _worker(share: Share) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "benchmarks.loops_worker", json.dumps(asdict(share))]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process
        process.wait(30)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def _said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()


def _prepare(folder: Path, nginx: Nginx) -> None:
    """Write the files that are sent, and link them into nginx under every name."""
    make_certificate(folder)
    for size in {case.size_bytes for case in CASES}:
        path = folder / str(size)
        with path.open("wb", buffering=0) as file:
            block = os.urandom(min(size, MIB))
            for _ in range(size // len(block)):
                file.write(block)
        served = nginx.data / str(size)
        served.mkdir()
        count = max(case.count for case in CASES if case.size_bytes == size)
        for name in (*(f"m{number:06d}" for number in range(count)), *(f"w{WARM + n:06d}" for n in range(300))):
            os.link(path, served / name)


def _table(case: Case, costs: dict[str, list[Cost]]) -> str:
    cores = os.cpu_count() or 1
    middle = {
        variant: {name: statistics.median(getattr(run, name) for run in runs) for name in COLUMNS}
        for variant, runs in costs.items()
    }
    one = middle[next(iter(middle))]
    size = f"{case.size_bytes // KIB:,} KiB" if case.size_bytes < MIB else f"{case.size_bytes // MIB:,} MiB"
    bound = (one["client"] + one["server"]) / cores
    lines = [
        f"\n{case.name}: {case.count:,} x {size}, {case.concurrency} connections; bound {bound:.2f} s",
        "",
        "| variant | wall s (range) | wall, of 1 loop | client CPU s | of it parent | server CPU s | runs; others |",
        "|---|---|---|---|---|---|---|",
    ]
    for variant, found in middle.items():
        walls = [run.wall for run in costs[variant]]
        lines.append(
            f"| {variant} | {found['wall']:.2f} ({min(walls):.2f}-{max(walls):.2f}) | {found['wall'] / one['wall']:.2f}"
            f" | {found['client']:.2f} | {found['parent']:.2f} | {found['server']:.2f}"
            f" | {len(walls)}; {found['others']:.2f} |"
        )
    return "\n".join(lines)


def _quiet(runs: list[Cost], others: float) -> list[Cost]:
    """Return the runs in which other programs used at most so many cores; if there is none, the one disturbed least."""
    return [run for run in runs if run.others <= others] or [min(runs, key=lambda run: run.others)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the cases asked for and print a table for each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loops", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--case", action="append", metavar="NAME", help="the beginning of a name; default: all")
    parser.add_argument("--variant", action="append", choices=VARIANTS, help="default: all")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="undisturbed runs of each variant (3)")
    parser.add_argument("--others", type=float, default=0.15, metavar="CORES", help="most that others may use (0.15)")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="rounds to be made at most (9)")
    asked = parser.parse_args(arguments)
    chosen = [case for case in CASES if not asked.case or case.name.startswith(tuple(asked.case))]
    memory = Path("/dev/shm")
    parent = memory if memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="asyncsdk-loops-", dir=parent) as name, Nginx(tls=True, workers=2) as nginx:
        folder = Path(name)
        _prepare(folder, nginx)
        for case in chosen:
            costs: dict[str, list[Cost]] = {variant: [] for variant in asked.variant or VARIANTS}
            for _ in range(asked.rounds):
                for variant, runs in costs.items():
                    runs.append(measure(case, variant, folder, nginx))
                    print(case.name, variant, runs[-1], file=sys.stderr, flush=True)
                if all(sum(run.others <= asked.others for run in runs) >= asked.repeat for runs in costs.values()):
                    break
            print(_table(case, {variant: _quiet(runs, asked.others) for variant, runs in costs.items()}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
