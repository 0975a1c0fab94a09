"""From runs to tables: median and spread of each figure. ``python -m benchmarks.summarize RESULTS.json``."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.bar import bar_table

__all__ = ["summarize", "tables"]

MIB = 1024 * 1024
LARGE_BYTES = MIB
"""From this size of an object on, costs are told per GiB, below per object."""


def _rates(run: Mapping[str, Any]) -> dict[str, float]:
    objects, wall = run["objects"], run["wall_seconds"]
    large = run["size_bytes"] / objects >= LARGE_BYTES
    per = 1 / (run["size_bytes"] / (1024 * MIB)) if large else 1e6 / objects
    user, system = run["client_user_seconds"] * per, run["client_system_seconds"] * per
    server = run["server_cpu_seconds"] * per
    return {
        "wall_seconds": wall,
        "wall": wall * per,
        "per_second": run["size_bytes"] / wall / MIB if large else objects / wall,
        "client_user": user,
        "client_system": system,
        "client": user + system,
        "server": server,
        "total": user + system + server,
        "rss_peak_mib": run["rss_peak_bytes"] / MIB,
        "rss_above_start_mib": (run["rss_peak_bytes"] - run["rss_start_bytes"]) / MIB,
    }


def summarize(runs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry for each case and contender: median, lowest and highest of every figure, and the number of runs.

    CPU and ``wall`` are in microseconds per object, for objects of 1 MiB and more in seconds per GiB. Runs that failed
    are counted, and their last reason is told; they have no figures.
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in runs:
        groups.setdefault((run["case"], run["contender"]), []).append(run)
    entries = []
    for (case, name), group in groups.items():
        good = [run for run in group if "failure" not in run]
        bad = [run["failure"] for run in group if "failure" in run]
        rates = [_rates(run) for run in good]
        entries.append(
            {
                "case": case,
                "contender": name,
                "runs": len(good),
                "failures": len(bad),
                "failure": bad[-1] if bad else "",
                "objects": good[-1]["objects"] if good else 0,
                "is_large": bool(good) and good[-1]["size_bytes"] / good[-1]["objects"] >= LARGE_BYTES,
                "figures": {
                    figure: {
                        "median": statistics.median(rate[figure] for rate in rates),
                        "lowest": min(rate[figure] for rate in rates),
                        "highest": max(rate[figure] for rate in rates),
                    }
                    for figure in (rates[0] if rates else ())
                },
            }
        )
    return entries


def _columns(is_large: bool) -> tuple[tuple[str, str, int, str], ...]:
    unit, form = ("s/GiB", ",.3f") if is_large else ("us", ",.1f")
    return (
        ("wall s", "wall_seconds", 9, ",.2f"),
        ("MiB/s" if is_large else "per s", "per_second", 9, ",.0f"),
        (f"user {unit}", "client_user", 13, form),
        (f"sys {unit}", "client_system", 12, form),
        (f"client {unit}", "client", 15, form),
        (f"server {unit}", "server", 15, form),
        (f"total {unit}", "total", 14, form),
        ("RSS MiB", "rss_peak_mib", 9, ",.0f"),
        ("above start", "rss_above_start_mib", 13, ",.0f"),
    )


def tables(results: Mapping[str, Any]) -> str:
    """Return the conditions, a table of medians for each workload (cheapest client first), and what was skipped.

    ``spread`` is the slowest less the fastest wall time, in percent of the median.
    """
    parts = ["\n".join(f"{name}: {value}" for name, value in results["conditions"].items())]
    summary = results["summary"]
    for case in dict.fromkeys(entry["case"] for entry in summary):
        found = [entry for entry in summary if entry["case"] == case]
        title = results.get("workloads", {}).get(case, {}).get("title", "")
        parts.append(f"{case}: {title}\n{_table(found)}")
    if skips := _skips(results.get("skipped", ())):
        parts.append(f"skipped:\n{skips}")
    return "\n\n".join(parts)


def _table(entries: list[dict[str, Any]]) -> str:
    good = sorted((entry for entry in entries if entry["runs"]), key=lambda entry: entry["figures"]["client"]["median"])
    lines = []
    if good:
        columns = _columns(good[0]["is_large"])
        head = f"{'contender':22}{'objects':>9}" + "".join(f"{title:>{width}}" for title, _, width, _ in columns)
        lines.append(f"{head}{'runs':>6}{'spread':>8}")
        for entry in good:
            figures = entry["figures"]
            wall = figures["wall_seconds"]
            spread = (wall["highest"] - wall["lowest"]) / wall["median"]
            cells = "".join(f"{format(figures[figure]['median'], form):>{width}}" for _, figure, width, form in columns)
            start = f"{entry['contender']:22}{entry['objects']:>9,}"
            lines.append(f"{start}{cells}{entry['runs']:>6}{spread:>8.0%}")
    for entry in entries:
        if entry["failures"]:
            reason = entry["failure"].strip().splitlines()[-1]
            lines.append(f"{entry['contender']}: {entry['failures']} failed: {reason}")
    return "\n".join(lines)


def _skips(skips: Iterable[Mapping[str, str]]) -> str:
    """Group by contender, whatever its event loop, and reason."""
    grouped: dict[tuple[str, str], dict[str, None]] = {}
    for skip in skips:
        grouped.setdefault((skip["contender"].partition(":")[0], skip["reason"]), {})[skip["case"]] = None
    return "\n".join(f"  {name}: {reason} ({_few(list(cases))})" for (name, reason), cases in grouped.items())


def _few(cases: list[str]) -> str:
    return ", ".join(cases) if len(cases) <= 3 else f"{len(cases)} workloads"


def main() -> int:
    """Print the tables of a results file."""
    if len(sys.argv) != 2:
        print("usage: python -m benchmarks.summarize RESULTS.json", file=sys.stderr)
        return 2
    results = json.loads(Path(sys.argv[1]).read_text())
    results["summary"] = summarize(results["runs"])
    print(f"{tables(results)}\n\n{bar_table(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
