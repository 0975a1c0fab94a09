"""The seam between transports and the budget that their buffers draw from.

A transport takes memory when it opens a connection, and gives it back when that is closed: as much as one may need for
whatever it carries. So requests cost nothing here, and when there is none left there are fewer connections, never a
request that fails. Large bodies take some more while they are sent, if there is some; else they go in smaller pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

__all__ = ["BudgetedTransport", "Memory", "Unbounded"]


class Memory(Protocol):
    """What a transport holds of a budget. To be used in the event loop of the transport alone."""

    @property
    def is_squeezed(self) -> bool:
        """Whether connections hold more than their share while others wait, whoever they are: close those that are
        done."""

    def begin(self, least_bytes: int, on_change: Callable[[], None]) -> None:
        """Be told of changes.

        Args:
            least_bytes: What the transport cannot do without: its own buffers, and one connection.
            on_change: Called in the event loop when there is room again for who was told that there is none, and when
                ``is_squeezed`` changed.
        """

    def take(self, size_bytes: int, *, is_needed: bool = False) -> bool:
        """Take some if there is some. With *is_needed* there always is: nothing would ever be given back without it."""

    def give_back(self, size_bytes: int) -> None:
        """Give some of it back."""

    def end(self) -> None:
        """Give everything back, for good. Calling it again does nothing."""


class Unbounded:
    """As much memory as is wanted: for a transport that serves no engine."""

    is_squeezed = False

    def begin(self, least_bytes: int, on_change: Callable[[], None]) -> None:
        """There are no changes."""

    def take(self, size_bytes: int, *, is_needed: bool = False) -> bool:
        """Take some; there always is some."""
        return True

    def give_back(self, size_bytes: int) -> None:
        """Nobody counts it."""

    def end(self) -> None:
        """Nobody counts it."""


@runtime_checkable
class BudgetedTransport(Protocol):
    """A `Transport` whose buffers can draw from a budget."""

    def draw_on(self, memory: Memory) -> None:
        """Hold every connection to *memory*, from now on. The first one counts, and a transport that is in use
        already keeps what it has."""
