"""From runs to a table: median and spread of each figure. ``python -m benchmarks.summarize RESULTS.json``."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["summarize", "table"]

MIB = 1024 * 1024


def _rates(run: Mapping[str, Any]) -> dict[str, float]:
    objects, wall = run["objects"], run["wall_seconds"]
    gib = run["size_bytes"] / (1024 * MIB)
    return {
        "wall_seconds": wall,
        "files_per_second": objects / wall,
        "mb_per_second": run["size_bytes"] / wall / 1e6,
        "client_us_per_file": run["client_cpu_seconds"] / objects * 1e6,
        "server_us_per_file": run["server_cpu_seconds"] / objects * 1e6,
        "client_cpu_seconds_per_gib": run["client_cpu_seconds"] / gib,
        "server_cpu_seconds_per_gib": run["server_cpu_seconds"] / gib,
        "rss_peak_mib": run["rss_peak_bytes"] / MIB,
        "rss_above_start_mib": (run["rss_peak_bytes"] - run["rss_start_bytes"]) / MIB,
    }


def summarize(runs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one entry for each case and server: median, lowest and highest of every rate, and the number of runs."""
    groups: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    sizes: dict[str, float] = {}
    for run in runs:
        groups.setdefault((run["case"], run["workload"], run["server"]), []).append(_rates(run))
        sizes[run["case"]] = run["size_bytes"] / run["objects"]
    return [
        {
            "case": case,
            "workload": workload,
            "server": server,
            "bytes_per_object": sizes[case],
            "runs": len(rates),
            "figures": {
                name: {
                    "median": statistics.median(rate[name] for rate in rates),
                    "lowest": min(rate[name] for rate in rates),
                    "highest": max(rate[name] for rate in rates),
                }
                for name in rates[0]
            },
        }
        for (case, workload, server), rates in groups.items()
    ]


COLUMNS = (
    ("files/s", "files_per_second", 9, ",.0f"),
    ("MB/s", "mb_per_second", 8, ",.1f"),
    ("client us/file", "client_us_per_file", 15, ",.0f"),
    ("server us/file", "server_us_per_file", 15, ",.0f"),
    ("client s/GiB", "client_cpu_seconds_per_gib", 13, ",.2f"),
    ("server s/GiB", "server_cpu_seconds_per_gib", 13, ",.2f"),
    ("peak RSS MiB", "rss_peak_mib", 13, ",.0f"),
    ("above start", "rss_above_start_mib", 12, ",.0f"),
)
OF_SMALL = {"files_per_second", "client_us_per_file", "server_us_per_file"}
OF_LARGE = {"client_cpu_seconds_per_gib", "server_cpu_seconds_per_gib"}
"""Rates that say something of small objects only, or of large ones."""


def table(summary: Sequence[Mapping[str, Any]]) -> str:
    """Return the medians as text; the spread of the wall time in percent of its median."""
    head = f"{'case':18}{'work':10}{'server':10}" + "".join(f"{title:>{width}}" for title, _, width, _ in COLUMNS)
    lines = [f"{head}{'runs':>6}{'spread':>8}"]
    for entry in summary:
        figures = entry["figures"]
        wall = figures["wall_seconds"]
        spread = (wall["highest"] - wall["lowest"]) / wall["median"]
        silent = OF_SMALL if entry["bytes_per_object"] > MIB else OF_LARGE
        cells = "".join(
            f"{'' if name in silent else format(figures[name]['median'], form):>{width}}"
            for _, name, width, form in COLUMNS
        )
        start = f"{entry['case']:18}{entry['workload']:10}{entry['server']:10}"
        lines.append(f"{start}{cells}{entry['runs']:>6}{spread:>8.0%}")
    return "\n".join(lines)


def main() -> int:
    """Print the table of a results file."""
    if len(sys.argv) != 2:
        print("usage: python -m benchmarks.summarize RESULTS.json", file=sys.stderr)
        return 2
    results = json.loads(Path(sys.argv[1]).read_text())
    for name, value in results["conditions"].items():
        print(f"{name}: {value}")
    print(f"\n{table(summarize(results['runs']))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
