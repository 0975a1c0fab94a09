"""How many at once is found without tuning: at least nine tenths of the best fixed number, in models of servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from asyncsdk.engine.limits.controller import TRACE_STEPS, LaneController, Tick
from tests.support.queueing import Model

SECONDS = 20
FIXED = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def models() -> Iterator[object]:
    for round_trip in (0.001, 0.02, 0.1):
        ms = f"{round_trip * 1000:g} ms"
        yield pytest.param(Model(round_trip, 0.01, 8), id=f"8 workers, {ms}")
        yield pytest.param(Model(round_trip, 0.01, 1), id=f"1 worker, {ms}")
        yield pytest.param(Model(round_trip, 0.002, 64, size=20_000, bandwidth=40e6), id=f"40 MB/s, {ms}")
        yield pytest.param(Model(round_trip, 0.005, 64, rate_limit=500), id=f"429 beyond 500/s, {ms}")
        yield pytest.param(Model(round_trip, 0.01, 64, bad=0.05), id=f"5 % refused, {ms}")
        yield pytest.param(Model(round_trip, 0.01, 64, bad=0.2), id=f"20 % refused, {ms}")


@pytest.mark.parametrize("model", list(models()))
def test_nine_tenths_of_the_best_fixed_number(model: Model) -> None:
    """Ramp-up and probing included, within a minute; near servers sooner."""
    seconds = SECONDS if model.round_trip < 0.01 else 45
    best = max(model.run(limit, None, 5) for limit in FIXED)
    controller = LaneController("small", 16, 256)
    assert model.run(controller.limit, controller.observe, seconds) >= 0.9 * best


@pytest.mark.parametrize("round_trip", [0.001, 0.02, 0.1])
def test_parts_fill_a_link_that_one_connection_does_not(round_trip: float) -> None:
    """Parts of 1 MiB, each connection slow by itself; counted in bytes, over longer windows."""
    model = Model(round_trip, 0.2, 64, size=1024 * 1024, bandwidth=125e6)
    best = max(model.run(limit, None, 10) for limit in FIXED)
    controller = LaneController("part", 8, 256, window_seconds=(0.5, 5.0))
    assert model.run(controller.limit, controller.observe, 60) >= 0.9 * best


def test_no_more_are_in_flight_than_pay() -> None:
    """A server with one worker gets a few requests at once, not hundreds: waiting longer for the same is no gain."""
    controller = LaneController("small", 16, 256)
    Model(0.001, 0.01, 1).run(controller.limit, controller.observe, SECONDS)
    assert controller.limit <= 20


def test_a_limit_of_requests_is_kept_to() -> None:
    """A server that answers 429 beyond a rate is soon asked for hardly more than that."""
    model, refused = Model(0.02, 0.005, 64, rate_limit=500), 0
    controller = LaneController("small", 64, 256)

    def observe(tick: Tick) -> int:
        nonlocal refused
        refused += tick.refused
        return controller.observe(tick)

    done = model.run(controller.limit, observe, SECONDS)
    assert refused < 0.2 * done * SECONDS
    fixed = 0

    def count(tick: Tick) -> int:
        nonlocal fixed
        fixed += tick.refused
        return 64

    model.run(64, count, SECONDS)
    assert refused < fixed / 4


def steady(controller: LaneController, rate_of: object, seconds: float, **facts: object) -> None:
    for _ in range(int(seconds / 0.05)):
        rate = rate_of(controller.limit)  # type: ignore[operator]
        controller.observe(Tick(0.05, max(1, int(rate * 0.05)), rate * 0.05, **facts))  # type: ignore[arg-type]


def test_a_full_processor_gets_no_more() -> None:
    """As much as ever would be gained by more, were there anybody to do it."""
    controller = LaneController("small", 16, 256)
    steady(controller, lambda limit: 1000.0 * limit, 30, cpu=0.98)
    assert controller.limit <= 16
    steady(controller, lambda limit: 1000.0 * limit, 30, cpu=0.5)
    assert controller.limit > 100


def test_a_late_event_loop_gets_no_more() -> None:
    controller = LaneController("small", 16, 256)
    steady(controller, lambda limit: 1000.0 * limit, 30, late_seconds=0.3)
    assert controller.limit <= 16


def test_nothing_is_learnt_while_there_is_not_enough_to_do() -> None:
    """A feed that is slower than the server changes nothing, and what is under trial is undone."""
    controller = LaneController("small", 16, 256)
    steady(controller, lambda limit: 100.0, 60, is_saturated=False)
    assert controller.limit == 16
    assert len(controller.trace) == 1


def test_a_server_that_gets_better_is_followed() -> None:
    controller = LaneController("small", 16, 256)
    steady(controller, lambda limit: 100.0 * min(limit, 8), 30)
    assert controller.limit <= 12
    steady(controller, lambda limit: 100.0 * min(limit, 128), 90)
    assert controller.limit >= 110


def test_the_trace_says_what_was_done_and_why_and_is_bounded() -> None:
    controller = LaneController("part", 8, 64, window_seconds=(0.5, 5.0))
    steady(controller, lambda limit: 100.0 * min(limit, 24), 20)
    reasons = {step.reason for step in controller.trace}
    assert {"start", "try more"} <= reasons
    assert all(step.lane == "part" and 1 <= step.limit <= 64 for step in controller.trace)
    steady(controller, lambda limit: 100.0 * min(limit, 24), 20_000)
    assert len(controller.trace) <= TRACE_STEPS
