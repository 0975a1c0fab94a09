"""The arithmetic of retries, expiry and pace."""

from __future__ import annotations

from email.utils import formatdate

from hypothesis import given
from hypothesis import strategies as st

from asyncsdk.engine import RetryPolicy
from asyncsdk.engine.pace import Pace
from asyncsdk.engine.retries import parse_retry_after, wait_before_next
from asyncsdk.errors import ConnectionFailed, RateLimited

POLICY = RetryPolicy(wait_initial_seconds=1.0, wait_max_seconds=8.0, retry_after_max_seconds=30.0)


def test_the_wait_grows_to_its_cap_and_is_spread_over_all_of_it() -> None:
    upper = [wait_before_next(POLICY, n, ConnectionFailed("x"), uniform=lambda low, high: high) for n in range(1, 7)]
    lower = [wait_before_next(POLICY, n, ConnectionFailed("x"), uniform=lambda low, high: low) for n in range(1, 7)]
    assert upper == [1, 2, 4, 8, 8, 8]
    assert lower == [0] * 6
    assert wait_before_next(POLICY, 10**6, ConnectionFailed("x")) <= 8


@given(st.floats(-10, 1e9, allow_nan=False))
def test_retry_after_replaces_the_wait_and_is_capped(seconds: float) -> None:
    assert wait_before_next(POLICY, 1, RateLimited("x", retry_after=seconds)) == max(0.0, min(seconds, 30.0))


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
