"""The seam between transports and whoever limits their bytes per second."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

__all__ = ["PacedTransport", "Turn", "Turnstile"]


class Turn(Protocol):
    """The place of one who waits at a `Turnstile`."""

    def cancel(self) -> None:
        """Wait no longer. Calling it again, or after the turn came, does nothing."""


class Turnstile(Protocol):
    """What bytes pass through when there is a limit of them per second. Of one event loop."""

    @property
    def piece_bytes(self) -> int:
        """How many to move in one turn at most."""

    def passes(self) -> bool:
        """Whether some may move now."""

    def charge(self, count: float, /) -> None:
        """Count those that moved, right after they did."""

    def wait(self, callback: Callable[[], None], /) -> Turn:
        """Call *callback* in the event loop when some may move."""

    async def take(self, count: float, /) -> None:
        """Wait until some may move, and count *count* of them."""


@runtime_checkable
class PacedTransport(Protocol):
    """A `Transport` that can hold the bytes of bodies to so many per second."""

    def pace(self, sent: Turnstile | None, received: Turnstile | None) -> None:
        """From now on, let bytes of bodies pass these; None: as many as there are. May change at any time."""
