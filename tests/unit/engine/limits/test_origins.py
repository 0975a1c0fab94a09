"""Servers that ask for a pause, or refuse everything; and the retries of a run."""

from __future__ import annotations

import asyncio
import random

import pytest

from asyncsdk.engine.config import RetryPolicy
from asyncsdk.engine.limits.origins import LEAST_FAILURES, LEAST_OBJECTS, Origins, origin_of
from asyncsdk.engine.limits.retry_budget import RetryBudget
from asyncsdk.errors import CircuitOpen, ConnectionFailed, ServerError
from tests.unit.engine.limits.clock import Clock

ONE, OTHER = "http://one:1/a?signature=secret", "http://two:1/b"


def made(outage_seconds: float = 600, clock: Clock | None = None, share: float = 0.0) -> Origins:
    """Return origins that an object is given up at after three failures in a row; pauses are longer by *share*."""
    return Origins(outage_seconds, 3, clock or Clock(), lambda low, high: low + share * (high - low))


def test_a_pause_holds_for_everybody_of_that_server_and_nobody_else() -> None:
    clock = Clock()
    origins = made(clock=clock)
    assert origins.is_clear
    origins.hold(ONE, 10)
    origins.hold(ONE, 5)  # the longer one counts
    assert not origins.is_clear
    assert origins.held_seconds("http://one:1/other") == 10
    assert origins.held_seconds(OTHER) == 0
    clock.pass_time(10)
    assert origins.held_seconds(ONE) == 0
    assert origins.is_clear


def test_nobody_waits_for_a_pause_that_is_too_long_and_nobody_asks_in_the_middle_of_it() -> None:
    clock = Clock()
    origins = Origins(600, 3, clock, longest_hold=600)
    assert not origins.is_too_long(600)
    assert not origins.is_too_long(None)
    origins.reached(ONE)
    origins.failed(ONE, ServerError("503", status=503, retry_after=601))
    assert origins.is_too_long(601)
    told: list[str] = []
    origins.has_changed.append(told.append)
    origins.hold(ONE, 601)
    assert told == ["http://one:1"]  # what was put aside fails now
    for _ in range(6):
        assert origins.is_given_up(ONE)
        assert origins.seconds_left(ONE) == 0
        with pytest.raises(CircuitOpen, match=r"longer pause than is waited .*601 s"):
            origins.held_seconds(ONE)
        assert origins.held_seconds(OTHER) == 0
        clock.pass_time(100)
    clock.pass_time(1)
    assert not origins.is_given_up(ONE)
    assert origins.held_seconds(ONE) == 0


async def test_drained_a_short_pause_is_waited_and_a_long_one_is_not() -> None:
    clock = Clock()
    origins = made(clock=clock)
    origins.hold(ONE, 300)
    origins.hold(OTHER, 5)
    waiting = asyncio.create_task(origins.wait(ONE))
    sleeping = asyncio.create_task(origins.sleep(300))
    await asyncio.sleep(0.01)
    origins.wait_no_longer()
    async with asyncio.timeout(10):
        await sleeping
        with pytest.raises(CircuitOpen):
            await waiting
    assert origins.held_seconds(OTHER) == 5
    assert origins.is_too_long(11)


def test_not_everybody_comes_back_at_once() -> None:
    """A pause is never shorter than asked for, and up to a tenth longer."""
    origins = made(share=1.0)
    origins.hold(ONE, 10)
    assert origins.held_seconds(ONE) == 11
    spread = []
    for _ in range(20):
        drawn = Origins(600, 3, Clock())
        drawn.hold(ONE, 10)
        spread.append(drawn.held_seconds(ONE))
    assert all(10 <= seconds <= 11 for seconds in spread)
    assert len(set(spread)) > 1


def test_a_server_that_is_out_is_tried_at_growing_pauses_until_it_works() -> None:
    """After 1, 2, 4 ... 30 seconds one is sent, however many want to; all the others wait."""
    clock = Clock()
    origins = made(clock=clock)
    for _ in range(2):
        origins.failed(ONE)
        assert not origins.must_wait(ONE)
        assert origins.held_seconds(ONE) == 0
    origins.failed(ONE)
    assert origins.must_wait(ONE)
    assert origins.held_seconds(OTHER) == 0
    for pause in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        assert origins.held_seconds(ONE) == pause
        clock.pass_time(pause / 2)
        assert origins.held_seconds(ONE) == pause / 2
        clock.pass_time(pause / 2)
        assert origins.seconds_left(ONE) == 0  # who only looks does not try
        assert origins.held_seconds(ONE) == 0  # the one that is tried
        origins.failed(ONE)
        assert origins.is_out(ONE)
    told: list[str] = []
    origins.has_changed.append(told.append)
    origins.went_well(ONE)
    assert told == ["http://one:1"]
    assert origins.held_seconds(ONE) == 0
    assert origins.is_clear


def test_only_what_lasts_opens_the_circuit() -> None:
    """Thirty-two failures within a second are what a limit of requests per second does; within two, they are more."""
    clock = Clock()
    origins = made(clock=clock)
    for _ in range(100):
        origins.failed(ONE)
    assert not origins.is_out(ONE)
    clock.pass_time(2)
    origins.failed(ONE)
    assert origins.is_out(ONE)


def test_a_server_that_stays_out_is_given_up_and_still_tried_now_and_then() -> None:
    """What is meant for it fails at once then; the pause it is tried at is the longest."""
    clock = Clock()
    origins = made(100, clock)
    for _ in range(3):
        origins.failed(ONE, ConnectionError("nobody is there"))
    assert origins.must_wait(ONE)
    tried = refused = 0
    for _ in range(1000):
        clock.pass_time(1)
        try:
            tried += origins.held_seconds(ONE) == 0
        except CircuitOpen:
            refused += 1
    assert (origins.seconds_left(ONE), origins.is_given_up(ONE), origins.is_out(ONE)) == (0, True, False)
    assert "http://one:1: out for too long (nobody is there)" in str(origins.given_up(ONE))
    assert "secret" not in str(origins.given_up(ONE))
    assert 30 < tried < 40
    assert refused > 850


def test_a_server_of_which_nothing_was_wanted_for_long_is_asked_as_if_nothing_had_been() -> None:
    clock = Clock()
    origins = made(10, clock)
    for _ in range(3):
        origins.failed(ONE)
    assert origins.must_wait(ONE)
    clock.pass_time(11)
    assert origins.held_seconds(ONE) == 0
    with pytest.raises(CircuitOpen):
        origins.held_seconds(ONE)
    clock.pass_time(60)
    assert origins.held_seconds(ONE) == 0
    assert origins.held_seconds(ONE) == 0
    assert origins.is_clear


def test_a_pause_it_asks_for_counts_while_it_is_out() -> None:
    clock = Clock()
    origins = made(clock=clock)
    for _ in range(3):
        origins.failed(ONE)
    assert origins.must_wait(ONE)
    origins.hold(ONE, 50)
    assert origins.held_seconds(ONE) == 50


def test_one_success_in_between_starts_the_count_again() -> None:
    origins = made()
    for _ in range(10):
        origins.failed(ONE)
        origins.failed(ONE)
        origins.answered(ONE, 503)
        assert not origins.must_wait(ONE)
        origins.answered(ONE, 404)
    assert origins.is_clear
    assert origins.held_seconds(ONE) == 0


def nobody(*, was_connected: bool = False) -> ConnectionFailed:
    error = ConnectionFailed("no connection")
    error.was_connected = was_connected
    return error


@pytest.mark.parametrize("was_connected", [False, True])
def test_a_server_that_never_answered_is_not_waited_for(was_connected: bool) -> None:
    """Each object uses up its attempts; when a few have, what else is meant for it is not tried one by one."""
    clock = Clock()
    origins = made(clock=clock)
    for _ in range(50):
        clock.pass_time(1)
        origins.failed(ONE, nobody(was_connected=was_connected))
        assert origins.held_seconds(ONE) == 0
    for _ in range(2):
        assert not origins.must_wait(ONE)
        assert not origins.is_given_up(ONE)
    assert not origins.must_wait(ONE)
    assert not origins.is_out(ONE)
    assert origins.is_given_up(ONE)
    with pytest.raises(CircuitOpen, match=r"never answered \(no connection\)"):
        origins.held_seconds(ONE)
    clock.pass_time(1)
    assert origins.held_seconds(ONE) == 0  # tried now and then all the same
    origins.went_well(ONE)
    assert origins.is_clear


@pytest.mark.parametrize("how", ["reply", "refusal"])
def test_a_server_that_answered_once_is_waited_for(how: str) -> None:
    clock = Clock()
    origins = made(clock=clock)
    if how == "reply":
        origins.reached("http://one:1/x")
    else:
        origins.failed(ONE, ServerError("503"))
    for _ in range(3):
        origins.failed(ONE, nobody())
    assert origins.must_wait(ONE)
    clock.pass_time(599)
    assert origins.is_out(ONE)


def test_a_server_that_answers_after_it_was_given_up_is_waited_for_from_then_on() -> None:
    clock = Clock()
    origins = made(clock=clock)
    for _ in range(3):
        origins.failed(ONE, nobody())
        assert not origins.must_wait(ONE)
    assert origins.is_given_up(ONE)
    clock.pass_time(1)
    assert origins.held_seconds(ONE) == 0
    origins.failed(ONE, ServerError("503"))
    assert origins.is_out(ONE)
    assert origins.held_seconds(ONE) == 2


@pytest.mark.parametrize("count", [1, 4, LEAST_OBJECTS - 1])
def test_a_few_objects_that_are_refused_again_and_again_are_no_outage(count: int) -> None:
    """However long, however often; one more, and it is."""
    clock = Clock()
    origins = Origins(600, clock=clock)
    for _ in range(100):
        clock.pass_time(1)
        for who in range(count):
            origins.failed(ONE, ServerError("503"), who)
            assert not origins.must_wait(ONE)
            assert not origins.is_out(ONE)
    for who in range(count, LEAST_OBJECTS):
        assert not origins.is_out(ONE)
        origins.failed(ONE, ServerError("503"), who)
    assert origins.must_wait(ONE)


def test_many_objects_are_no_outage_before_enough_requests_failed_in_a_row() -> None:
    clock = Clock()
    origins = Origins(600, clock=clock)
    for who in range(LEAST_FAILURES - 1):
        clock.pass_time(1)
        origins.failed(ONE, ServerError("503"), who)
    assert not origins.is_out(ONE)
    origins.answered(ONE, 200)
    for who in range(LEAST_FAILURES - 1):
        clock.pass_time(1)
        origins.failed(ONE, ServerError("503"), who)
    assert not origins.is_out(ONE)
    origins.failed(ONE, ServerError("503"), 0)
    assert origins.is_out(ONE)


def test_half_as_many_are_enough_where_an_object_would_be_given_up() -> None:
    origins = Origins(600, clock=Clock())
    for who in range(LEAST_FAILURES // 2):
        assert not origins.must_wait(ONE)
        origins.failed(ONE, ServerError("503"), who)
        assert not origins.is_out(ONE)
    assert origins.must_wait(ONE)


def test_where_few_are_moved_at_once_as_many_are_enough_but_never_one() -> None:
    for at_once, least in ((1, 2), (4, 4), (64, LEAST_OBJECTS)):
        origins = Origins(600, clock=Clock(), at_once={"small": 64, "part": at_once})
        for who in range(least):
            assert not origins.must_wait(ONE)
            for _ in range(LEAST_FAILURES):
                origins.failed(ONE, ServerError("503"), who, "part")
        assert origins.must_wait(ONE)


async def test_those_that_wait_go_on_at_once_when_it_works() -> None:
    """Nobody sleeps to the end of the pause; how many wait is known meanwhile, each object once."""
    clock = Clock()
    origins = made(clock=clock)
    for _ in range(3):
        origins.failed(ONE)
    assert origins.must_wait(ONE)
    one, other = object(), object()
    tasks = [asyncio.create_task(origins.wait(ONE, "part", who)) for who in (one, one, other)]
    await asyncio.sleep(0.01)
    assert (origins.waiting_in("part"), origins.waiting_in("small")) == (2, 0)
    origins.went_well(ONE)
    async with asyncio.timeout(0.5):
        assert await asyncio.gather(*tasks) == [False] * 3
    assert origins.waiting_in("part") == 0


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
