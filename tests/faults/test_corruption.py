"""The corruption drill (`benchmarks.corruption`): no corruption of the wire is taken for good."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.corruption import drill


@pytest.mark.parametrize(
    "count",
    [pytest.param(300, id="few"), pytest.param(10_000, id="all", marks=[pytest.mark.slow, pytest.mark.timeout(900)])],
)
async def test_every_corruption_is_noticed(tmp_path: Path, count: int, record_property: Any) -> None:
    """Single bits and cut ends, both ways: all detected, and mended unless what came looks like another object."""
    tally = await drill(count, seed=count, parent=tmp_path)
    record_property("corruption drill", tally.lines()[-1].strip())
    assert tally.injected.total() >= count
    assert len(tally.injected) >= 9
    assert tally.detected == tally.injected.total()
    assert tally.flips.total() > 0
    assert tally.wrong.total() == 0
    assert all("ObjectChanged" in kind or "wire" in kind for kind in tally.failures)
