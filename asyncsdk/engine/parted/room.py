"""How many parts of one object are begun at once: as many as can be sent by now, and two that are ready to follow.

What is begun holds its bytes and its place in the queue: with one task for each part of a large object, four objects
would queue thousands of requests, and another object's first part would come last.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from asyncsdk.engine.lanes import Slots

__all__ = ["Room"]

_READY = 2
"""Parts that wait for a slot, so that none is idle while the next part is read."""


class Room:
    """Lets in as many parts as there are slots for parts, and two more; follows their number while it changes.

    Use it as a context manager in the task that begins the parts.

    Args:
        slots: Looked at, never taken.
        most: Parts at most, however many slots there are.
    """

    def __init__(self, slots: Slots, most: int) -> None:
        self._slots = slots
        self._most = most
        self._inside = 0
        self._changed = asyncio.Event()

    def __enter__(self) -> Self:
        self._slots.has_grown.append(self._changed.set)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._slots.has_grown.remove(self._changed.set)

    async def enter(self) -> None:
        """Wait until one more part may be begun, and count it."""
        while self._inside >= min(self._most, self._slots.part_limit + _READY):
            self._changed.clear()
            await self._changed.wait()
        self._inside += 1

    def leave(self) -> None:
        """A part has ended."""
        self._inside -= 1
        self._changed.set()
