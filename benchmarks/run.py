"""``make bench``: every case against nginx and against a served platform, interleaved, each run in its own process.

The figures and all runs go to ``benchmarks/results/``; ``benchmarks/README.md`` says what the words mean.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.servers import Nginx, NginxUnavailable, ServedPlatform
from benchmarks.summarize import summarize, table
from benchmarks.workloads import make_files

__all__ = ["CASES", "Case"]

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Case:
    """Files of one kind.

    Attributes:
        count: How many files.
        size_bytes: Of each.
        workloads: In this order against the same server.
    """

    count: int
    size_bytes: int
    workloads: tuple[str, ...] = ("upload", "download")

    @property
    def name(self) -> str:
        """What the table calls it."""
        size, unit = float(self.size_bytes), "B"
        for larger in ("KiB", "MiB", "GiB"):
            if size < 1024:
                break
            size, unit = size / 1024, larger
        return f"{self.count:,} x {size:g} {unit}"


CASES = (Case(10_000, 20 * 1024), Case(1, 2 * 1024**3), Case(100_000, 100, ("upload",)))
QUICK_CASES = (Case(1_000, 20 * 1024), Case(1, 128 * 1024**2), Case(5_000, 100, ("upload",)))


def _parent(needed_bytes: int) -> Path:
    """Return where the data of a run fits: memory when there is enough of it, else the folder of temporary files."""
    memory = Path("/dev/shm")
    if memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 * needed_bytes:
        return memory
    return Path(tempfile.gettempdir())


def conditions(parent: Path) -> dict[str, str]:
    """Return what the figures depend on."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": f"{_cpu_model()}, {os.cpu_count()} cores",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 1024**3:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(
            f"{name} {importlib.metadata.version(name)}"
            for name in ("asyncsdk", "httpx", "uvicorn", "sqlalchemy", "google-crc32c")
        ),
        "commit": _said(["git", "describe", "--always", "--dirty"]),
        "nginx": _said(["nginx", "-v"]).removeprefix("nginx version: "),
        "data": f"{_filesystem(parent)}, loopback, client and server on the same machine",
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _filesystem(folder: Path) -> str:
    return _said(["stat", "-f", "-c", "%T", str(folder)])


def _said(command: list[str]) -> str:
    search = os.environ.get("PATH", "") + ":/usr/sbin"
    environment = {**os.environ, "PATH": search}
    try:
        reply = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        return "unknown"
    return (reply.stdout or reply.stderr).strip() or "unknown"


def run_case(case: Case, server_name: str, folder: Path, source: Path, concurrency: int | None) -> list[dict[str, Any]]:
    """Run the workloads of *case* once against a fresh server; returns the figures of each."""
    found = []
    with ExitStack() as stack:
        server: Nginx | ServedPlatform = Nginx(folder) if server_name == "nginx" else ServedPlatform(folder)
        stack.enter_context(server)
        stored = server.data
        token = server.token if isinstance(server, ServedPlatform) else ""
        for workload in case.workloads:
            destination = folder / "destination"
            command = [sys.executable, "-m", "benchmarks.measure", workload, "--server", server_name]
            command += ["--url", server.url, "--server-pid", str(server.pid), "--stored", str(stored)]
            command += ["--source", str(source), "--destination", str(destination)]
            command += [] if concurrency is None else ["--concurrency", str(concurrency)]
            try:
                reply = subprocess.run(
                    command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=_environment(folder, token)
                )
            finally:
                shutil.rmtree(destination, ignore_errors=True)
            if reply.returncode:
                raise SystemExit(f"{case.name}, {workload}, {server_name} failed:\n{reply.stderr.strip()}")
            found.append({"case": case.name, **json.loads(reply.stdout)})
    return found


def _environment(folder: Path, token: str) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ASYNCSDK_")}
    return environment | {"ASYNCSDK_HOME": str(folder / "home"), "ASYNCSDK_TOKEN": token}


def main() -> int:
    """Run the benchmarks, print the table, keep the results."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--repeat", type=int, default=3, help="runs of each case (3)")
    parser.add_argument("--quick", action="store_true", help="small data, once: does it work, not how fast is it")
    parser.add_argument("--case", type=int, action="append", choices=range(1, len(CASES) + 1), help="only this case")
    parser.add_argument("--server", choices=("nginx", "platform"), action="append", help="only against this one")
    parser.add_argument("--concurrency", type=int, help="requests at once (the engine's default)")
    parser.add_argument("--parent", type=Path, help="folder for all data (memory when it fits)")
    parser.add_argument("--output", type=Path, help="file for the results")
    options = parser.parse_args()
    known = QUICK_CASES if options.quick else CASES
    cases = [known[number - 1] for number in options.case or range(1, len(CASES) + 1)]
    servers = options.server or ["nginx", "platform"]
    repeat = 1 if options.quick else options.repeat
    needed = 3 * max(case.count * max(case.size_bytes, 4096) for case in cases)
    parent = options.parent or _parent(needed)
    runs: list[dict[str, Any]] = []
    try:
        with tempfile.TemporaryDirectory(prefix="asyncsdk-bench-", dir=parent) as name:
            folder = Path(name)
            for case in cases:
                source = folder / "source"
                make_files(source, count=case.count, size_bytes=case.size_bytes)
                for number in range(repeat):
                    for server in servers:  # interleaved: what disturbs the machine disturbs both
                        print(f"{case.name}, {server}, run {number + 1} of {repeat}", file=sys.stderr, flush=True)
                        runs += run_case(case, server, folder, source, options.concurrency)
                shutil.rmtree(source)
    except NginxUnavailable as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    results = {
        "conditions": {**conditions(parent), "quick": str(options.quick)},
        "summary": summarize(runs),
        "runs": runs,
    }
    path = options.output or RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.local.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    for key, value in conditions(parent).items():
        print(f"{key}: {value}")
    print(f"\n{table(summarize(runs))}\n\n{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
