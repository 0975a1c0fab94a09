"""When signed URLs expire, and by whose clock."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from asyncsdk.engine.expiry import AHEAD_SECONDS, Clocks, expiry_in_url
from asyncsdk.transport.retry_after import parse_http_date

EXPIRY = 1_893_459_600  # 2030-01-01 01:00:00 UTC
URL = f"http://h/p?Expires={EXPIRY}"


def date(seconds: float) -> dict[str, str]:
    return {"date": formatdate(seconds, usegmt=True)}


@pytest.mark.parametrize(
    "query",
    [
        "X-Amz-Date=20300101T000000Z&X-Amz-Expires=3600",
        "X-Goog-Date=20300101T000000Z&X-Goog-Expires=3600",
        "x-goog-date=20300101T000000Z&x-goog-expires=3600",
        "Expires=1893459600&Signature=x",
        "partNumber=1&uploadId=u&expires=1893459600&signature=0a",
        "se=2030-01-01T01%3A00%3A00Z&sig=x",
        "se=2030-01-01T01:00Z&sig=x",
        "se=2030-01-01T01:00:00.0000000Z&sig=x",
    ],
)
def test_expiry_stands_in_the_url(query: str) -> None:
    """S3, Google (both versions), Azure and our own server say it in the query."""
    assert expiry_in_url(f"http://h/p?{query}") == EXPIRY


@pytest.mark.parametrize(
    "query",
    [
        "",
        "Expires=soon",
        "Expires=-1",
        "X-Amz-Date=x&X-Amz-Expires=3",
        "X-Amz-Date=20300101T000000Z&X-Amz-Expires=-3",
        "X-Amz-Date=20300101T000000Z&X-Amz-Expires=" + "9" * 400,
        "se=2000-01-01T00:00:00Z",
        "se=2000-13-01&sig=x",
    ],
)
def test_a_url_that_names_no_expiry_never_expires(query: str) -> None:
    """What cannot be read explains no refusal."""
    assert expiry_in_url(f"http://h/p?{query}") is None
    assert not Clocks().explains(403, f"http://h/p?{query}", None, {})


@pytest.mark.parametrize("ours", [-900.0, 0.0, 900.0])
def test_a_refusal_is_explained_by_the_servers_clock_alone(ours: float) -> None:
    """However wrong the clock here is: to two seconds, for the clock of the date may not be the one that judges."""
    clocks = Clocks(lambda: EXPIRY + ours)
    assert not clocks.explains(403, URL, None, date(EXPIRY - 3))
    assert clocks.explains(403, URL, None, date(EXPIRY - 2))
    assert clocks.explains(403, URL, None, date(EXPIRY))
    assert not clocks.explains(403, URL, EXPIRY + 9.0, date(EXPIRY))
    assert clocks.explains(403, "http://h/p", EXPIRY, date(EXPIRY))


@pytest.mark.parametrize(
    ("status", "may"), [(400, True), (401, True), (403, True), (410, True), (404, False), (503, False)]
)
def test_only_some_refusals_can_mean_expiry(status: int, may: bool) -> None:
    """The status alone says nothing, but some rule it out."""
    assert Clocks(lambda: EXPIRY + 1.0).explains(status, URL, None, date(EXPIRY + 1)) is may


@pytest.mark.parametrize("minutes", [-15, 0, 15])
def test_without_a_date_what_is_known_of_the_origin_counts(minutes: int) -> None:
    """The difference that earlier replies showed; our own clock when there were none."""
    clocks = Clocks(lambda: EXPIRY + 5.0)
    assert clocks.explains(403, URL, None, {})
    for second in range(3):
        clocks.saw(URL, date(EXPIRY + 5 + 60 * minutes + second))
    assert clocks.explains(403, URL, None, {}) is (minutes >= 0)
    assert clocks.explains(403, f"http://other/p?Expires={EXPIRY}", None, {})


def test_skew_is_the_median_of_the_latest_of_each_origin() -> None:
    """One reply that is late or comes from a cache changes nothing; a clock that is set is followed."""
    now = 1_000_000.0
    clocks = Clocks(lambda: now)
    assert clocks.skew("http://h/a") is None
    for skew in (900, 901, 899, -50_000, 900):
        clocks.saw("http://h/a?b", date(now + skew))
        now += 60
    assert clocks.skew("http://h/other") == pytest.approx(900.5, abs=1)
    assert clocks.skew("http://h:81/a") is None
    clocks.saw("http://h/a", {"date": "never"})
    clocks.saw("http://h/a", date(now - 90_000) | {"age": "90000"})
    clocks.saw("http://h/a", {})
    assert clocks.skew("http://h/a") == pytest.approx(900.5, abs=1)
    for _ in range(9):
        clocks.saw("http://h/a", date(now))
        now += 60
    assert clocks.skew("http://h/a") == pytest.approx(0.5, abs=1)


@pytest.mark.parametrize("minutes", [-15, 0, 15])
def test_a_url_expires_soon_by_the_servers_clock(minutes: int) -> None:
    """Nothing is said before the server's clock is known: ours may be wrong."""
    theirs = EXPIRY - AHEAD_SECONDS - 2
    ours = theirs - 60 * minutes
    clocks = Clocks(lambda: ours)
    assert not clocks.expires_soon(URL, None)
    assert not Clocks(lambda: EXPIRY + 1.0).expires_soon(URL, None)
    clocks.saw(URL, date(theirs))
    assert not clocks.expires_soon(URL, None)
    ours += 3
    assert clocks.expires_soon(URL, None)
    assert not clocks.expires_soon(URL, EXPIRY + 60.0)
    assert not clocks.expires_soon("http://h/p", None)


def test_the_number_of_origins_is_bounded() -> None:
    """A run over a million hosts keeps a few of them."""
    clocks = Clocks(lambda: 0.0)
    for number in range(1000):
        clocks.saw(f"http://h{number}/", date(5))
    assert clocks.skew("http://h0/") is None
    assert clocks.skew("http://h999/") is not None


def test_dates_that_are_none_are_none() -> None:
    """Whatever a server sends there."""
    assert parse_http_date("Mon, 01 Jan 99999999999999999999 00:00:00 GMT") is None
    assert parse_http_date("") is None
