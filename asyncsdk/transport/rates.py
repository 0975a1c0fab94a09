"""The minimum rate, for transports that cannot look at their connections by a sweep of their own."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

import anyio

from asyncsdk.transport.base import Timeouts

__all__ = ["LeastRate"]

_COARSE_PIECE_BYTES = 64 * 1024
"""Where less than that must move in a whole window, smaller pieces would cost fast transfers more than they tell."""


class LeastRate:
    """Ends the block below it when a body moves more slowly than `Timeouts` allow, one window after the other.

    A window lasts ``rate_seconds``; what moved in it must reach ``rate_bytes`` per second. Nothing is measured before
    `begin` and after `pause`: connecting and waiting for a reply have timeouts of their own. The block that is ended
    is left without an error: whoever gets past it raises one. With ``rate_bytes`` 0 nothing is ever ended. A piece that
    is larger than what a whole window asks for may be moving fast enough unseen: while one is being sent nothing is
    ended, that it stands still is for the idle timeout to tell.

    Use it as a context manager in the task that moves the body, once.
    """

    __slots__ = ("_handed", "_left", "_loop", "_moved", "_scope", "_seconds", "_timer", "_wanted", "piece_bytes")

    def __init__(self, timeouts: Timeouts) -> None:
        self._seconds = timeouts.rate_seconds
        self._wanted = timeouts.rate_bytes * timeouts.rate_seconds
        self._moved = 0
        self._handed = 0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._left: float | None = None  # of a window that is held
        self._scope = anyio.CancelScope()
        self.piece_bytes: int | None = None
        """The largest piece that may be counted at once; None: any."""
        if self._wanted:
            # What is on its way is not counted yet: it may be an eighth of a window at most.
            is_coarse = self._wanted < _COARSE_PIECE_BYTES
            self.piece_bytes = _COARSE_PIECE_BYTES if is_coarse else int(self._wanted / 8)

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

    def handed(self, size_bytes: int) -> None:
        """A piece of the body is on its way; `moved` tells when it has left."""
        self._handed = size_bytes

    def moved(self, size_bytes: int) -> None:
        """Count bytes of the body."""
        self._moved += size_bytes
        self._handed = 0

    def pause(self) -> None:
        """Nothing moves for a good reason."""
        self._left = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def hold(self) -> None:
        """Leave out of account what follows, until `go_on`: a disk is slow, and not the other side."""
        if self._timer is not None:
            self._left = self._timer.when() - self._loop.time()
            self._timer.cancel()
            self._timer = None

    def go_on(self) -> None:
        """Go on with the window that is held, if there is one."""
        if self._left is not None:
            self._timer = self._loop.call_later(max(0.0, self._left), self._look)
            self._left = None

    def _look(self) -> None:
        if self._moved < self._wanted and self._handed < self._wanted:
            self._timer = None
            self._scope.cancel()
        else:
            self.begin()
