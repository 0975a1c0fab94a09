"""The time that a run may take. When it is up, nothing moves any more, and what is not done has failed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio

from asyncsdk.engine.transfers import Outcome
from asyncsdk.engine.work import Work
from asyncsdk.errors import DeadlineExceeded

__all__ = ["Deadline"]


class Deadline:
    """Runs from `begin` to `stop`.

    Args:
        seconds: How long; None: for ever.
        on_over: Called when the time is up.

    Attributes:
        scope: To be entered by what moves things; cancelled when the time is up.
        is_over: Whether the time was up.
    """

    def __init__(self, seconds: float | None, on_over: Callable[[], None]) -> None:
        self._seconds = seconds
        self._on_over = on_over
        self._timer: asyncio.TimerHandle | None = None
        self.scope = anyio.CancelScope()
        self.is_over = False

    def begin(self) -> None:
        """Let the time run."""
        if self._seconds is not None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._time_is_up)

    def stop(self) -> None:
        """Cancel nothing from now on. Calling it again does nothing."""
        if self._timer is not None:
            self._timer.cancel()

    def failed(self, work: Work) -> Outcome:
        """Return the outcome of not having been done in time."""
        name, seconds = work.transfer.name, self._seconds
        return work.failed(DeadlineExceeded(f"{name}: not done within the {seconds:g} s of this run", source=name))

    def _time_is_up(self) -> None:
        self.is_over = True
        self.scope.cancel()
        self._on_over()
