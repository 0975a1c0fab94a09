"""Time that passes only when a test says so."""

from __future__ import annotations

import heapq
from collections.abc import Callable

__all__ = ["Clock", "Timer"]


class Timer:
    """What `Clock.call_later` gives."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class Clock:
    """A clock, and the timers that run by it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = 0

    def __call__(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(callback)
        self._count += 1
        heapq.heappush(self._timers, (self.now + delay, self._count, timer))
        return timer

    def pass_time(self, seconds: float) -> None:
        """Let *seconds* go by, and everything happen that is due in them."""
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            self.now = max(self.now, due)
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()
        self.now = end
