"""Rows of ``make bench`` at an older commit and now, in turns: what a change costs, or gains.

    python -m benchmarks.before_after 6e1f6d5 --case large-down --turns 6 --scale 0.5

The older commit is checked out into a temporary folder beside this one and measured by its own benchmarks, with the
packages installed now. Who goes first changes from turn to turn. Printed are, for each case, medians of client CPU,
of client and server CPU together, and of wall time, and their ratio (after / before).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["Row", "ratios"]

ROOT = Path(__file__).resolve().parents[1]

Row = dict[str, tuple[float, float]]
"""By what was measured (``client``, ``total``, ``wall``, in seconds): median before and after."""


def ratios(before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]]) -> dict[str, Row]:
    """Return, for each case that both sides have runs of without a failure, what was measured on either.

    Args:
        before: Runs, as `benchmarks.run` keeps them.
        after: The same, of the later commit.
    """
    sides = [_figures(runs) for runs in (before, after)]
    return {
        case: {
            name: (median(sides[0][case][name]), median(sides[1][case][name])) for name in ("client", "total", "wall")
        }
        for case in sides[0]
        if case in sides[1]
    }


def _figures(runs: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        if "failure" in run:
            raise RuntimeError(f"{run['case']} by {run['contender']} failed: {run['failure']}")
        client = run["client_user_seconds"] + run["client_system_seconds"]
        found[run["case"]]["client"].append(client)
        found[run["case"]]["total"].append(client + run["server_cpu_seconds"])
        found[run["case"]]["wall"].append(run["wall_seconds"])
    return found


def _measure(tree: Path, contender: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="asyncsdk-rows-") as folder:
        output = Path(folder, "results.json")
        command = [sys.executable, "-m", "benchmarks.run", "--repeat", "1", "--output", str(output)]
        command += ["--case", options.case, "--contenders", contender, "--scale", str(options.scale)]
        done = subprocess.run(
            command, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True, text=True
        )
        if not output.exists():
            raise RuntimeError(f"the benchmarks of {tree} ended with {done.returncode}: {done.stderr[-500:]}")
        runs: list[dict[str, Any]] = json.loads(output.read_text())["runs"]
        return runs


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure both, print the table; returns 1 when a row costs more than ``--most`` times the client CPU of before."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("commit", help="the older one")
    parser.add_argument("--case", default="small,medium,large,post", help="as for make bench")
    parser.add_argument("--before", default="ours_lean:asyncio", help="contender of the older commit")
    parser.add_argument("--after", default="ours_auto", help="contender of now")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--scale", type=float, default=0.25, help="part of each workload")
    parser.add_argument("--most", type=float, default=1.1, help="ratio of client CPU that is accepted")
    parser.add_argument("--output", type=Path, help="file for all runs, as JSON")
    options = parser.parse_args(arguments)
    runs: dict[str, list[dict[str, Any]]] = {"before": [], "after": []}
    with tempfile.TemporaryDirectory(prefix="asyncsdk-before-") as folder:
        tree = Path(folder, "tree")
        _git("worktree", "add", "--detach", str(tree), options.commit)
        try:
            sides = [("before", tree, options.before), ("after", ROOT, options.after)]
            for turn in range(options.turns):
                for side, place, contender in sides if turn % 2 == 0 else reversed(sides):
                    runs[side] += _measure(place, contender, options)
        finally:
            _git("worktree", "remove", "--force", str(tree))
    if options.output is not None:
        options.output.write_text(json.dumps({"commit": options.commit, **runs}, indent=1) + "\n")
    return _tell(ratios(runs["before"], runs["after"]), runs, options)


def _tell(rows: Mapping[str, Row], runs: Mapping[str, list[dict[str, Any]]], options: argparse.Namespace) -> int:
    loads = [run["load"] for side in runs.values() for run in side]
    print(f"medians of {options.turns}, {options.scale:g} of each workload, load {min(loads)} to {max(loads)}")
    print(f"{'seconds, after / before':24} {'client':>22} {'client and server':>22} {'wall':>22}")
    for case, row in rows.items():
        cells = [f"{now:8.2f} /{then:6.2f} ={now / then:5.2f}" for then, now in row.values()]
        print(f"{case:24} {cells[0]:>22} {cells[1]:>22} {cells[2]:>22}")
    over = [case for case, row in rows.items() if row["client"][1] > options.most * row["client"][0]]
    if over:
        print(f"over {options.most:g} in client CPU: {', '.join(over)}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
