"""How many transfers to ask a feed for: about two seconds of work."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["MAX_WANT", "MIN_WANT", "Pace"]

MIN_WANT = 64
MAX_WANT = 1000
_SECONDS_OF_WORK = 2.0
_WINDOW_SECONDS = 0.25
_WEIGHT = 0.5
"""Of the latest window in the running mean: follows a change of rate within a second."""


class Pace:
    """Follows how many transfers finish per second.

    Enough for one control call to serve hundreds of small files, few enough that signed URLs are minted shortly before
    they are used.

    Attributes:
        want: How many transfers make two seconds of work, within 64 and 1,000.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._count = 0
        self._rate = 0.0
        self.want = MIN_WANT

    def finished(self) -> None:
        """Count one transfer."""
        self._count += 1
        elapsed = self._clock() - self._since
        if elapsed >= _WINDOW_SECONDS:
            latest = self._count / elapsed
            self._rate = latest if not self._rate else self._rate + _WEIGHT * (latest - self._rate)
            self._since += elapsed
            self._count = 0
            self.want = max(MIN_WANT, min(MAX_WANT, int(self._rate * _SECONDS_OF_WORK)))
