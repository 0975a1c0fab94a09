"""From runs to figures and tables."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.summarize import summarize, tables

MIB = 1024**2


def run(wall_seconds: float, **changes: object) -> dict[str, object]:
    facts: dict[str, object] = {
        "case": "small-up-plain",
        "contender": "curl",
        "run": 1,
        "objects": 100,
        "size_bytes": 100 * 20 * 1024,
        "wall_seconds": wall_seconds,
        "client_user_seconds": 0.3,
        "client_system_seconds": 0.2,
        "server_cpu_seconds": 0.1,
        "rss_start_bytes": 30 * MIB,
        "rss_peak_bytes": 50 * MIB,
    }
    return {**facts, **changes}


def failed(**changes: object) -> dict[str, object]:
    return {"case": "small-up-plain", "contender": "curl", "run": 1, "failure": "first line\nwhy", **changes}


def results(*runs: dict[str, object], **more: Any) -> dict[str, Any]:
    return {"conditions": {"cpu": "a fast one"}, "summary": summarize(runs), **more}


def test_median_and_spread_of_each_case_and_contender() -> None:
    """Runs of one case and contender become one entry; others stay apart, event loops too."""
    entries = summarize(
        [run(1.0), run(4.0), run(2.0), run(1.0, contender="aiohttp"), run(1.0, contender="aiohttp:uvloop")]
    )
    assert [(entry["contender"], entry["runs"]) for entry in entries] == [
        ("curl", 3),
        ("aiohttp", 1),
        ("aiohttp:uvloop", 1),
    ]
    figures = entries[0]["figures"]
    assert figures["per_second"] == {"median": 50.0, "lowest": 25.0, "highest": 100.0}
    assert figures["client"]["median"] == pytest.approx(5000)
    assert figures["client_user"]["median"] == pytest.approx(3000)
    assert figures["total"]["median"] == pytest.approx(6000)
    assert figures["rss_above_start_mib"]["median"] == 20


def test_large_objects_are_told_per_gib() -> None:
    """From 1 MiB on, costs are seconds per GiB and rates MiB per second, whatever the number of objects."""
    (entry,) = summarize([run(2.0, objects=4, size_bytes=512 * MIB)])
    assert entry["is_large"]
    assert entry["figures"]["client"]["median"] == pytest.approx(1.0)
    assert entry["figures"]["wall"]["median"] == pytest.approx(4.0)
    assert entry["figures"]["per_second"]["median"] == pytest.approx(256)


def test_a_failed_run_is_no_figure() -> None:
    """Failures are counted beside the good runs and never enter a median; a contender that only fails has none."""
    entries = summarize([run(1.0), failed(), run(3.0), failed(contender="httpx")])
    assert [(entry["runs"], entry["failures"]) for entry in entries] == [(2, 1), (0, 1)]
    assert entries[0]["figures"]["wall_seconds"]["median"] == 2.0
    assert entries[1]["figures"] == {}


def test_tables_rank_contenders_and_tell_failures() -> None:
    """A table for each case, the cheapest client first; who failed is told with the last line of the reason."""
    text = tables(
        results(
            run(1.0, contender="dear", client_user_seconds=0.9),
            run(1.0, contender="cheap"),
            failed(contender="broken"),
            run(1.0, case="post-plain"),
        )
    )
    assert "cpu: a fast one" in text
    assert text.index("small-up-plain") < text.index("cheap") < text.index("dear") < text.index("post-plain")
    assert "broken: 1 failed: why" in text
    first = [line for line in text.splitlines() if line.startswith(("contender ", "cheap", "dear"))]
    assert len({len(line) for line in first}) == 1


def test_skips_are_told_once_with_their_reason() -> None:
    """Event loops of one contender and many workloads make one line for each reason."""
    skips = [
        {"case": case, "contender": name, "reason": "is not installed"}
        for case in ("a", "b", "c", "d")
        for name in ("aiohttp", "aiohttp:uvloop")
    ]
    skips.append({"case": "e", "contender": "curl", "reason": "has no way to do put_parts"})
    text = tables(results(run(1.0), skipped=skips))
    assert text.count("aiohttp: is not installed (4 workloads)") == 1
    assert "curl: has no way to do put_parts (e)" in text
