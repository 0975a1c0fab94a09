"""Whether files answer fast enough to be used in the event loop itself."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["FilePace"]

SLOW_SECONDS = 0.002
"""Mean time of one small file from which on files belong in threads: every connection waits that long for each."""

PAUSE_SECONDS = 2.0
"""How long threads do it before the loop tries again."""

_WEIGHT = 1 / 32
"""Of the latest file in the mean: one hiccup of 60 ms, or some twenty files of 5 ms each, are too slow."""


class FilePace:
    """Follows how long small files take in the loop.

    A thread for each file costs several times what the file costs on a fast disk; on a slow one (full write cache,
    network storage) the loop would stand still instead.

    Args:
        clock: Seconds, monotonic.
    """

    __slots__ = ("_clock", "_mean", "_slow_until")

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._mean = 0.0
        self._slow_until = float("-inf")

    @property
    def is_slow(self) -> bool:
        """Whether the next file belongs in a thread."""
        return self._clock() < self._slow_until

    def took(self, seconds: float) -> None:
        """Count one file that was used in the loop."""
        self._mean += _WEIGHT * (seconds - self._mean)
        if self._mean > SLOW_SECONDS:
            self._slow_until = self._clock() + PAUSE_SECONDS
            # Still slow when it tries again: a few files show it. Fast again: as many bring the mean down.
            self._mean = SLOW_SECONDS / 2
