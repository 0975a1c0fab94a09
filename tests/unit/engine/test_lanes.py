"""Slots and lanes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

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


async def test_each_lane_has_its_own_limit_beside_that_of_both() -> None:
    slots = Slots(5, small=2, part=4)
    assert [slots.try_take("small") for _ in range(3)] == [True, True, False]
    assert [slots.try_take("part") for _ in range(4)] == [True, True, True, False]
    assert slots.free == 0
    slots.release("small")
    assert slots.try_take("part")  # what one lane does not use the other one may, up to its own limit
    slots.release("part")
    assert (slots.used("small"), slots.used("part")) == (1, 3)


async def test_those_that_wait_are_served_when_there_become_more() -> None:
    slots = Slots(10, small=1, part=1)
    grown: list[int] = []
    slots.has_grown.append(lambda: grown.append(slots.small_limit))
    served: list[str] = []

    def taker(name: str) -> Callable[[], bool]:
        return lambda: served.append(name) is None  # type: ignore[func-returns-value]  # it is True

    assert slots.try_take("small")
    slots.wait("small", taker("a"))
    slots.wait("small", taker("b"))
    assert served == []
    slots.resize(small=2)
    assert (served, grown) == (["a"], [2])
    slots.resize(small=1)
    assert grown == [2]
    slots.release("small")
    assert served == ["a"]  # there is one fewer now
    slots.release("small")
    assert served == ["a", "b"]


async def test_a_slot_is_wanted_by_those_it_would_help() -> None:
    """Small objects give way to parts that wait for a slot of both, not to parts that have all that is theirs."""
    slots = Slots(2, small=2, part=1)
    assert slots.try_take("part")
    slots.wait("part", lambda: True)
    assert slots.try_take("small")
    assert not slots.is_wanted
    slots.resize(part=2)
    assert slots.is_wanted
    slots.release("small")
    assert slots.used("part") == 2
    assert not slots.is_wanted


async def test_who_has_more_than_there_are_gives_back() -> None:
    slots = Slots(4)
    assert all(slots.try_take("small") for _ in range(4))
    slots.resize(small=2)
    assert slots.is_wanted
    slots.release("small")
    assert slots.is_wanted
    slots.release("small")
    assert not slots.is_wanted
    assert not slots.try_take("small")


def test_who_listens_is_told_when_one_lane_grows_though_the_other_shrinks() -> None:
    """What the parts may have more is no less for being less than what small objects may have fewer."""
    slots, told = Slots(256, small=64, part=8), list[int]()
    slots.has_grown.append(lambda: told.append(slots.part_limit))
    slots.resize(small=32, part=16)
    assert told == [16]
    slots.resize(small=16, part=16)
    assert told == [16]
