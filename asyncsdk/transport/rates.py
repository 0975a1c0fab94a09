"""The minimum rate, for transports that cannot look at their connections by a sweep of their own."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import anyio

from asyncsdk.transport.base import Timeouts

__all__ = ["LeastRate"]

_LEAST_PIECE_BYTES = 4096


class LeastRate:
    """Ends the block below it when a body moves more slowly than `Timeouts` allow, one window after the other.

    A window lasts ``rate_seconds``; what moved in it must reach ``rate_bytes`` per second. Nothing is measured before
    `begin` and after `pause`: connecting and waiting for a reply have timeouts of their own. The block that is ended
    is left without an error: whoever gets past it raises one. With ``rate_bytes`` 0 nothing is ever ended.

    Use it as a context manager in the task that moves the body, once.
    """

    __slots__ = ("_loop", "_moved", "_scope", "_seconds", "_timer", "_wanted", "piece_bytes")

    def __init__(self, timeouts: Timeouts) -> None:
        self._seconds = timeouts.rate_seconds
        self._wanted = timeouts.rate_bytes * timeouts.rate_seconds
        self._moved = 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._scope = anyio.CancelScope()
        # What is on its way is not counted yet: it may be an eighth of a window at most.
        self.piece_bytes: int | None = max(_LEAST_PIECE_BYTES, int(self._wanted / 8)) if self._wanted else None
        """The largest piece that may be counted at once; None: any."""

    def __enter__(self) -> Self:
        self._scope.__enter__()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.pause()
        return self._scope.__exit__(exc_type, exc, traceback)

    def begin(self) -> None:
        """A body begins to move."""
        self.pause()
        if self._wanted:
            self._moved = 0
            self._timer = self._loop.call_later(self._seconds, self._look)

    def moved(self, size_bytes: int) -> None:
        """Count bytes of the body."""
        self._moved += size_bytes

    def pause(self) -> None:
        """Nothing moves for a good reason."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        if self._moved < self._wanted:
            self._timer = None
            self._scope.cancel()
        else:
            self.begin()
