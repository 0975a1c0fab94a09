"""Who goes next: the queue of each lane, and the slots that both lanes share.

Small transfers (one request each) and large ones (many requests) wait in lanes of their own, so that neither has to
get past the other. What they compete for is the slots: one per request in flight.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
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
        self._waiting: dict[LaneName, deque[asyncio.Future[None]]] = {"small": deque(), "part": deque()}
        self._turn: LaneName = "small"

    @property
    def free(self) -> int:
        """Slots that nobody holds."""
        return self._free

    @asynccontextmanager
    async def hold(self, lane: LaneName) -> AsyncIterator[None]:
        """Hold one slot; do not wait for memory while holding it."""
        await self._take(lane)
        try:
            yield
        finally:
            self._free += 1
            self._serve()

    async def _take(self, lane: LaneName) -> None:
        if self._free and not self._waiting["small"] and not self._waiting["part"]:
            self._free -= 1
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[lane].append(future)
        self._serve()  # those that wait may all have been cancelled
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._free += 1
                self._serve()
            raise

    def _serve(self) -> None:
        while self._free:
            first = self._turn
            second: LaneName = "part" if first == "small" else "small"
            future = self._next(first)
            if future is not None:
                self._turn = second
            else:
                future = self._next(second)
            if future is None:
                return
            self._free -= 1
            future.set_result(None)

    def _next(self, lane: LaneName) -> asyncio.Future[None] | None:
        waiting = self._waiting[lane]
        while waiting:
            future = waiting.popleft()
            if not future.done():
                return future
        return None
