"""When a request is tried again, and after which wait. The one retry loop is `Work.retry`; this is its arithmetic."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

from asyncsdk.engine.config import RetryPolicy
from asyncsdk.engine.expiry import parse_http_date
from asyncsdk.errors import AsyncSDKError

__all__ = ["parse_retry_after", "wait_before_next"]

_SPREAD = 0.1
"""Of what a server asked for, added at random: those whom it told the same do not come back in the same moment."""


def wait_before_next(
    policy: RetryPolicy, attempt: int, error: AsyncSDKError, uniform: Callable[[float, float], float] = random.uniform
) -> float:
    """Return how many seconds to wait after *attempt* (from 1) failed with *error*.

    Full jitter; never less than what the server asked for (``Retry-After``), and up to a tenth more. A server that asks
    for no wait at all, or for one that is over, gets the backoff all the same: else all attempts were used up in
    milliseconds.

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog (full jitter).
    """
    # 2.0**1023 is the largest there is; the wait is at its cap long before.
    upper = min(policy.wait_max_seconds, policy.wait_initial_seconds * 2.0 ** min(attempt - 1, 1000))
    backoff = uniform(0.0, upper)
    asked = getattr(error, "retry_after", None)
    if not isinstance(asked, (int, float)):
        return backoff
    seconds = max(0.0, min(float(asked), policy.retry_after_max_seconds))
    return max(seconds + uniform(0.0, _SPREAD * seconds), backoff)


def parse_retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that ``Retry-After`` asks for: a number, or a date judged by the server's own clock.

    Source: RFC 9110 section 10.2.3.
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
