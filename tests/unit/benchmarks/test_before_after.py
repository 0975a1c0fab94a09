"""Rows of two commits, held against each other."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.before_after import ratios


def run(case: str, client: float, *, server: float = 1.0, wall: float = 2.0) -> dict[str, Any]:
    return {
        "case": case,
        "contender": "ours",
        "client_user_seconds": client / 4,
        "client_system_seconds": client * 3 / 4,
        "server_cpu_seconds": server,
        "wall_seconds": wall,
    }


def test_medians_of_either_side() -> None:
    """User and system time are one; one bad run does not count; a case that one side lacks is left out."""
    before = [run("up", 1.0), run("up", 9.0), run("up", 2.0), run("gone", 1.0)]
    after = [run("up", 3.0, server=3.0, wall=5.0), run("new", 1.0)]
    assert ratios(before, after) == {"up": {"client": (2.0, 3.0), "total": (3.0, 6.0), "wall": (2.0, 5.0)}}


def test_a_run_that_failed_is_no_figure() -> None:
    """Nothing is compared with what did not work."""
    with pytest.raises(RuntimeError, match="up by ours failed: no result"):
        ratios([{"case": "up", "contender": "ours", "failure": "no result"}], [run("up", 1.0)])
