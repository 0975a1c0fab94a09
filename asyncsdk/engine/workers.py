"""The workers of a run: tasks that move what the express lane does not take, what it hands over, and what is large."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from anyio.abc import TaskGroup

from asyncsdk.engine.config import TransferConfig
from asyncsdk.engine.downloads import LargeObject
from asyncsdk.engine.lanes import Lane
from asyncsdk.engine.performing import perform, perform_large
from asyncsdk.engine.transfers import Download, Outcome, Upload
from asyncsdk.engine.watching import Watch
from asyncsdk.engine.work import Work

__all__ = ["Workers"]

_Item = Work | Upload | Download


class Workers:
    """Pull from two lanes, and move what they pulled, one object at a time each.

    Those of the large lane are there from the start. In the small lane there is one more whenever all are busy and
    something waits, as long as there may be more: most runs need few.

    Args:
        config: How many there may be.
        watch: Told when a large object is started.
        guard: Awaits a coroutine function; what it raises ends the run.
        start: Makes the work of a transfer that nobody has begun.
        hold_back: Awaited before a transfer is moved; returns when there is room for what it brings.
        finish: Takes outcomes.
        on_pulled: Called after something left the small lane.
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

    def begin(self, group: TaskGroup) -> None:
        """Work, in tasks of *group*, until `close` was called and both lanes are empty."""
        group.start_soon(self._hire, group)
        for _ in range(self._config.large_objects):
            group.start_soon(self._guard, self._move_large)

    def put_small(self, item: _Item) -> None:
        """Queue *item*; there is one worker more if all are busy and there may be."""
        if not self.small.is_awaited and self._hired < self._config.most_concurrency:
            self._help_wanted.set()
        self.small.put(item)

    def put_large(self, item: _Item, found: LargeObject | None) -> None:
        """Queue *item*.

        Args:
            found: What is known of a download already.
        """
        self.large.put((item, found))

    def close(self) -> None:
        """Let the workers end once nothing waits. Calling it again does nothing."""
        self.small.close()
        self._help_wanted.set()
        self.large.close()

    async def _hire(self, group: TaskGroup) -> None:
        while not self.small.is_closed and self._hired < self._config.most_concurrency:
            await self._help_wanted.wait()
            self._help_wanted.clear()
            for _ in range(min(len(self.small), self._config.most_concurrency - self._hired)):
                self._hired += 1
                group.start_soon(self._guard, self._move_small)

    async def _move_small(self) -> None:
        while (item := await self.small.get()) is not None:
            self._on_pulled()
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

    async def _move_large(self) -> None:
        while (item := await self.large.get()) is not None:
            given, found = item
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
