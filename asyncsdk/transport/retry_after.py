"""``Retry-After``: what a server asks for, and what is waited because of it. The same for objects and for messages.

The rule: a pause that is asked for is waited in full, and up to a tenth longer at random; one that is longer than may
be waited is not waited at all, and the error is told, with its seconds. Nobody asks again in the middle of it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

__all__ = ["SPREAD", "parse_http_date", "parse_retry_after", "wait_as_asked"]

SPREAD = 0.1
"""Of what a server asked for, added at random: those whom it told the same do not come back in the same moment."""


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that ``Retry-After`` asks for: a number, or a date judged by the server's own clock.

    Source: RFC 9110 section 10.2.3.

    Args:
        headers: Of the reply, with names in small letters or whatever their case.
    """
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        return float(text[:9])
    until = parse_http_date(text)
    if until is None:
        return None
    now = parse_http_date(headers["date"]) if "date" in headers else None
    return max(0.0, until - (time.time() if now is None else now))


def parse_http_date(text: str) -> float | None:
    """Return the seconds since 1970 UTC of an HTTP date, or None when it is not one."""
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):  # a year of twenty digits is too much for a C integer
        return None


def wait_as_asked(
    asked: float | None, backoff: float, uniform: Callable[[float, float], float] = random.uniform
) -> float:
    """Return the seconds to wait where a server asked for *asked* and the growing random wait would be *backoff*.

    A server that asks for no wait at all, or for one that is over, gets the backoff all the same: else all attempts
    were used up in milliseconds.
    """
    if asked is None:
        return backoff
    seconds = max(0.0, asked)
    return max(seconds + uniform(0.0, SPREAD * seconds), backoff)
