"""When a run asks its feed for more, and for how many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple

from asyncsdk.engine.config import TransferConfig
from asyncsdk.engine.pace import Pace
from asyncsdk.engine.performing import is_large
from asyncsdk.engine.transfers import Download, Transfer, Upload

__all__ = ["Room", "Waiting"]

_PARKED_LARGE = 16
"""For each large object at once, so many may be put aside: other servers must not wait for what one of them delays, and
each has been prepared already (an upload that was begun, hundreds of signed URLs)."""


class Waiting(NamedTuple):
    """What nobody has begun.

    Attributes:
        small: Small transfers that may begin.
        large: Large ones.
        parked_large: Large ones whose server may not be asked now.
    """

    small: int
    large: int
    parked_large: int


class Room:
    """Waits until about half of what a feed would be asked for is needed: fewer, fuller calls.

    Of small transfers about two seconds of work are there, of large ones one to two for each that may be under way:
    signed URLs are made shortly before they are used. Transfers that are put aside because of their server do not
    count, so that others go on; they are among what may be pending.

    Args:
        config: What may be pending.
        pace: How many small transfers make two seconds of work.
        waiting: What nobody has begun.
    """

    def __init__(self, config: TransferConfig, pace: Pace, waiting: Callable[[], Waiting]) -> None:
        self._config = config
        self._pace = pace
        self._waiting = waiting
        self._large_at_once = max(config.large_objects, config.processes)
        self._large_share = 0.0  # of what was taken last
        self._event = asyncio.Event()

    def look(self) -> None:
        """Something began to move: there may be room now."""
        if self._is_little(self._waiting()):
            self._event.set()

    def open(self) -> None:
        """Something left the run: there may be room now."""
        self._event.set()

    async def wait(self, pending: Callable[[], int]) -> int:
        """Wait until there is room; returns how many transfers to ask for.

        Args:
            pending: How many were taken and not handed to the consumer yet.
        """
        most = self._config.max_pending
        while True:
            waiting, want = self._waiting(), self._pace.want
            free = most - pending()
            if self._is_little(waiting) and free >= max(1, min(want, most) // 2):
                if self._large_share:
                    more = 2 * self._large_at_once - waiting.large
                    want = min(want, max(1, int(more / self._large_share)))
                return min(want, free)
            await self.news()

    async def news(self) -> None:
        """Wait until something leaves the run, or begins to move."""
        self._event.clear()
        await self._event.wait()

    def took(self, transfers: Sequence[Transfer]) -> None:
        """Learn from what the feed gave."""
        large = sum(isinstance(one, (Upload, Download)) and is_large(one, self._config) for one in transfers)
        self._large_share = large / max(1, len(transfers))

    def _is_little(self, waiting: Waiting) -> bool:
        return (
            waiting.small <= self._pace.want // 2
            and waiting.large <= self._large_at_once
            and waiting.parked_large < _PARKED_LARGE * self._large_at_once
        )
