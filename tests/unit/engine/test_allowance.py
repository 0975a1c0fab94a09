"""What connections hold of the byte budget: their share, its bounds, and who makes room for whom."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections.abc import Coroutine

import pytest

from asyncsdk.engine.allowance import Allowance
from asyncsdk.engine.budget import Budget, Lease


def begun(budget: Budget, least: int = 10) -> tuple[Allowance, list[bool]]:
    """Return the memory of a transport, and what it was told: each time, whether it is squeezed."""
    allowance = budget.allowance()
    told: list[bool] = []
    allowance.begin(least, lambda: told.append(allowance.is_squeezed))
    return allowance, told


async def turns() -> None:
    """Let what was arranged for happen."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_quarter_is_kept_for_connections() -> None:
    """Whatever else is wanted."""
    budget = Budget(100)
    allowance, _ = begun(budget)
    lease = await budget.take(75)
    assert budget.take_nowait(1) is None
    assert allowance.take(25)
    assert not allowance.take(1)
    assert budget.used_bytes == 100
    lease.release()


async def test_connections_take_up_to_half() -> None:
    """Of what nobody else wants."""
    budget = Budget(100)
    allowance, _ = begun(budget)
    assert allowance.take(50)
    assert not allowance.take(1)
    with await budget.take(50):
        assert budget.used_bytes == 100
        assert budget.take_nowait(1) is None


async def test_without_a_transport_all_of_it_can_be_leased() -> None:
    budget = Budget(100)
    allowance, _ = begun(budget)
    with await budget.take(40):
        assert budget.take_nowait(40) is None
        allowance.end()
        with await budget.take(60):
            assert budget.used_bytes == 100


async def test_who_waits_for_a_lease_squeezes_connections_to_their_quarter() -> None:
    """And who had no room is told when there is some."""
    budget = Budget(100)
    allowance, told = begun(budget)
    assert allowance.take(50)
    task = asyncio.create_task(budget.take(60))
    await turns()
    assert told == [True]
    assert not allowance.take(1)
    allowance.give_back(5)
    await turns()
    assert not task.done()
    allowance.give_back(10)
    lease = await task
    await turns()
    assert (budget.used_bytes, allowance.is_squeezed, told[-1]) == (95, False, False)
    assert allowance.take(5)
    assert not allowance.take(1)
    lease.release()
    await turns()
    assert len(told) >= 3
    assert allowance.take(10)


async def test_the_first_connection_is_had_whatever_is_leased() -> None:
    """Who holds a lease may be waiting for it."""
    budget = Budget(4)
    allowance, _ = begun(budget, least=10)
    with await budget.take(4):
        assert not allowance.take(10)
        assert allowance.take(10, is_needed=True)


async def test_a_lease_that_never_fits_beside_connections_is_served_alone() -> None:
    budget = Budget(100)
    allowance, _ = begun(budget)
    assert allowance.take(30)
    first = await budget.take(10)
    task = asyncio.create_task(budget.take(90))
    await turns()
    assert not task.done()
    first.release()
    (await task).release()


async def test_connections_that_cannot_be_fewer_do_not_keep_a_lease_waiting() -> None:
    """Several transports with a tiny budget: each has its one connection, whatever the sum."""
    budget = Budget(100)
    transports = [begun(budget, least=30)[0] for _ in range(3)]
    for allowance in transports:
        assert allowance.take(30, is_needed=True)
    async with asyncio.timeout(10):
        (await budget.take(40)).release()


async def test_what_an_engine_that_was_never_closed_held_comes_back() -> None:
    """With the last reference to it."""
    budget = Budget(100)
    allowance, _ = begun(budget)
    assert allowance.take(50)
    del allowance
    gc.collect()
    assert budget.used_bytes == 0
    with await budget.take(100):
        pass


def test_what_belonged_to_a_closed_event_loop_comes_back() -> None:
    """Though somebody still holds it."""
    budget = Budget(100)
    kept: list[Allowance] = []

    async def open_one() -> None:
        allowance, _ = begun(budget)
        assert allowance.take(50)
        kept.append(allowance)

    async def lease_all() -> None:
        with await budget.take(100):
            assert budget.used_bytes == 100

    asyncio.run(open_one())
    assert kept
    asyncio.run(lease_all())


async def test_the_end_gives_back_once() -> None:
    budget = Budget(100)
    allowance, told = begun(budget)
    assert allowance.take(40)
    task = asyncio.create_task(budget.take(75))
    await turns()
    allowance.end()
    allowance.end()
    (await task).release()
    assert budget.used_bytes == 0
    told.clear()
    await turns()
    assert told == []


async def test_who_has_less_than_its_part_gets_it_from_who_has_more() -> None:
    """Two transports, the first of which took all that connections may have: busy ones are closed after their reply."""
    budget = Budget(100)
    first, told_first = begun(budget)
    second, told_second = begun(budget)
    assert first.take(40)
    assert second.take(10)
    assert not second.take(10)
    await turns()
    assert told_first == [True]
    first.give_back(10)
    assert not first.take(1)
    await turns()
    assert len(told_second) >= 1
    assert second.take(10)
    assert not first.is_squeezed
    assert not second.take(5)
    assert (first.is_squeezed, second.is_squeezed) == (True, False)  # 30 and 20: 25 would be fair
    first.give_back(10)
    assert not first.is_squeezed


async def test_what_is_not_wanted_any_more_keeps_nobody_back() -> None:
    """The request that waited was cancelled: the others may have all of it."""
    budget = Budget(100)
    first, told_first = begun(budget)
    second, _ = begun(budget)
    assert first.take(40)
    assert not second.take(20)
    await turns()
    assert told_first[0]
    first.give_back(10)
    await turns()  # the second is told, and does not want it
    assert not first.is_squeezed
    assert first.take(10)


async def test_parts_that_fit_nobody_do_not_go_to_and_fro() -> None:
    """Who could not have it without more than its part waits."""
    budget = Budget(100)
    first, told_first = begun(budget)
    second, _ = begun(budget)
    assert first.take(30)
    assert second.take(20)
    assert not second.take(20)
    assert not first.take(20)
    await turns()
    assert told_first == []
    assert (first.is_squeezed, second.is_squeezed) == (False, False)


async def test_a_coroutine_that_is_closed_waits_no_longer() -> None:
    """As happens to those that are left when their event loop is closed."""
    budget = Budget(100)
    lease = await budget.take(100)
    waiting = budget.take(50)
    waiting.send(None)
    assert budget.is_wanted
    waiting.close()
    assert not budget.is_wanted
    lease.release()
    assert budget.used_bytes == 0


def test_the_collector_may_end_a_holder_at_any_moment() -> None:
    """In the middle of what another does with the budget: here, of counting the transports."""
    budget = Budget(100)

    async def left_behind() -> None:
        with await budget.take(60):
            await asyncio.sleep(3600)

    class Counting(Budget):
        def _living(self) -> list[Allowance]:
            nonlocal held
            ended, held = held, None
            if ended is not None:
                ended.close()
            return super()._living()

    held: Coroutine[None, None, None] | None = None

    async def main() -> None:
        nonlocal held, budget
        budget = Counting(100)
        begun(budget)
        coroutine = left_behind()
        coroutine.send(None)
        held = coroutine
        assert budget.used_bytes >= 0  # counts them with the lock taken
        assert budget.used_bytes == 0

    thread = threading.Thread(target=asyncio.run, args=(main(),), daemon=True)
    thread.start()
    thread.join(20)
    assert not thread.is_alive(), "it waits for itself"


@pytest.mark.parametrize("seed", range(8))
def test_the_sum_is_never_more_than_the_budget(seed: int) -> None:
    """Leases and connections of several threads, at random; and everybody is served."""
    budget = Budget(1000)
    highest: list[int] = []
    served = [0, 0]
    begun = threading.Barrier(3)

    async def connections(chance: random.Random) -> None:
        allowance = budget.allowance()
        room = asyncio.Event()
        allowance.begin(40, room.set)
        begun.wait(30)  # what is leased before a transport begins cannot make room for it
        held: list[int] = []
        for _ in range(300):
            size = chance.randrange(1, 40)
            while not allowance.take(size, is_needed=not held):
                room.clear()
                if held:
                    allowance.give_back(held.pop())
                else:
                    await room.wait()
            held.append(size)
            served[0] += 1
            highest.append(budget.used_bytes)
            while held and (allowance.is_squeezed or chance.random() < 0.3):
                allowance.give_back(held.pop())
            await asyncio.sleep(0)
        allowance.end()

    async def leases(chance: random.Random) -> None:
        async def one() -> None:
            lease: Lease = await budget.take(chance.randrange(1, 700))
            highest.append(budget.used_bytes)
            await asyncio.sleep(0)
            served[1] += 1
            lease.release()

        await asyncio.gather(*(one() for _ in range(100)))

    async def both(number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        async with asyncio.timeout(60):
            async with asyncio.TaskGroup() as group:
                group.create_task(connections(chance))
                group.create_task(leases(chance))

    threads = [threading.Thread(target=asyncio.run, args=(both(number),)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert served == [900, 300]
    assert max(highest) <= 1000
    assert budget.used_bytes == 0
