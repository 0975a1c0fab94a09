"""What the connections of one transport hold of the byte budget."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncsdk.engine.budget import Budget

__all__ = ["Allowance"]


class Allowance:
    """A `Memory` for one transport, drawn from a budget. Made by `Budget.allowance`, in the transport's event loop.

    A number, not one lease for each connection: an engine that was never closed loses what it held when it is
    collected, and no budget shrinks for ever.

    Attributes:
        held_bytes: What is held of the budget.
        least_bytes: What the transport cannot do without.
        is_squeezed: See `Memory.is_squeezed`; set by the budget.
        is_refused: It was told that there is no room, and not yet that there is some; set by the budget.
        wanted_bytes: What it was refused last, and has not looked for again since; set by the budget.
    """

    __slots__ = (
        "__weakref__",
        "_budget",
        "_is_told",
        "_loop",
        "_on_change",
        "held_bytes",
        "is_refused",
        "is_squeezed",
        "least_bytes",
        "wanted_bytes",
    )

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._loop = asyncio.get_running_loop()
        self._on_change: Callable[[], None] | None = None
        self._is_told = False
        self.held_bytes = 0
        self.least_bytes = 0
        self.is_squeezed = False
        self.is_refused = False
        self.wanted_bytes = 0

    def begin(self, least_bytes: int, on_change: Callable[[], None]) -> None:
        """See `Memory.begin`."""
        self.least_bytes = least_bytes
        self._on_change = on_change
        self._budget.admit(self)

    def take(self, size_bytes: int, *, is_needed: bool = False) -> bool:
        """See `Memory.take`."""
        return self._budget.allow(self, size_bytes, is_needed=is_needed)

    def give_back(self, size_bytes: int) -> None:
        """See `Memory.give_back`."""
        self._budget.allow(self, -size_bytes, is_needed=True)

    def end(self) -> None:
        """See `Memory.end`."""
        self._on_change = None
        self._budget.dismiss(self)

    def tell(self) -> None:
        """Have the transport look at what changed, in its event loop. From any thread, and never at once."""
        if self._is_told:
            return
        self._is_told = True
        with contextlib.suppress(RuntimeError):  # its event loop was closed: nobody is there to be told
            self._loop.call_soon_threadsafe(self._tell)

    @property
    def is_gone(self) -> bool:
        """Whether its event loop was closed: its connections are gone, whoever still holds them."""
        return self._loop.is_closed()

    def _tell(self) -> None:
        self._is_told = False
        wanted, self.wanted_bytes = self.wanted_bytes, 0  # who still wants it asks again now
        if self._on_change is not None:
            self._on_change()
        if wanted and not self.wanted_bytes:
            self._budget.look_again()  # others may have stood back for this one
