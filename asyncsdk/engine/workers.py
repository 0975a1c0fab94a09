"""The workers of a run: tasks that move what the express lane does not take, what it hands over, and what is large."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from anyio.abc import TaskGroup

from asyncsdk.engine.config import TransferConfig
from asyncsdk.engine.downloads import LargeObject
from asyncsdk.engine.lanes import Lane
from asyncsdk.engine.limits.origins import Origins
from asyncsdk.engine.parking import Parking
from asyncsdk.engine.performing import perform, perform_large
from asyncsdk.engine.transfers import Download, Outcome, Upload
from asyncsdk.engine.watching import Watch
from asyncsdk.engine.work import Work

__all__ = ["Workers"]

_Item = Work | Upload | Download


class Workers:
    """Pull from two lanes, and move what they pulled, one object at a time each.

    Those of the large lane are there from the start. In the small lane there is one more whenever all are busy and
    something waits, as long as there may be more: most runs need few. Those that wait for a server which asked for a
    pause, or is out, do not count: for each of them another one may go on with what is for other servers.

    Args:
        config: How many there may be.
        origins: Who waits for a server.
        parking: Where transfers wait whose server may not be asked now.
        watch: Told when a large object is started.
        guard: Awaits a coroutine function; what it raises ends the run.
        start: Makes the work of a transfer that nobody has begun.
        hold_back: Awaited before a transfer is moved; returns when there is room for what it brings.
        finish: Takes outcomes.
        on_pulled: Called after something left one of the lanes.
        on_taken_up: Called when a worker of the small lane goes on with what somebody else had begun.
        on_cancelled: Told of work in the middle of which its worker was cancelled.

    Attributes:
        small: What waits for a worker of the small lane; filled by `put_small`.
        large: The same of the large lane, with what is known of the object already.
    """

    def __init__(
        self,
        config: TransferConfig,
        watch: Watch,
        *,
        origins: Origins,
        parking: Parking,
        guard: Callable[[Callable[[], Coroutine[Any, Any, None]]], Coroutine[Any, Any, None]],
        start: Callable[[Upload | Download], Work],
        hold_back: Callable[[Upload | Download], Awaitable[None]],
        finish: Callable[[Outcome], None],
        on_pulled: Callable[[], None],
        on_taken_up: Callable[[], None],
        on_cancelled: Callable[[Work], None],
    ) -> None:
        self._config = config
        self._watch = watch
        self._guard = guard
        self._start = start
        self._hold_back = hold_back
        self._finish = finish
        self._on_pulled = on_pulled
        self._on_taken_up = on_taken_up
        self._on_cancelled = on_cancelled
        self.small: Lane[_Item] = Lane()
        self.large: Lane[tuple[_Item, LargeObject | None]] = Lane()
        self._help_wanted = asyncio.Event()
        self._hired = 0
        self._large_hired = 0
        self._origins = origins
        self._parking = parking

    def begin(self, group: TaskGroup) -> None:
        """Work, in tasks of *group*, until `close` was called and both lanes are empty."""
        group.start_soon(self._hire, group)
        self._hire_large(group, self._config.large_objects)
        self._origins.has_begun_waiting.append(self._look_for_help)

    def put_small(self, item: _Item) -> None:
        """Queue *item*; there is one worker more if all are busy and there may be."""
        if not self.small.is_awaited and self._room_for_small > 0:
            self._help_wanted.set()
        self.small.put(item)

    def put_large(self, item: _Item, found: LargeObject | None) -> None:
        """Queue *item*.

        Args:
            found: What is known of a download already.
        """
        self.large.put((item, found))
        self._look_for_help()

    def close(self) -> None:
        """Let the workers end once nothing waits. Calling it again does nothing."""
        self.small.close()
        self._help_wanted.set()
        self.large.close()

    def end(self) -> None:
        """Hear no more of servers. Calling it again does nothing."""
        if self._look_for_help in self._origins.has_begun_waiting:
            self._origins.has_begun_waiting.remove(self._look_for_help)

    @property
    def _room_for_small(self) -> int:
        """How many more workers there may be in the small lane; fewer than none: some have become too many."""
        return self._config.most_concurrency + self._origins.waiting_in("small") - self._hired

    @property
    def _room_for_large(self) -> int:
        return self._config.large_objects + self._origins.waiting_in("part") - self._large_hired

    def _look_for_help(self) -> None:
        """Hire when something waits and all are busy, some of them with waiting for a server."""
        is_short = len(self.small) and not self.small.is_awaited and self._room_for_small > 0
        if is_short or (len(self.large) and not self.large.is_awaited and self._room_for_large > 0):
            self._help_wanted.set()

    async def _hire(self, group: TaskGroup) -> None:
        while not self.small.is_closed:
            await self._help_wanted.wait()
            self._help_wanted.clear()
            for _ in range(min(len(self.small), self._room_for_small)):
                self._hired += 1
                group.start_soon(self._guard, self._move_small)
            self._hire_large(group, min(len(self.large), self._room_for_large))

    def _hire_large(self, group: TaskGroup, count: int) -> None:
        for _ in range(count):
            self._large_hired += 1
            group.start_soon(self._guard, self._move_large)

    async def _move_small(self) -> None:
        while self._room_for_small >= 0 and (item := await self.small.get()) is not None:
            self._on_pulled()
            if not isinstance(item, Work) and self._parking.takes(item, only_out=True):
                continue
            if isinstance(item, Work):
                work = item
                self._on_taken_up()
            else:
                work = self._start(item)
            try:
                await self._hold_back(work.transfer)
                result = await perform(work)
            except asyncio.CancelledError:
                self._on_cancelled(work)
                raise
            if isinstance(result, Outcome):
                self._finish(result)
            else:
                self.put_large(work, result)

        self._hired -= 1

    async def _move_large(self) -> None:
        while self._room_for_large >= 0 and (item := await self.large.get()) is not None:
            self._on_pulled()
            given, found = item
            if not isinstance(given, Work) and self._parking.takes(given):
                continue
            if isinstance(given, Work):
                work = given
            else:
                work = self._start(given)
                self._watch.object_started(work.transfer)
            try:
                await self._hold_back(work.transfer)
                outcome = await perform_large(work, found)
            except asyncio.CancelledError:
                self._on_cancelled(work)
                raise
            self._finish(outcome)
        self._large_hired -= 1
