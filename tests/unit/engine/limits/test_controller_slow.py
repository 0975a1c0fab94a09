"""What takes long: objects and parts that outlast the time in which requests are counted, and refusals that end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from asyncsdk.engine.config import MiB
from asyncsdk.engine.health import Health
from asyncsdk.engine.lanes import Slots
from asyncsdk.engine.limits.controller import LaneController, Tick
from asyncsdk.engine.limits.pilot import Pilot
from tests.support.queueing import Model

PARTS = (0.5, 5.0)


@dataclass
class Link:
    """Connections that carry so many bytes per second each, and so many together; each object waits a round trip first.

    Attributes:
        each: Bytes per second of a connection.
        most: Bytes per second of all together.
        size: Bytes of an object.
    """

    each: float
    most: float
    size: float

    def run(self, limit: int, observe: Callable[[Tick], int], seconds: float, *, in_bytes: bool) -> list[int]:
        """Return how many there were at once after each second."""
        left: list[float] = []
        limits = []
        for tick in range(int(seconds / 0.05)):
            while len(left) < limit:
                left.append(self.size * (1 + 0.02 * (len(left) % 7)))  # they do not end together
            rate = min(self.each, self.most / len(left))
            moved = rate * 0.05 * len(left)
            left = [size - rate * 0.05 for size in left]
            done = sum(size <= 0 for size in left)
            left = [size for size in left if size > 0]
            amount = moved if in_bytes else done + moved / (256 * 1024)
            limit = observe(Tick(0.05, done, amount, bytes_moved=int(moved), in_flight=len(left)))
            if tick % 20 == 19:
                limits.append(limit)
        return limits


def test_objects_that_outlast_the_window_do_not_become_fewer() -> None:
    """10 MiB at 178 KB/s take a minute each: nothing ends in three seconds, which is no reason to have fewer."""
    limits = Link(178_000, 1e12, 10 * MiB).run(16, LaneController("small", 16, 256).observe, 40, in_bytes=False)
    assert min(limits) >= 16
    assert limits[-1] > 60


def test_without_bytes_nothing_is_judged_before_about_as_many_have_ended() -> None:
    """Of sixteen places that answer once in ten seconds, three seconds tell nothing."""
    controller = LaneController("small", 16, 16)
    for _ in range(3 * 20):
        controller.observe(Tick(0.05, 0, 0))
    controller.observe(Tick(0.05, 5, 5))
    for _ in range(5 * 20):
        controller.observe(Tick(0.05, 0, 0))
    assert [step.limit for step in controller.trace] == [16]


def test_more_are_tried_while_the_first_ones_take_their_time() -> None:
    """Parts of 8 MiB at 178 KB/s: 32 are under way within two seconds, not 47 seconds for each doubling."""
    limits = Link(178_000, 1e12, 8 * MiB).run(
        8, LaneController("part", 8, 64, window_seconds=PARTS).observe, 30, in_bytes=True
    )
    assert limits[1] == 32
    assert limits[-1] >= 48


def test_what_is_possible_at_most_bounds_the_blind_start() -> None:
    controller = LaneController("part", 8, 20, window_seconds=PARTS)
    assert Link(1.0, 1e12, MiB).run(8, controller.observe, 5, in_bytes=True)[-1] == 20
    assert [step.limit for step in controller.trace] == [8, 16, 20]


@pytest.mark.parametrize("facts", [{"is_saturated": False}, {"cpu": 0.99}, {"late_seconds": 0.3}])
def test_a_blind_start_waits_for_something_to_do_and_a_processor_to_do_it(facts: dict[str, float]) -> None:
    controller = LaneController("part", 8, 64, window_seconds=PARTS)
    for _ in range(100):
        controller.observe(Tick(0.05, 0, 0, **facts))  # type: ignore[arg-type]
    assert controller.limit == 8


def test_a_full_link_gets_back_what_a_blind_start_took() -> None:
    """Where eight are enough, thirty-two are tried, and given back when they bring nothing."""
    controller = LaneController("part", 8, 64, window_seconds=PARTS)
    limits = Link(3e6, 20e6, 8 * MiB).run(8, controller.observe, 120, in_bytes=True)
    assert max(limits) <= 64
    assert limits[-1] < 32


def test_refusals_that_end_are_not_borne_for_ever() -> None:
    """Everything is refused for eight seconds; then a limit of requests per second is kept to all the same."""
    controller = LaneController("small", 64, 256)
    for _ in range(8 * 20):
        controller.observe(Tick(0.05, 0, 0, refused=20))
    limited = Model(0.02, 0.005, 64, rate_limit=500)
    limited.run(controller.limit, controller.observe, 240)
    refused = well = 0

    def observe(tick: Tick) -> int:
        nonlocal refused, well
        refused += tick.refused
        well += tick.requests
        return controller.observe(tick)

    limited.run(controller.limit, observe, 20)
    assert refused < 0.2 * well


@pytest.mark.parametrize("lane", ["small", "part"])
def test_what_was_refused_is_not_what_went_well(lane: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers 500 or 404 fast is no reason for more: such answers did nothing."""
    health = Health()
    pilot = Pilot(Slots(4), health, 4, 4)
    ticks: dict[str, Tick] = {}
    for name in ("small", "part"):
        monkeypatch.setattr(getattr(pilot, name), "observe", lambda tick, name=name: ticks.update({name: tick}) or 4)
    monkeypatch.setattr(pilot, "_wait", lambda: None)
    pilot._remember()
    health.answers = 100
    health.moved_bytes = 10 * 256 * 1024
    if lane == "part":
        health.part_answers, health.part_refused, health.part_throttled = 100, 60, 20
        health.part_bytes = health.moved_bytes
    else:
        health.small_refused, health.small_throttled = 60, 20
    pilot._tick()
    tick, other = ticks[lane], ticks["part" if lane == "small" else "small"]
    assert (tick.requests, tick.refused, tick.bytes_moved) == (40, 20, 10 * 256 * 1024)
    assert tick.amount == (50 if lane == "small" else 10 * 256 * 1024)
    assert (other.requests, other.refused, other.bytes_moved) == (0, 0, 0)
