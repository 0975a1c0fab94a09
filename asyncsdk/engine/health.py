"""Whether anything gets through at all."""

from __future__ import annotations

__all__ = ["Health"]


class Health:
    """Counts what found no connection though it was tried again and again, since the last answer of any server.

    While it says that the network is down, things are tried once instead of again and again: with a server gone for
    good, thousands of objects would wait for minutes, one after the other, for what the first ones found out already.
    The first answer ends that.

    Args:
        patience: How many must have failed after all their attempts.
    """

    __slots__ = ("_failed", "_patience")

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._failed = 0

    @property
    def is_down(self) -> bool:
        """Whether nothing gets through."""
        return self._failed >= self._patience

    def answered(self) -> None:
        """A server answered, whatever it said."""
        self._failed = 0

    def gave_up(self) -> None:
        """Something found no connection and is not tried again."""
        self._failed += 1
