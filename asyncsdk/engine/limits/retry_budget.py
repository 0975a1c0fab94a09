"""How many retries a run may make: a share of what went well, so that a server that is dying is not hammered."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["RetryBudget"]


class RetryBudget:
    """Retries that a run may still make.

    Counting costs nothing per request: how many went well is asked when a retry is wanted.

    Args:
        share: Retries per request that went well.
        least: Retries that may be made though nothing went well.
        successes: How many requests went well so far.

    Attributes:
        used: Retries made.
        refused: Retries that were wanted and not made.
    """

    __slots__ = ("_before", "_least", "_share", "_successes", "refused", "used")

    def __init__(self, share: float, least: int, successes: Callable[[], int]) -> None:
        self._share = share
        self._least = least
        self._successes = successes
        self._before = successes()
        self.used = 0
        self.refused = 0

    def take(self) -> bool:
        """Count a retry; False: there is none left."""
        if self.used < self._least + self._share * (self._successes() - self._before):
            self.used += 1
            return True
        self.refused += 1
        return False
