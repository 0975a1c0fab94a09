"""The clock of the lean transport: what counts as standing still, and what does not."""

from __future__ import annotations

import pytest

from asyncsdk.transport.base import Timeouts
from asyncsdk.transport.lean.deadlines import Deadlines, Phase

LIMITS = Timeouts(idle=10, reply=100, rate_seconds=30, rate_bytes=1000)


def clock(phase: Phase) -> Deadlines:
    deadlines = Deadlines(0.0)
    deadlines.begin(LIMITS, 0.0)
    deadlines.phase = phase
    return deadlines


@pytest.mark.parametrize(
    ("phase", "limit", "said"),
    [("send", 10, "send"), ("reply", 100, "reply"), ("head", 10, "reply"), ("body", 10, "reply")],
)
def test_each_phase_has_its_limit(phase: Phase, limit: float, said: str) -> None:
    """The long one is for the first byte of a reply alone."""
    deadlines = clock(phase)
    assert deadlines.overdue(limit - 0.1, 0, 0, "http://h/") is None
    error = deadlines.overdue(limit, 0, 0, "http://h/?SECRET")
    assert error is not None
    assert error.phase == said
    assert "SECRET" not in str(error)


@pytest.mark.parametrize(("phase", "is_measured"), [("send", True), ("body", True), ("reply", False), ("head", False)])
def test_only_bodies_have_a_rate(phase: Phase, is_measured: bool) -> None:
    """Over each window anew, by what moved in their own direction."""
    deadlines = clock(phase)
    sent, received = (30_000, 0) if phase == "send" else (0, 30_000)
    deadlines.since = 30.0
    assert deadlines.overdue(30.0, sent, received, "") is None
    deadlines.since = 60.0
    error = deadlines.overdue(60.0, sent + 1, received + 1, "")
    assert (error is not None and error.phase == "rate") is is_measured


def test_what_a_thread_took_is_no_slowness_of_the_network() -> None:
    """Neither idle nor below the rate."""
    deadlines = clock("body")
    deadlines.skip(50.0)
    assert deadlines.overdue(55.0, 0, 0, "") is None
    deadlines.since = 80.0
    error = deadlines.overdue(80.0, 0, 29_999, "")
    assert error is not None
    assert error.phase == "rate"
