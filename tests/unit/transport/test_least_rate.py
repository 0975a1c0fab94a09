"""The least rate of the httpx transport: what a disk takes is not held against the other side."""

from __future__ import annotations

import asyncio

from asyncsdk.transport.base import Timeouts
from asyncsdk.transport.rates import LeastRate

QUICK = Timeouts(rate_seconds=0.05, rate_bytes=100)


async def outlasts(*, is_held: bool) -> bool:
    """Return whether a body may stand still for several windows."""
    with LeastRate(QUICK) as rate:
        rate.begin()
        if is_held:
            rate.hold()
        await asyncio.sleep(0.3)
        rate.go_on()
        rate.pause()
        return True
    return False


async def test_time_that_a_disk_takes_does_not_count() -> None:
    assert await outlasts(is_held=True)
    assert not await outlasts(is_held=False)


async def test_a_window_that_was_held_goes_on() -> None:
    with LeastRate(QUICK) as rate:
        rate.begin()
        rate.hold()
        rate.go_on()
        await asyncio.sleep(5)
        raise AssertionError("nothing moved, and nobody minded")


async def test_a_pause_forgets_what_was_held() -> None:
    with LeastRate(QUICK) as rate:
        rate.begin()
        rate.hold()
        rate.pause()
        rate.go_on()
        await asyncio.sleep(0.3)
        return
    raise AssertionError("ended though nothing was measured")
