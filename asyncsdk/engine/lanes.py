"""Who goes next: the queue of each lane, and the slots that both lanes share.

Small transfers (one request each) and large ones (many requests) wait in lanes of their own, so that neither has to
get past the other. What they compete for is the slots: one per request in flight.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, Literal, TypeVar

__all__ = ["Lane", "LaneName", "Slots"]

T = TypeVar("T")
LaneName = Literal["small", "part"]


class Lane(Generic[T]):
    """A queue that workers pull from. One event loop only; not bounded itself: who fills it counts."""

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Queue *item* and wake one worker."""
        self._items.append(item)
        self._wake_one()

    async def get(self) -> T | None:
        """Return the next item, or None when the lane is closed and empty."""
        while not self._items:
            if self._is_closed:
                return None
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            try:
                await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled() and self._items:
                    self._wake_one()  # the item this one was woken for needs somebody else
                raise
        return self._items.popleft()

    def close(self) -> None:
        """Let workers end once the lane is empty."""
        self._is_closed = True
        while self._waiting:
            self._wake_one()

    def drain(self) -> list[T]:
        """Return and forget everything that waits."""
        items = list(self._items)
        self._items.clear()
        return items

    def _wake_one(self) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return


class Slots:
    """Requests that may be in flight at once, shared by both lanes. One event loop only.

    Within a lane first come, first served. While both lanes wait they take turns: a thousand parts cannot starve small
    files, nor the other way round, even with a single slot.

    Args:
        count: Requests at once.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: dict[LaneName, deque[Callable[[], bool]]] = {"small": deque(), "part": deque()}
        self._turn: LaneName = "small"

    @property
    def free(self) -> int:
        """Slots that nobody holds."""
        return self._free

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for one."""
        return bool(self._waiting["small"] or self._waiting["part"])

    def try_take(self) -> bool:
        """Take a slot if one is free and nobody was there before."""
        if self._free and not self.is_wanted:
            self._free -= 1
            return True
        return False

    def wait(self, lane: LaneName, take: Callable[[], bool]) -> None:
        """Queue for a slot: *take* is called when there is one, and returns False when it is no longer wanted.

        It may be called at once, and must neither wait nor give a slot back before it returns.
        """
        self._waiting[lane].append(take)
        self._serve()  # those that wait may all have been cancelled

    def release(self) -> None:
        """Give a slot back."""
        self._free += 1
        self._serve()

    @asynccontextmanager
    async def hold(self, lane: LaneName) -> AsyncIterator[None]:
        """Hold one slot; do not wait for memory while holding it."""
        if not self.try_take():
            await self._take(lane)
        try:
            yield
        finally:
            self.release()

    async def _take(self, lane: LaneName) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def take() -> bool:
            if future.done():
                return False
            future.set_result(None)
            return True

        self.wait(lane, take)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release()
            raise

    def _serve(self) -> None:
        while self._free:
            first = self._turn
            second: LaneName = "part" if first == "small" else "small"
            if self._serve_one(first):
                self._turn = second
            elif not self._serve_one(second):
                return

    def _serve_one(self, lane: LaneName) -> bool:
        waiting = self._waiting[lane]
        while waiting:
            take = waiting.popleft()
            self._free -= 1
            if take():
                return True
            self._free += 1
        return False
