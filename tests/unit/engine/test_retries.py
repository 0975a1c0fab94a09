"""The arithmetic of retries, expiry and pace."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsdk.engine import RetryPolicy
from asyncsdk.engine.pace import Pace
from asyncsdk.engine.retries import wait_before_next
from asyncsdk.errors import ConnectionFailed, RateLimited
from asyncsdk.transport.retry_after import parse_retry_after

POLICY = RetryPolicy(wait_initial_seconds=1.0, wait_max_seconds=8.0, retry_after_max_seconds=30.0)


def test_the_wait_grows_to_its_cap_and_is_spread_over_all_of_it() -> None:
    upper = [wait_before_next(POLICY, n, ConnectionFailed("x"), uniform=lambda low, high: high) for n in range(1, 7)]
    lower = [wait_before_next(POLICY, n, ConnectionFailed("x"), uniform=lambda low, high: low) for n in range(1, 7)]
    assert upper == [1, 2, 4, 8, 8, 8]
    assert lower == [0] * 6
    assert wait_before_next(POLICY, 10**6, ConnectionFailed("x")) <= 8


@given(st.floats(-10, 1e9, allow_nan=False), st.integers(1, 8))
def test_the_wait_is_never_less_than_asked_and_a_tenth_more_at_most(seconds: float, attempt: int) -> None:
    """Capped, too; and where less is asked for than the backoff would be, the backoff."""
    asked = max(0.0, min(seconds, 30.0))
    wait = wait_before_next(POLICY, attempt, RateLimited("x", retry_after=seconds))
    assert asked <= wait <= max(1.1 * asked + 1e-9, min(8.0, 2.0 ** (attempt - 1)))


@pytest.mark.parametrize("asked", [0.0, -3.0])
def test_a_server_that_asks_for_no_wait_gets_the_backoff(asked: float) -> None:
    """``Retry-After: 0``, or a date that is over: eight attempts in a row would be gone in milliseconds."""
    error = RateLimited("x", retry_after=asked)
    waits = [wait_before_next(POLICY, n, error, uniform=lambda low, high: high) for n in range(1, 6)]
    assert waits == [1, 2, 4, 8, 8]


def test_those_who_were_told_the_same_come_back_one_after_the_other() -> None:
    """Spread over a tenth of what was asked for, from the end of it on."""
    waits = {wait_before_next(POLICY, 1, RateLimited("x", retry_after=20.0)) for _ in range(100)}
    assert len(waits) == 100
    assert 20.0 <= min(waits) < 20.5
    assert 21.5 < max(waits) <= 22.0


def test_retry_after_is_seconds_or_a_date_of_the_servers_clock() -> None:
    now = 1_900_000_000
    date = formatdate(now, usegmt=True)
    assert parse_retry_after({}) is None
    assert parse_retry_after({"retry-after": "7"}) == 7
    assert parse_retry_after({"retry-after": formatdate(now + 20, usegmt=True), "date": date}) == 20
    assert parse_retry_after({"retry-after": formatdate(now - 20, usegmt=True), "date": date}) == 0
    assert parse_retry_after({"retry-after": "soon"}) is None
    assert parse_retry_after({"retry-after": "9" * 400}) is not None


def test_the_feed_is_asked_for_two_seconds_of_work() -> None:
    now = 0.0
    pace = Pace(lambda: now)
    assert pace.want == 64
    for _ in range(1000):
        now += 1 / 200
        pace.finished()
    assert 380 <= pace.want <= 420
    for _ in range(5000):
        now += 1 / 5000
        pace.finished()
    assert pace.want == 1000
    for _ in range(100):
        now += 1.0
        pace.finished()
    assert pace.want == 64
