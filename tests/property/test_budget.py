"""The byte budget: never exceeded, and nobody waits for bytes that are free, whatever is taken, given and cancelled."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsdk.engine.budget import Budget, Lease

LIMIT = 100

steps = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(1, 130)),
        st.tuples(st.just("take_nowait"), st.integers(1, 130)),
        st.tuples(st.just("release"), st.integers(0, 20)),
        st.tuples(st.just("shrink"), st.integers(0, 20)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("turn"), st.integers(1, 3)),
    ),
    max_size=60,
)


@settings(deadline=None, max_examples=300)
@given(steps)
def test_any_order_of_takes_and_gives_keeps_the_bound_and_ends(doing: list[tuple[str, int]]) -> None:
    """What is held never exceeds the limit, but for one lease that is larger than all of it and alone; who waits gets
    it once the others have given theirs back, in the order in which they asked."""
    asyncio.run(_play(doing))


async def _play(doing: list[tuple[str, int]]) -> None:
    budget = Budget(LIMIT)
    leases: list[Lease] = []
    queued: list[int] = []
    waiting: dict[int, asyncio.Task[None]] = {}

    async def take(number: int, size: int) -> None:
        turns: list[int] = []
        asyncio.get_running_loop().call_soon(turns.append, 1)
        had_to_wait = budget.is_wanted
        leases.append(await budget.take(size))
        if turns:
            queued.append(number)  # woken in the order in which bytes were given
        else:
            assert not had_to_wait, "somebody who waited was passed over"

    def check() -> None:
        held = [lease.size_bytes for lease in leases if lease.size_bytes]
        assert sum(held) <= budget.leased_bytes
        assert budget.leased_bytes <= LIMIT or len(held) <= 1

    for number, (what, value) in enumerate(doing):
        if what == "take":
            waiting[number] = asyncio.create_task(take(number, value))
        elif what == "take_nowait":
            lease = budget.take_nowait(value)
            assert lease is None or not budget.is_wanted, "somebody who waited was passed over"
            leases += [] if lease is None else [lease]
        elif what == "release" and leases:
            leases[value % len(leases)].release()
        elif what == "shrink" and leases:
            lease = leases[value % len(leases)]
            lease.shrink(lease.size_bytes // 2)
        elif what == "cancel" and waiting:
            waiting[sorted(waiting)[value % len(waiting)]].cancel()
        elif what == "turn":
            for _ in range(value):
                await asyncio.sleep(0)
        check()
    # Everybody gives back what they have, for as long as there is somebody: nobody is left waiting.
    for _ in range(3 * len(doing) + 3):
        await asyncio.sleep(0)
        check()
        for lease in leases:
            lease.release()
        check()
    ended = await asyncio.wait_for(asyncio.gather(*waiting.values(), return_exceptions=True), 10)
    assert all(one is None or isinstance(one, asyncio.CancelledError) for one in ended)
    for lease in leases:
        lease.release()
    assert budget.leased_bytes == 0
    assert not budget.is_wanted
    assert queued == sorted(queued), "whoever asked first is served first"
