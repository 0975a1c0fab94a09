"""When one more fresh URL is asked for, and since when a request counts as under way."""

from __future__ import annotations

import pytest

from asyncsdk.engine.attempts import Airtime, RenewalRow, UrlExpired
from asyncsdk.engine.expiry import Clocks, is_expiry_word
from asyncsdk.errors import PermissionDenied

NOW = 1_900_000_000.0


class Refusals:
    """Refusals at a time that goes on by hand."""

    def __init__(self, most: int = 5) -> None:
        self.now = NOW
        self.row = RenewalRow(Clocks(lambda: self.now), most)

    def after(self, seconds: float, *, overdue: float | None) -> bool:
        """Whether a renewal is allowed after a refusal some seconds later."""
        self.now += seconds
        return self.row.allows(UrlExpired(PermissionDenied("expired", status=403), overdue))


def test_what_time_has_made_old_is_renewed_again() -> None:
    """Ten minutes each: as often as that happens, up to the bound."""
    refusals = Refusals(most=3)
    assert [refusals.after(601, overdue=1.0) for _ in range(4)] == [True, True, True, False]
    refusals.row.end()
    assert refusals.after(0, overdue=1.0)


@pytest.mark.parametrize("overdue", [-2.0, 0.0, 5.0, 7200.0])
def test_what_was_old_when_it_was_minted_is_renewed_once(overdue: float) -> None:
    """A clock that is wrong, or a platform that mints what has ended: asking again brings the same."""
    refusals = Refusals()
    assert refusals.after(0, overdue=overdue)
    assert not refusals.after(0.1, overdue=overdue)


def test_an_hour_of_waiting_does_not_excuse_a_clock_that_is_two_hours_off() -> None:
    """What counts is how long the URL was good since it was asked for."""
    refusals = Refusals()
    assert refusals.after(0, overdue=7200.0)
    assert not refusals.after(3600, overdue=7200.0)


def test_a_plain_word_is_answered_by_one_renewal_in_a_row() -> None:
    """Whatever stands between two of them makes them two rows, if it was another outcome."""
    refusals = Refusals()
    assert refusals.after(0, overdue=None)
    assert not refusals.after(3600, overdue=None)
    refusals.row.end()
    assert refusals.after(1, overdue=None)
    assert refusals.after(3600, overdue=10.0)


@pytest.mark.parametrize(
    ("status", "code", "is_word"),
    [
        (403, "expired_url", True),
        (400, "ExpiredToken", True),
        (503, "ExpiredToken", False),
        (403, "AccessDenied", False),
        (403, "AuthenticationFailed", False),
        (403, None, False),
    ],
)
def test_few_words_mean_expiry_and_nothing_else(status: int, code: str | None, is_word: bool) -> None:
    assert is_expiry_word(status, code) is is_word


async def test_airtime_is_that_of_the_latest_attempt() -> None:
    """Nothing while it waits for a slot."""
    airtime = Airtime()
    assert airtime.started is None
    airtime.begin()
    first = airtime.started
    assert first is not None
    airtime.pause()
    assert airtime.started is None
    airtime.begin()
    assert airtime.started is not None
    assert airtime.started >= first
