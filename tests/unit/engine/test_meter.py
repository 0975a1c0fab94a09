"""Progress as the caller is told it."""

from __future__ import annotations

import asyncio

from asyncsdk.engine import Progress
from asyncsdk.engine.meter import Meter


async def test_nothing_is_told_after_the_last_word() -> None:
    """Not by who was just woken by the clock, whom the cancellation at the end of a run does not stop."""
    told: list[Progress] = []
    meter = Meter(told.append)
    reporting = asyncio.create_task(meter.report_forever())
    await asyncio.sleep(0)
    meter.bytes_moved = 1
    meter.report_end()
    async with asyncio.timeout(30):
        await reporting
    assert [(progress.is_final, progress.bytes_done) for progress in told] == [(True, 1)]
