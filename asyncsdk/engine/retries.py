"""When a request is tried again, and after which wait. The one retry loop is `Work.retry`; this is its arithmetic."""

from __future__ import annotations

import random
from collections.abc import Callable

from asyncsdk.engine.config import RetryPolicy
from asyncsdk.errors import AsyncSDKError
from asyncsdk.transport.retry_after import wait_as_asked

__all__ = ["capped", "wait_before_next"]


def wait_before_next(
    policy: RetryPolicy, attempt: int, error: AsyncSDKError, uniform: Callable[[float, float], float] = random.uniform
) -> float:
    """Return how many seconds to wait after *attempt* (from 1) failed with *error*.

    Full jitter; never less than what the server asked for (``Retry-After``), and up to a tenth more: `wait_as_asked`.

    Source: "Exponential Backoff And Jitter", AWS Architecture Blog (full jitter).
    """
    # 2.0**1023 is the largest there is; the wait is at its cap long before.
    upper = min(policy.wait_max_seconds, policy.wait_initial_seconds * 2.0 ** min(attempt - 1, 1000))
    backoff = uniform(0.0, upper)
    asked = getattr(error, "retry_after", None)
    seconds = capped(policy, float(asked)) if isinstance(asked, (int, float)) else None
    return wait_as_asked(seconds, backoff, uniform)


def capped(policy: RetryPolicy, asked: float) -> float:
    """Return the pause that is made where a server asks for *asked* seconds."""
    most = policy.retry_after_max_seconds
    return asked if most is None else min(asked, most)
