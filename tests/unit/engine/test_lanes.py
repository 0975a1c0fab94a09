"""Slots and lanes."""

from __future__ import annotations

import asyncio

from asyncsdk.engine.lanes import Lane, LaneName, Slots


async def test_lanes_that_both_wait_take_turns() -> None:
    slots = Slots(1)
    order: list[str] = []

    async def use(lane: LaneName) -> None:
        async with slots.hold(lane):
            order.append(lane)

    async with slots.hold("part"):
        tasks = [asyncio.create_task(use("part")) for _ in range(5)]
        tasks += [asyncio.create_task(use("small")) for _ in range(3)]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert order == ["small", "part", "small", "part", "small", "part", "part", "part"]
    assert slots.free == 1


async def test_cancelled_waiters_lose_no_slot() -> None:
    slots = Slots(1)

    async def use() -> None:
        async with slots.hold("small"):
            await asyncio.sleep(0)

    for late in (False, True):
        async with slots.hold("small"):
            tasks = [asyncio.create_task(use()) for _ in range(3)]
            await asyncio.sleep(0)
            if not late:
                tasks[0].cancel()
        tasks[0].cancel()  # when late: it has just been given the slot
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert slots.free == 1


async def test_a_closed_lane_is_emptied_first() -> None:
    lane: Lane[int] = Lane()
    waiting = asyncio.create_task(lane.get())
    await asyncio.sleep(0)
    lane.put(1)
    lane.put(2)
    lane.close()
    assert await waiting == 1
    assert await lane.get() == 2
    assert await lane.get() is None


async def test_an_item_is_not_lost_with_a_cancelled_worker() -> None:
    lane: Lane[int] = Lane()
    first, second = asyncio.create_task(lane.get()), asyncio.create_task(lane.get())
    await asyncio.sleep(0)
    lane.put(7)
    first.cancel()
    assert await second == 7
