"""When a request is tried again, and after which wait. The one retry loop is `Work.retry`; this is its arithmetic."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qs, urlsplit

from asyncsdk.engine.config import RetryPolicy
from asyncsdk.errors import AsyncSDKError

__all__ = ["has_expired", "parse_http_date", "parse_retry_after", "wait_before_next"]


def wait_before_next(
    policy: RetryPolicy, attempt: int, error: AsyncSDKError, uniform: Callable[[float, float], float] = random.uniform
) -> float:
    """Return how many seconds to wait after *attempt* (from 1) failed with *error*.

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog (full jitter).
    """
    asked = getattr(error, "retry_after", None)
    if isinstance(asked, (int, float)):
        return max(0.0, min(float(asked), policy.retry_after_max_seconds))
    # 2.0**1023 is the largest there is; the wait is at its cap long before.
    upper = min(policy.wait_max_seconds, policy.wait_initial_seconds * 2.0 ** min(attempt - 1, 1000))
    return uniform(0.0, upper)


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
    return None if until is None else max(0.0, until - _server_time(headers))


def parse_http_date(text: str) -> float | None:
    """Return the seconds since 1970 UTC of an HTTP date, or None when it is not one."""
    try:
        moment = parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):  # a year of twenty digits is too much for a C integer
        return None


def has_expired(url: str, expires_at: float | None, headers: Mapping[str, str]) -> bool:
    """Whether *url* had expired when the server answered with *headers*, by the server's clock.

    Args:
        expires_at: When it expires, if known; None: read from the URL where it says so itself.
    """
    if expires_at is None:
        expires_at = _expiry_in_url(url)
    return expires_at is not None and _server_time(headers) >= expires_at


def _server_time(headers: Mapping[str, str]) -> float:
    date = parse_http_date(headers.get("date", "")) if "date" in headers else None
    return time.time() if date is None else date


def _expiry_in_url(url: str) -> float | None:
    """Return the expiry that the query of a signed URL states: S3 and GCS (V4, V2), Azure."""
    query = {name.lower(): values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    for vendor in ("x-amz", "x-goog"):
        start, seconds = _parse_basic_date(query.get(f"{vendor}-date", "")), query.get(f"{vendor}-expires", "")
        if start is not None and seconds.isdecimal():
            return start + float(seconds)
    expires = query.get("expires", "")
    if len(expires) == 10 and expires.isdecimal():
        return float(expires)
    return _parse_iso_date(query["se"]) if "se" in query and "sig" in query else None


def _parse_basic_date(text: str) -> float | None:
    return _parse(text, "%Y%m%dT%H%M%SZ")


def _parse_iso_date(text: str) -> float | None:
    return _parse(text, "%Y-%m-%dT%H:%M:%SZ")


def _parse(text: str, form: str) -> float | None:
    try:
        return datetime.strptime(text, form).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
