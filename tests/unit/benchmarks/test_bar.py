"""The bar: ratios, limits and verdicts."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.bar import BAR, bar_table, judge
from benchmarks.workloads import WORKLOADS


def entry(case: str, contender: str, **figures: float) -> dict[str, Any]:
    return {
        "case": case,
        "contender": contender,
        "runs": 3,
        "figures": {name: {"median": value} for name, value in figures.items()},
    }


def verdicts(*entries: dict[str, Any], ours: str = "ours_lean") -> dict[tuple[str, str], tuple[float | None, str]]:
    return {(found.row.figure, found.peer): (found.ratio, found.word) for found in judge(entries, ours)}


def test_every_row_speaks_of_a_workload() -> None:
    """No row is left unjudged because a workload has another name now."""
    names = {workload.name for workload in WORKLOADS}
    assert {row.case for row in BAR} | {row.other_case for row in BAR if row.other_case} <= names


@pytest.mark.parametrize(("ours", "word"), [(31.0, "stretch"), (39.0, "met"), (41.0, "missed")])
def test_ratio_to_a_named_peer(ours: float, word: str) -> None:
    """At or below the stretch, at or below the limit, above."""
    found = verdicts(entry("small-up-plain", "ours_lean", client=ours), entry("small-up-plain", "curl", client=40.0))
    assert found["client", "curl"] == (pytest.approx(ours / 40), word)


def test_best_of_several_peers_counts() -> None:
    """Among Rust peers on any event loop the cheapest is who is compared with; our own httpx never is a peer."""
    found = verdicts(
        entry("small-up-plain", "ours_lean", client=30.0),
        entry("small-up-plain", "obstore", client=76.0),
        entry("small-up-plain", "pyreqwest", client=50.0),
        entry("small-up-plain", "pyreqwest:uvloop", client=40.0),
        entry("small-up-plain", "aiohttp", client=10.0),
    )
    assert found["client", "pyreqwest:uvloop"] == (pytest.approx(0.75), "stretch")
    everybody = verdicts(
        entry("medium-up-plain", "ours_lean", client=0.2),
        entry("medium-up-plain", "ours_httpx", client=0.1),
        entry("medium-up-plain", "curl", client=0.4),
        entry("medium-up-plain", "aiohttp:uvloop", client=0.3),
    )
    assert everybody == {("client", "aiohttp:uvloop"): (pytest.approx(2 / 3), "missed")}


def test_absolute_limits_and_differences() -> None:
    """Memory is held against megabytes, growth against the smaller run."""
    found = verdicts(
        entry("memory-up", "ours_lean", rss_above_start_mib=321.0),
        entry("many-50k", "ours_lean", rss_above_start_mib=60.0),
        entry("many-5k", "ours_lean", rss_above_start_mib=50.0),
    )
    assert found["rss_above_start_mib", "limit"] == (321.0, "missed")
    assert found["rss_above_start_mib", "many-5k"] == (10.0, "met")


def test_a_missing_side_is_no_result() -> None:
    """Without ours or without the peer nothing is claimed."""
    assert verdicts(entry("small-up-plain", "ours_lean", client=1.0))["client", "curl"] == (None, "no result")
    assert verdicts(entry("small-up-plain", "curl", client=1.0))["client", "curl"] == (None, "no result")
    failed = {**entry("small-up-plain", "ours_lean"), "runs": 0}
    assert verdicts(failed, entry("small-up-plain", "curl", client=1.0))["client", "curl"] == (None, "no result")


def test_table_has_every_event_loop_of_ours() -> None:
    """Each is judged by itself; without us there is a sentence instead of a table."""
    curl = entry("small-up-plain", "curl", client=40.0)
    summary = [curl, *(entry("small-up-plain", name, client=20.0) for name in ("ours_lean", "ours_lean:uvloop"))]
    text = bar_table({"summary": summary})
    assert text.count("ours_lean:uvloop") == text.count("ours_lean ") > 0
    assert "took no part" in bar_table({"summary": [curl]})
