"""Who goes next: the queue of each lane, and the slots that both lanes share.

Small transfers (one request each) and large ones (many requests) wait in lanes of their own, so that neither has to
get past the other. What they compete for is the slots: one per request in flight. How many slots each lane may have is
changed while they are in use (`asyncsdk.engine.limits`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from typing import Generic, Literal, TypeVar

from asyncsdk.engine.waits import WaitReason, waiting

__all__ = ["Lane", "LaneName", "Slots"]

T = TypeVar("T")
LaneName = Literal["small", "part"]


class Lane(Generic[T]):
    """A queue that workers pull from. One event loop only; not bounded itself: who fills it counts.

    Attributes:
        is_closed: Whether nothing is put any more.
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.is_closed = False

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for an item."""
        return any(not future.done() for future in self._waiting)

    def put(self, item: T) -> None:
        """Queue *item* and wake one worker."""
        self._items.append(item)
        self._wake_one()

    async def get(self) -> T | None:
        """Return the next item, or None when the lane is closed and empty."""
        while not self._items:
            if self.is_closed:
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
        self.is_closed = True
        while self._waiting:
            self._wake_one()

    def drain(self) -> list[T]:
        """Return and forget everything that waits."""
        items = list(self._items)
        self._items.clear()
        return items

    def drop(self, is_unwanted: Callable[[T], bool]) -> int:
        """Forget what waits and is not wanted any more; returns how many."""
        kept = [item for item in self._items if not is_unwanted(item)]
        dropped = len(self._items) - len(kept)
        self._items = deque(kept)
        return dropped

    def _wake_one(self) -> None:
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return


class Slots:
    """Requests that may be in flight at once: of each lane, and of both together. One event loop only.

    Within a lane first come, first served. While both lanes wait they take turns: a thousand parts cannot starve small
    files, nor the other way round, even with a single slot.

    Args:
        count: Requests at once, of both lanes together.
        small: Of small objects among them, to begin with; None: as many as there are.
        part: Of parts among them, to begin with; None: as many as there are.

    Attributes:
        small_limit: Requests at once for small objects.
        part_limit: Requests at once for parts.
        is_wanted: Whether who holds one for small objects should give it back after this object: somebody else waits
            for it, or there are fewer by now.
        has_grown: Called after a limit became larger, each with nothing.
        waited_seconds: Sum of what was waited in `hold`.
    """

    def __init__(self, count: int, *, small: int | None = None, part: int | None = None) -> None:
        self._count = count
        self.small_limit = count if small is None else min(small, count)
        self.part_limit = count if part is None else min(part, count)
        self._small_used = 0
        self._part_used = 0
        self._waiting: dict[LaneName, deque[Callable[[], bool]]] = {"small": deque(), "part": deque()}
        self._turn: LaneName = "small"
        self.is_wanted = False
        self.has_grown: list[Callable[[], None]] = []
        self.waited_seconds = 0.0

    @property
    def free(self) -> int:
        """Slots that nobody holds, of both lanes together; fewer than none after there became fewer."""
        return self._count - self._small_used - self._part_used

    def used(self, lane: LaneName) -> int:
        """How many are held for *lane*."""
        return self._small_used if lane == "small" else self._part_used

    def limit(self, lane: LaneName) -> int:
        """How many may be held for *lane*."""
        return self.small_limit if lane == "small" else self.part_limit

    def has_free(self, lane: LaneName) -> bool:
        """Whether one could be taken for *lane* with nobody waiting in any."""
        return self._is_free(lane) and not self._waiting["small"] and not self._waiting["part"]

    def resize(self, *, count: int | None = None, small: int | None = None, part: int | None = None) -> None:
        """Change how many there are; those that are held stay so until they are given back."""
        before = (self.small_limit, self.part_limit, self._count)
        if count is not None:
            self._count = count
        self.small_limit = min(self.small_limit if small is None else small, self._count)
        self.part_limit = min(self.part_limit if part is None else part, self._count)
        self._serve()
        after = (self.small_limit, self.part_limit, self._count)
        if any(now > was for now, was in zip(after, before, strict=True)):
            for tell in list(self.has_grown):
                tell()

    def try_take(self, lane: LaneName = "small") -> bool:
        """Take a slot if one is free and nobody of the lane was there before."""
        if self._waiting[lane] or not self._is_free(lane):
            return False
        self._take_one(lane)
        self._look()
        return True

    def wait(self, lane: LaneName, take: Callable[[], bool]) -> None:
        """Queue for a slot: *take* is called when there is one, and returns False when it is no longer wanted.

        It may be called at once, and must neither wait nor give a slot back before it returns.
        """
        self._waiting[lane].append(take)
        self._serve()  # those that wait may all have been cancelled

    def release(self, lane: LaneName = "small") -> None:
        """Give a slot back."""
        self._take_one_back(lane)
        self._serve()

    @asynccontextmanager
    async def hold(self, lane: LaneName) -> AsyncIterator[None]:
        """Hold one slot; do not wait for memory while holding it."""
        if not self.try_take(lane):
            await self._take(lane)
        try:
            yield
        finally:
            self.release(lane)

    async def _take(self, lane: LaneName) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def take() -> bool:
            if future.done():
                return False
            future.set_result(None)
            return True

        started = monotonic()
        self.wait(lane, take)
        try:
            with waiting(WaitReason.SLOT):
                await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self.release(lane)
            raise
        finally:
            self.waited_seconds += monotonic() - started

    def _is_free(self, lane: LaneName) -> bool:
        if self._small_used + self._part_used >= self._count:
            return False
        return self._small_used < self.small_limit if lane == "small" else self._part_used < self.part_limit

    def _take_one(self, lane: LaneName) -> None:
        if lane == "small":
            self._small_used += 1
        else:
            self._part_used += 1

    def _serve(self) -> None:
        while self._small_used + self._part_used < self._count:
            first = self._turn
            second: LaneName = "part" if first == "small" else "small"
            if self._serve_one(first):
                self._turn = second
            elif not self._serve_one(second):
                break
        self._look()

    def _serve_one(self, lane: LaneName) -> bool:
        waiting = self._waiting[lane]
        while waiting and self._is_free(lane):
            take = waiting.popleft()
            self._take_one(lane)
            if take():
                return True
            self._take_one_back(lane)
        return False

    def _take_one_back(self, lane: LaneName) -> None:
        if lane == "small":
            self._small_used -= 1
        else:
            self._part_used -= 1

    def _look(self) -> None:
        # Parts that wait because they have all that is theirs do not want the slots of small objects.
        self.is_wanted = (
            bool(self._waiting["small"])
            or (bool(self._waiting["part"]) and self._part_used < self.part_limit)
            or self._small_used > self.small_limit
        )
