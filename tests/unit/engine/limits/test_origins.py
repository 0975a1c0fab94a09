"""Servers that ask for a pause, or refuse everything; and the retries of a run."""

from __future__ import annotations

import random

import pytest

from asyncsdk.engine.config import RetryPolicy
from asyncsdk.engine.limits.origins import Origins, origin_of
from asyncsdk.engine.limits.retry_budget import RetryBudget
from asyncsdk.errors import CircuitOpen
from tests.unit.engine.limits.clock import Clock

ONE, OTHER = "http://one:1/a?signature=secret", "http://two:1/b"


def test_a_pause_holds_for_everybody_of_that_server_and_nobody_else() -> None:
    clock = Clock()
    origins = Origins(3, clock)
    assert origins.is_clear
    origins.hold(ONE, 10)
    origins.hold(ONE, 5)  # the longer one counts
    assert not origins.is_clear
    assert origins.held_seconds("http://one:1/other") == 10
    assert origins.held_seconds(OTHER) == 0
    clock.pass_time(10)
    assert origins.held_seconds(ONE) == 0
    assert origins.is_clear


def test_the_circuit_opens_lets_one_through_after_each_pause_and_closes() -> None:
    """Three objects given up: 1 s without any, one tried, 2 s without any, one tried; it goes well: all as before."""
    clock = Clock()
    origins = Origins(3, clock)
    for _ in range(2):
        origins.gave_up(ONE)
        assert origins.held_seconds(ONE) == 0
    origins.gave_up(ONE)
    assert origins.held_seconds(OTHER) == 0
    for pause in (1.0, 2.0):
        with pytest.raises(CircuitOpen, match="http://one:1") as caught:
            origins.held_seconds(ONE)
        assert "secret" not in str(caught.value)
        clock.pass_time(pause)
        assert origins.held_seconds(ONE) == 0  # the one that is tried
        with pytest.raises(CircuitOpen):
            origins.held_seconds(ONE)
        if pause == 1.0:
            origins.gave_up(ONE)
    origins.went_well(ONE)
    assert origins.held_seconds(ONE) == 0
    assert origins.is_clear


def test_a_server_that_is_never_there_is_asked_every_half_minute() -> None:
    """In a day of refusals, a server is asked some 2,900 times, however many objects there are."""
    clock = Clock()
    origins = Origins(1, clock)
    asked = 0
    for _ in range(24 * 3600):
        clock.pass_time(1)
        try:
            origins.held_seconds(ONE)
        except CircuitOpen:
            continue
        asked += 1
        origins.gave_up(ONE)
    assert 2_800 < asked < 2_950


def test_one_success_in_between_starts_the_count_again() -> None:
    origins = Origins(2, Clock())
    for _ in range(10):
        origins.gave_up(ONE)
        origins.went_well(ONE)
    assert origins.is_clear
    assert origins.held_seconds(ONE) == 0


def test_an_origin_is_no_secret() -> None:
    assert origin_of("https://user:word@host:8/p?q") == "https://host:8"


def test_retries_are_a_share_of_what_went_well() -> None:
    went_well = 50
    budget = RetryBudget(0.5, 3, lambda: went_well)
    assert [budget.take() for _ in range(5)] == [True, True, True, False, False]
    went_well += 4
    assert [budget.take() for _ in range(4)] == [True, True, False, False]
    assert (budget.used, budget.refused) == (5, 4)


@pytest.mark.parametrize(("refused", "is_enough"), [(0.05, True), (0.2, True), (0.3, True), (0.4, False)])
def test_the_budget_lasts_while_less_than_a_third_is_refused(refused: float, is_enough: bool) -> None:
    """By the defaults; beyond that retries do more for the server's load than for what gets through."""
    chance = random.Random(1)
    policy = RetryPolicy()
    went_well = 0
    budget = RetryBudget(policy.budget_share, policy.budget_least, lambda: went_well)
    for _ in range(20_000):
        while chance.random() < refused and budget.take():
            pass
        went_well += 1
    assert (budget.refused == 0) is is_enough


def test_one_of_a_million_fails_while_a_fifth_is_refused_at_random() -> None:
    """Attempts that the default allows: a handful of a million objects needs another run, not one of 3,000."""
    assert 1_000_000 * 0.2 ** RetryPolicy().max_attempts < 5
