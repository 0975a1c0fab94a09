"""From runs to figures."""

from __future__ import annotations

import pytest

from benchmarks.summarize import summarize, table


def run(wall_seconds: float, **changes: object) -> dict[str, object]:
    facts: dict[str, object] = {
        "case": "100 files",
        "workload": "upload",
        "server": "nginx",
        "objects": 100,
        "size_bytes": 200 * 1024**2,
        "wall_seconds": wall_seconds,
        "client_cpu_seconds": 0.5,
        "server_cpu_seconds": 0.1,
        "rss_start_bytes": 30 * 1024**2,
        "rss_peak_bytes": 50 * 1024**2,
    }
    return {**facts, **changes}


def test_median_and_spread_of_each_case_and_server() -> None:
    """Runs of one case, workload and server become one entry; others stay apart."""
    entries = summarize([run(1.0), run(4.0), run(2.0), run(1.0, server="platform"), run(1.0, workload="download")])
    assert [(entry["workload"], entry["server"], entry["runs"]) for entry in entries] == [
        ("upload", "nginx", 3),
        ("upload", "platform", 1),
        ("download", "nginx", 1),
    ]
    figures = entries[0]["figures"]
    assert figures["files_per_second"] == {"median": 50.0, "lowest": 25.0, "highest": 100.0}
    assert figures["client_us_per_file"]["median"] == pytest.approx(5000)
    assert figures["client_cpu_seconds_per_gib"]["median"] == pytest.approx(2.56)
    assert figures["rss_above_start_mib"]["median"] == 20


def test_table_has_a_line_for_each_entry() -> None:
    """Every entry is a line below the head, as wide as it."""
    lines = table(summarize([run(1.0), run(1.0, server="platform")])).splitlines()
    assert len(lines) == 3
    assert len({len(line) for line in lines}) == 1
