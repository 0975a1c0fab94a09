"""``make bench``: every workload by every contender, in turns, each run in a process of its own.

Runs are interleaved: first everybody once, then everybody again, so that what disturbs the machine disturbs all. What
cannot run here is skipped by name, with the reason. Results are kept after each workload, so that a run that is stopped
has not been in vain. ``benchmarks/README.md`` says what the words mean.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.bar import bar_table
from benchmarks.conditions import conditions
from benchmarks.contenders import NAMES, Entry, contender, entries
from benchmarks.jobs import Job
from benchmarks.measure import available_bytes
from benchmarks.nginx import Nginx, NginxUnavailable
from benchmarks.servers import S3Server, ServedPlatform, ServerFailed
from benchmarks.stage import Stage
from benchmarks.summarize import summarize, tables
from benchmarks.workloads import QUICK_SCALE, WORKLOADS, Workload, chosen

__all__ = ["Outcome", "Skip", "run_job", "skipped"]

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).resolve().parents[1]
DEADLINE_SECONDS = 180.0
SAID_LINES = 6
SPARE_BYTES = 3 * 1024**3
"""What contenders and everybody else on the machine may need beside the data."""


@dataclass(frozen=True, slots=True)
class Skip:
    """What is not measured, and why."""

    case: str
    contender: str
    reason: str


@dataclass(slots=True)
class Outcome:
    """What a run of the benchmarks found.

    Attributes:
        runs: Every run: its case, contender and figures, or the failure.
        skips: What was not measured, and why.
    """

    runs: list[dict[str, Any]] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)


def skipped(entry: Entry, workload: Workload) -> str | None:
    """Return why *entry* does not do *workload* here, None when it does."""
    found = contender(entry.module)
    reason = found.unavailable() or found.cannot(workload)
    if reason is None and workload.server == "s3":
        reason = S3Server.unavailable()
    return reason


def run_job(entry: Entry, job: Job, deadline_seconds: float, home: Path) -> dict[str, Any]:
    """Run one contender; returns its figures, or ``failure`` with what it said last.

    A contender that takes longer than the deadline is ended, with everything it started.
    """
    command = [sys.executable, "-m", f"benchmarks.contenders.{entry.module}"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=_environment(job, home),
        start_new_session=True,
    )
    try:
        said, complaints = process.communicate(job.to_json(), timeout=deadline_seconds)
    except subprocess.TimeoutExpired:
        _end(process)
        return {"failure": f"no result within {deadline_seconds:g} s"}
    except BaseException:
        _end(process)
        raise
    if process.returncode:
        _end(process)  # what it started may still run
        lines = complaints.strip().splitlines()
        return {"failure": "\n".join(lines[-SAID_LINES:]) or f"exit status {process.returncode}"}
    try:
        figures: dict[str, Any] = json.loads(said.strip().splitlines()[-1])
    except (IndexError, ValueError):
        return {"failure": f"printed no figures but {said[-200:]!r}"}
    return figures


def _end(process: subprocess.Popen[str]) -> None:
    """End a contender and what it started: its own process group, which nobody else is in."""
    with contextlib.suppress(ProcessLookupError):  # all have ended by themselves
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):  # it was not told all it was to be told
                pipe.close()


def _environment(job: Job, home: Path) -> dict[str, str]:
    """No proxies, no settings of the user's; the authority of the server's certificate where every library looks."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ASYNCSDK_", "AWS_", "RCLONE_")) and not name.lower().endswith("_proxy")
    }
    environment |= {"ASYNCSDK_HOME": str(home), "NO_PROXY": "*", "PYTHONWARNINGS": "ignore"}
    if job.ca_file is not None:
        environment |= {"SSL_CERT_FILE": str(job.ca_file), "REQUESTS_CA_BUNDLE": str(job.ca_file)}
    return environment


class _Bench:
    """All workloads in turn, in one folder, against one nginx."""

    def __init__(self, folder: Path, nginx: Nginx, names: Sequence[Entry], options: argparse.Namespace) -> None:
        self._folder = folder
        self._nginx = nginx
        self._entries = names
        self._options = options
        self.found = Outcome()

    def measure(self, workload: Workload, needed_later: set[Path]) -> None:
        """Run everybody on *workload*, in turns."""
        taking_part = []
        for entry in self._entries:
            reason = skipped(entry, workload)
            if reason is None:
                taking_part.append(entry)
            else:
                self.found.skips.append(Skip(workload.name, entry.name, reason))
        if not taking_part:
            return
        stage = Stage(workload, self._folder, self._nginx, is_fresh=self._options.fresh)
        # A file that ranges go to may be there twice: the old one, and the new one until it takes its name.
        copies = 2 if workload.kind == "ranges" else 1
        needed = workload.size_bytes * (workload.distinct_sources + copies * workload.distinct_names) + SPARE_BYTES
        if needed > _free(self._folder):
            reason = f"needs {needed / 1024**3:.0f} GiB, {_free(self._folder) / 1024**3:.0f} are free"
            self.found.skips += [Skip(workload.name, entry.name, reason) for entry in taking_part]
            _tell(f"{workload.name}: skipped, {reason}")
            return
        try:
            with stage:
                for number in range(self._options.repeat):
                    for entry in taking_part:
                        self._run_one(stage, workload, entry, number)
        except ServerFailed as error:
            self.found.skips += [Skip(workload.name, entry.name, str(error)) for entry in taking_part]
            _tell(f"{workload.name}: {error}")
        for folder in stage.sources - needed_later:
            shutil.rmtree(folder, ignore_errors=True)
            folder.with_suffix(".done").unlink(missing_ok=True)

    def _run_one(self, stage: Stage, workload: Workload, entry: Entry, number: int) -> None:
        try:
            with ExitStack() as stack:
                platform = None
                if workload.server == "platform":
                    platform = stack.enter_context(ServedPlatform(self._folder))
                job = stage.job(contender(entry.module).share, entry.loop, platform)
                if self._options.concurrency:
                    job = _with_concurrency(job, self._options.concurrency)
                figures = run_job(entry, job, self._options.deadline, self._folder / "home")
        except ServerFailed as error:
            figures = {"failure": str(error)}
        load = round(os.getloadavg()[0], 2)
        run = {"case": workload.name, "contender": entry.name, "run": number + 1, "load": load, **figures}
        self.found.runs.append(run)
        _tell(_line(workload, run))


def _with_concurrency(job: Job, concurrency: int) -> Job:
    return Job.from_json(json.dumps({**json.loads(job.to_json()), "concurrency": concurrency}))


def _line(workload: Workload, run: dict[str, Any]) -> str:
    start = f"{workload.name:22} {run['contender']:20} run {run['run']}: "
    if "failure" in run:
        return f"{start}FAILED: {run['failure'].splitlines()[-1]}"
    client = run["client_user_seconds"] + run["client_system_seconds"]
    if workload.is_large:
        gib = run["size_bytes"] / 1024**3
        return f"{start}{client / gib:.2f} + {run['server_cpu_seconds'] / gib:.2f} s/GiB, {run['wall_seconds']:.2f} s"
    each = 1e6 / run["objects"]
    return f"{start}{client * each:.1f} + {run['server_cpu_seconds'] * each:.1f} us, {run['wall_seconds']:.2f} s"


def _free(folder: Path) -> int:
    free = shutil.disk_usage(folder).free
    return min(free, available_bytes()) if _is_memory(folder) else free


def _is_memory(folder: Path) -> bool:
    return folder.is_relative_to("/dev/shm")


def _parent() -> Path:
    """Return where data go: memory where there is any, else the folder of temporary files."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() and os.access(memory, os.W_OK) else Path(tempfile.gettempdir())


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=...", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--case", help="only these workloads, by name or by how it begins; commas between them")
    parser.add_argument("--contenders", help="only these; NAME is all its event loops, NAME:uvloop one")
    parser.add_argument("--repeat", type=int, help="runs of each (3)")
    parser.add_argument("--quick", action="store_true", help="small data, once: does it work, not how fast is it")
    parser.add_argument("--scale", type=float, help="part of the objects, or of their size (1; quick: 0.05)")
    parser.add_argument("--concurrency", type=int, help="requests at once, for everybody")
    parser.add_argument("--fresh", action="store_true", help="ranges go to a new file, not into one that is there")
    parser.add_argument("--deadline", type=float, default=DEADLINE_SECONDS, help="seconds for one run of one contender")
    parser.add_argument("--parent", type=Path, help="folder for all data (memory where there is any)")
    parser.add_argument("--output", type=Path, help="file for the results")
    parser.add_argument("--list", action="store_true", help="say who and what there is, and why not")
    options = parser.parse_args()
    options.repeat = options.repeat or (1 if options.quick else 3)
    options.scale = options.scale or (QUICK_SCALE if options.quick else 1.0)
    try:
        names = options.case.split(",") if options.case else None
        options.workloads = chosen(names, quick=options.quick, scale=options.scale)
        options.entries = entries(options.contenders.split(",") if options.contenders else None)
    except KeyError as error:
        known = ", ".join([*(workload.name for workload in WORKLOADS), *NAMES])
        parser.error(f"there is no {error.args[0]!r}; there are: {known}")
    return options


def _list(options: argparse.Namespace) -> int:
    for workload in options.workloads:
        print(f"{workload.name:22} {workload.title}")
    print()
    for entry in options.entries:
        found = contender(entry.module)
        print(f"{entry.name:22} {found.unavailable() or found.version()}")
    return 0


def _save(path: Path, options: argparse.Namespace, facts: dict[str, str], found: Outcome) -> dict[str, Any]:
    sizes = {workload.name: workload.size_bytes for workload in options.workloads}
    titles = {workload.name: workload.title for workload in options.workloads}
    results = {
        "conditions": {**facts, "scale": str(options.scale), "repeat": str(options.repeat)},
        "workloads": {name: {"title": titles[name], "size_bytes": size} for name, size in sizes.items()},
        "summary": summarize(found.runs),
        "skipped": [{"case": skip.case, "contender": skip.contender, "reason": skip.reason} for skip in found.skips],
        "runs": found.runs,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    return results


def main() -> int:
    """Run the benchmarks, print the tables, keep the results."""
    options = _arguments()
    if options.list:
        return _list(options)
    path = options.output or RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.local.json"
    try:
        with tempfile.TemporaryDirectory(prefix="asyncsdk-bench-", dir=options.parent or _parent()) as name:
            folder = Path(name)
            present = [entry for entry in options.entries if contender(entry.module).unavailable() is None]
            facts = conditions(folder, [entry.module for entry in present])
            with Nginx(folder, tls=any(workload.is_tls for workload in options.workloads)) as nginx:
                bench = _Bench(folder, nginx, options.entries, options)
                for number, workload in enumerate(options.workloads):
                    later = [Stage(one, folder, nginx).sources for one in options.workloads[number + 1 :]]
                    bench.measure(workload, set().union(*later))
                    results = _save(path, options, facts, bench.found)
    except NginxUnavailable as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(tables(results))
    print(f"\n{bar_table(results)}\n\n{path}")
    return 1 if any("failure" in run for run in bench.found.runs) else 0


if __name__ == "__main__":
    sys.exit(main())
