"""When signed URLs stop working: read from the URL itself, judged by the clock of the server that will be asked.

The clock of this machine may be minutes off, and a URL that looks fresh here may be old there. Every ``Date`` of a
reply says what time it is over there: the difference, the median of the latest of each origin, turns our time into
theirs.
A refusal is put down to expiry when the URL's own expiry and that clock explain it, to within two seconds, or when the
server has a word for it that means nothing else (`is_expiry_word`): the token behind a URL may end before the URL, and
a reply may lack its ``Date``. Never because of its status: 400, 401, 403 and 410 are all seen for expired URLs, and
all of them mean other things too.

Source: Amazon S3 API reference, "Authenticating Requests: Using Query Parameters"; Google Cloud Storage, "V4 signing
process" and "V2 signing process"; Azure Storage REST reference, "Create a service SAS" (``se``); RFC 9110 section 6.6.1
(Date).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from statistics import median
from urllib.parse import parse_qs, urlsplit

from asyncsdk.transport.base import ReplyHead, Request, Sink
from asyncsdk.transport.retry_after import parse_http_date
from asyncsdk.transport.urls import split_url

__all__ = [
    "AHEAD_SECONDS",
    "TOLERANCE_SECONDS",
    "Clocks",
    "Horizon",
    "expiry_in_url",
    "is_expiry_word",
]

AHEAD_SECONDS = 10.0
"""A URL is renewed this long before it expires: requests may wait for connections, and ``Date`` has no fractions."""

TOLERANCE_SECONDS = 2.0
"""How far the clock of ``Date`` may be behind the one that judges a URL: they may be of two machines, one of which has
cut its fraction away."""

_SAMPLES = 9
"""Differences kept for each origin: one reply that was long under way, or came from a cache, changes no median."""

_MAX_ORIGINS = 64

_EXPIRED_STATUS = frozenset({400, 401, 403, 410})
_EXPIRED_CODES = frozenset({"expired_url", "ExpiredToken"})
"""Ours, and that of S3 (a session token that has ended) and Google (a URL that has)."""


class Clocks:
    """What time it is at the servers that answered. Not bound to an event loop.

    Args:
        now: Seconds since 1970 UTC by this machine's clock.
    """

    __slots__ = ("_now", "_origins")

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._origins: dict[str, _Clock] = {}

    def now(self) -> float:
        """Return the time by this machine's clock, seconds since 1970 UTC."""
        return self._now()

    def saw(self, url: str, headers: Mapping[str, str]) -> None:
        """Take note of the ``Date`` in a reply to a request for *url*. Cheap: one is read per second and origin.

        To be called when the head of the reply is there: its body may take longer, and would look like a clock that is
        behind.
        """
        date = headers.get("date")
        if date is None or "age" in headers:  # a cache's copy: the time it was made
            return
        origin = split_url(url)[0].root
        clock = self._origins.get(origin)
        if clock is None:
            if len(self._origins) >= _MAX_ORIGINS:
                del self._origins[next(iter(self._origins))]
            clock = self._origins[origin] = _Clock()
        if date != clock.latest:
            clock.latest = date
            theirs = parse_http_date(date)
            if theirs is not None:
                clock.differences.append(theirs + 0.5 - self._now())  # cut to whole seconds: half of one on average

    def watch(self, request: Request) -> None:
        """See the head of the reply to *request*, which is about to be sent: the first one that comes.

        Those behind redirects are of other servers.
        """
        on_head, is_first = request.on_head, True

        def seen(head: ReplyHead) -> Sink | None:
            nonlocal is_first
            if is_first:
                is_first = False
                request.on_head = on_head  # it may be used for one transfer after the other
                self.saw(request.url, head.headers)
            return None if on_head is None else on_head(head)

        request.on_head = seen

    def skew(self, url: str) -> float | None:
        """Return how many seconds the clock of the origin of *url* is ahead of ours; None: it has not answered yet."""
        clock = self._origins.get(split_url(url)[0].root)
        return median(clock.differences) if clock is not None and clock.differences else None

    def expires_soon(self, url: str, expires_at: float | None) -> bool:
        """Whether *url* stops working within `AHEAD_SECONDS` by its server's clock; False while that is not known.

        Args:
            expires_at: When it expires, if known; None: read from the URL where it says so itself.
        """
        skew = self.skew(url)
        if skew is None:
            return False
        expiry = expiry_in_url(url) if expires_at is None else expires_at
        return expiry is not None and self._now() + skew >= expiry - AHEAD_SECONDS

    def explains(self, status: int, url: str, expires_at: float | None, headers: Mapping[str, str]) -> bool:
        """Whether a refusal came because *url* had expired, by the clock of the server that refused it.

        Args:
            headers: Of the refusal; its ``Date`` is that clock. Without one, what is known of the origin counts, and
                without that our own clock.
        """
        return self.overdue(status, url, expires_at, headers) is not None

    def overdue(self, status: int, url: str, expires_at: float | None, headers: Mapping[str, str]) -> float | None:
        """Return how many seconds ago *url* had expired, -`TOLERANCE_SECONDS` at least; None: that is no explanation.

        Args:
            headers: See `explains`.
        """
        if status not in _EXPIRED_STATUS:
            return None
        expiry = expiry_in_url(url) if expires_at is None else expires_at
        if expiry is None:
            return None
        theirs = parse_http_date(headers["date"]) if "date" in headers else None
        overdue = (self._now() + (self.skew(url) or 0.0) if theirs is None else theirs) - expiry
        return overdue if overdue >= -TOLERANCE_SECONDS else None

    def horizon(self) -> float:
        """Return the expiry up to which a URL may have to be renewed now, at whichever origin is furthest ahead."""
        skews = [median(clock.differences) for clock in self._origins.values() if clock.differences]
        return self._now() + max(skews) + AHEAD_SECONDS if skews else 0.0


class Horizon:
    """Whether URLs expire soon, asked for thousands of small objects a second: the clocks are looked at once a second.

    What it suspects is handed to those who look closer.

    Attributes:
        due: When `look` wants to be called again, by the monotonic clock.
        until: A URL that is known to expire before this may have to be renewed.
        wants_date: Whether the clocks should see the reply to the next request.
    """

    __slots__ = ("due", "until", "wants_date")

    def __init__(self) -> None:
        self.due = 0.0
        self.until = 0.0
        self.wants_date = True

    def look(self, clocks: Clocks, now: float) -> None:
        """Look at the clocks again. *now* is of the monotonic clock."""
        self.due = now + 1.0
        self.until = clocks.horizon()
        self.wants_date = True


class _Clock:
    """What one origin said of its time."""

    __slots__ = ("differences", "latest")

    def __init__(self) -> None:
        self.latest = ""
        self.differences: deque[float] = deque(maxlen=_SAMPLES)


def expiry_in_url(url: str) -> float | None:
    """Return when *url* says that it stops working, seconds since 1970 UTC; None: it does not say.

    Knows S3 and GCS (V4: start and seconds; V2: ``Expires``), Azure (``se``), and our own server (``expires``).
    """
    query = {name.lower(): values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    for vendor in ("x-amz", "x-goog"):
        start, seconds = _moment(query.get(f"{vendor}-date", ""), "%Y%m%dT%H%M%SZ"), query.get(f"{vendor}-expires", "")
        if start is not None and seconds.isascii() and seconds.isdecimal() and len(seconds) < 10:
            return start + float(seconds)
    expires = query.get("expires", "")
    if len(expires) == 10 and expires.isascii() and expires.isdecimal():
        return float(expires)
    return _azure_moment(query["se"]) if "se" in query and "sig" in query else None


def is_expiry_word(status: int, code: str | None) -> bool:
    """Whether *code*, the server's own word in a refusal, means that what was signed has expired, and nothing else."""
    return status in _EXPIRED_STATUS and code in _EXPIRED_CODES


def _azure_moment(text: str) -> float | None:
    """Read one of the forms that Azure takes: a day, minutes, seconds, up to seven digits of fractions; in UTC."""
    whole = text.partition(".")[0].removesuffix("Z")
    for form in ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d"):
        moment = _moment(whole, form)
        if moment is not None:
            return moment
    return None


def _moment(text: str, form: str) -> float | None:
    try:
        return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None
