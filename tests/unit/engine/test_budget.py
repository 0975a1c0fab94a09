"""The byte budget."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

from asyncsdk.engine.budget import Budget, process_budget
from asyncsdk.errors import ConfigError


async def test_leases_never_hold_more_than_the_budget() -> None:
    budget = Budget(100)
    highest = 0

    async def use(size: int) -> None:
        nonlocal highest
        with await budget.take(size):
            highest = max(highest, budget.used_bytes)
            await asyncio.sleep(0)

    await asyncio.gather(*(use(10 + i % 50) for i in range(200)))
    assert 0 < highest <= 100
    assert budget.used_bytes == 0


async def test_whoever_asked_first_is_served_first() -> None:
    budget = Budget(10)
    first = await budget.take(10)
    order: list[int] = []

    async def use(number: int, size: int) -> None:
        with await budget.take(size):
            order.append(number)

    tasks = [asyncio.create_task(use(n, size)) for n, size in enumerate((9, 1, 5, 1))]
    await asyncio.sleep(0)
    assert budget.take_nowait(1) is None
    first.release()
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3]


async def test_more_than_the_whole_budget_is_served_alone() -> None:
    budget = Budget(10)
    small = await budget.take(1)
    large = asyncio.create_task(budget.take(50))
    await asyncio.sleep(0)
    assert not large.done()
    small.release()
    with await large:
        assert budget.used_bytes == 50
        assert budget.take_nowait(1) is None
    assert budget.used_bytes == 0


async def test_a_cancelled_waiter_lets_the_next_one_pass() -> None:
    budget = Budget(10)
    held = await budget.take(5)
    blocked = asyncio.create_task(budget.take(10))
    await asyncio.sleep(0)
    behind = asyncio.create_task(budget.take(5))
    await asyncio.sleep(0)
    assert not behind.done()
    blocked.cancel()
    (await behind).release()
    held.release()
    assert budget.used_bytes == 0


async def test_a_waiter_cancelled_after_it_was_served_gives_back() -> None:
    budget = Budget(10)
    held = await budget.take(10)
    waiter = asyncio.create_task(budget.take(10))
    await asyncio.sleep(0)
    held.release()
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert budget.used_bytes == 0


async def test_leases_shrink_and_are_given_back_once() -> None:
    budget = Budget(10)
    lease = await budget.take(8)
    lease.shrink(3)
    assert budget.used_bytes == 3
    lease.release()
    lease.release()
    assert budget.used_bytes == 0
    with pytest.raises(ValueError, match="grow"):
        (await budget.take(1)).shrink(2)


async def test_a_larger_budget_wakes_those_who_wait() -> None:
    budget = Budget(1)
    first = await budget.take(1)
    waiter = asyncio.create_task(budget.take(5))
    await asyncio.sleep(0)
    budget.resize(6)
    (await waiter).release()
    first.release()
    with pytest.raises(ConfigError):
        budget.resize(0)


def test_threads_with_their_own_loops_share_it() -> None:
    budget = Budget(100)
    highest: list[int] = []

    async def use() -> None:
        for _ in range(100):
            with await budget.take(40):
                highest.append(budget.used_bytes)
                await asyncio.sleep(0)

    threads = [threading.Thread(target=lambda: asyncio.run(use())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert len(highest) == 400
    assert max(highest) <= 100
    assert budget.used_bytes == 0


def test_a_waiter_whose_loop_was_closed_is_passed_over() -> None:
    budget = Budget(10)
    loop = asyncio.new_event_loop()
    first = loop.run_until_complete(budget.take(10))
    waiter = loop.create_task(budget.take(10))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()  # as when a program ends in the middle

    async def next_one() -> None:
        (await budget.take(10)).release()

    first.release()
    assert budget.used_bytes == 0
    asyncio.run(next_one())
    waiter._log_destroy_pending = False  # type: ignore[attr-defined]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_process_starts_with_nothing_held() -> None:
    async def hold() -> None:
        with await process_budget().take(1000):
            pid = os.fork()
            if pid == 0:
                os._exit(0 if process_budget().leased_bytes == 0 else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert process_budget().leased_bytes == 1000

    asyncio.run(hold())
