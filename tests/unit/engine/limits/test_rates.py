"""So many per second, by a clock that the test turns."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsdk.engine.limits.rates import Gate, TokenBucket
from asyncsdk.errors import ConfigError
from tests.unit.engine.limits.clock import Clock


def gate(per_second: float, clock: Clock, **changes: Any) -> Gate:
    return Gate(per_second, clock=clock, timers=clock, **changes)  # type: ignore[arg-type]  # its timers can be cancelled


class Walker:
    """Passes a gate again and again, and writes down when and how much."""

    def __init__(self, through: Gate, clock: Clock, sizes: list[int]) -> None:
        self.through, self.clock = through, clock
        self.sizes = list(reversed(sizes))
        self.passed: list[tuple[float, int]] = []

    def go(self) -> None:
        if not self.sizes:
            return
        if self.through.passes():
            self.move()
        else:
            self.through.wait(self.move)

    def move(self) -> None:
        size = self.sizes.pop()
        self.passed.append((self.clock(), size))
        self.through.charge(size)
        self.clock.call_later(0.0, self.go)


@settings(max_examples=80, deadline=None)
@given(
    per_second=st.integers(1, 10_000),
    walks=st.lists(st.lists(st.integers(1, 5_000), max_size=12), min_size=1, max_size=5),
    starts=st.lists(st.floats(0, 3), min_size=5, max_size=5),
    late=st.floats(0, 0.05),
)
def test_no_window_holds_more_than_the_rate_and_the_burst(
    per_second: int, walks: list[list[int]], starts: list[float], late: float
) -> None:
    """Whoever passes whenever: in any window at most the rate, the burst, and the last one's excess."""
    clock = Clock()
    through = gate(per_second, clock, least_burst=50)
    walkers = [Walker(through, clock, sizes) for sizes in walks]
    for walker, start in zip(walkers, starts, strict=False):
        clock.call_later(start + late, walker.go)
    clock.pass_time(5 + 2 * sum(map(sum, walks)) / per_second + 10)
    passed = sorted(entry for walker in walkers for entry in walker.passed)
    assert len(passed) == sum(map(len, walks))  # nobody was forgotten
    burst = max(50.0, per_second * 0.1)
    for first in range(len(passed)):
        total = 0
        for last in range(first, len(passed)):
            total += passed[last][1]
            allowed = per_second * (passed[last][0] - passed[first][0]) + burst + passed[last][1]
            assert total <= allowed * (1 + 1e-9) + 1e-6


def test_what_may_pass_does_pass() -> None:
    """With enough to do the rate is used, not only kept to."""
    clock = Clock()
    through = gate(1000, clock)
    walkers = [Walker(through, clock, [100] * 1000) for _ in range(3)]
    for walker in walkers:
        walker.go()
    clock.pass_time(100)
    moved = sum(size for walker in walkers for _, size in walker.passed)
    assert 0.99 * 100_000 < moved < 100_500
    shares = [len(walker.passed) for walker in walkers]
    assert max(shares) - min(shares) <= 1  # first come, first served


def test_a_rate_that_changes_counts_at_once() -> None:
    """Who waits for an hour under the old rate waits for a moment under the new one, and not at all without any."""
    clock = Clock()
    through = gate(1, clock)
    through.charge(3600)
    came: list[str] = []
    through.wait(lambda: came.append("first"))
    clock.pass_time(10)
    assert came == []
    through.change(3600)
    clock.pass_time(1.1)
    assert came == ["first"]
    through.charge(1e6)
    through.wait(lambda: came.append("second"))
    through.open_up()
    assert came == ["first", "second"]
    assert through.waiting == 0
    assert 10.9 < through.waited_seconds < 11.1


def test_those_that_leave_lose_nobody_a_turn() -> None:
    """A cancelled ticket costs nothing and holds nobody back."""
    clock = Clock()
    through = gate(1, clock)
    through.charge(2)
    came: list[int] = []
    tickets = [through.wait(lambda number=number: came.append(number), 1) for number in range(3)]  # type: ignore[misc]
    tickets[0].cancel()
    tickets[0].cancel()
    clock.pass_time(1.01)
    assert came == [1]
    tickets[1].cancel()  # it had its turn
    clock.pass_time(1.01)
    assert came == [1, 2]


async def test_taking_can_be_cancelled() -> None:
    """Who is cancelled while waiting took nothing."""
    clock = Clock()
    through = gate(1, clock)
    await through.take(2)
    first, second = asyncio.create_task(through.take(5)), asyncio.create_task(through.take(1))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    clock.pass_time(1.01)
    await asyncio.wait_for(second, 5)
    assert through.waiting == 0


async def test_being_cancelled_after_the_turn_came_gives_it_back() -> None:
    """What was charged for nothing is paid back."""
    clock = Clock()
    through = gate(1, clock)
    await through.take(2)
    task = asyncio.create_task(through.take(1000))
    await asyncio.sleep(0)
    clock.pass_time(1.01)  # its turn came, and it does not know yet
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert through.passes()


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (1, 0), (float("nan"), 1)])
def test_a_rate_is_positive(rate: float, burst: float) -> None:
    with pytest.raises(ConfigError):
        TokenBucket(rate, burst)


def test_pieces_are_small_where_the_rate_is() -> None:
    clock = Clock()
    assert gate(1_000, clock).piece_bytes == 16 * 1024
    assert gate(2_000_000, clock).piece_bytes == 100_000
    assert gate(1e9, clock).piece_bytes == 256 * 1024
