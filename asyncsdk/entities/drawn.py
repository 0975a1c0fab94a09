"""What a feed reads ahead, drawn from the byte budget without a wait that could last for ever."""

from __future__ import annotations

import anyio

from asyncsdk.engine.budget import Lease, process_budget

__all__ = ["Drawn"]


class Drawn:
    """Memory for bytes that a feed holds until they are settled. For one task that reserves, and any that give back.

    Who holds bytes waits for nothing but what it will give back itself: two feeds never wait for each other. For that,
    what is held must be with the engine whenever `reserve` is called: that is how it is given back.

    Args:
        most_bytes: What may be held before nothing more is read; at most a quarter of the budget.

    Attributes:
        held_bytes: What is held; whoever holds more or less changes it.
    """

    def __init__(self, most_bytes: int) -> None:
        self.held_bytes = 0
        self._most = most_bytes
        self._lease: Lease | None = None
        self._room = anyio.Event()

    def share(self, wanted_bytes: int, parts: int = 1) -> int:
        """Return how much of *wanted_bytes* may be read at once, when that is done *parts* times."""
        return max(1, min(wanted_bytes, process_budget().limit_bytes // 4 // parts))

    async def reserve(self, size_bytes: int) -> None:
        """Return when *size_bytes* more may be held."""
        budget = process_budget()
        while self.held_bytes > min(self._most, budget.limit_bytes // 4):
            await self._wait_for_room()
        while (missing := self.held_bytes + size_bytes - self._drawn_bytes) > 0:
            self.trim()
            more = budget.take_nowait(missing) if self._lease is not None else await budget.take(missing)
            if more is None:
                await self._wait_for_room()
            elif self._lease is None:
                self._lease = more
            else:
                self._lease.absorb(more)

    def trim(self) -> None:
        """Give back what is drawn and not held; once for many changes, each would be looked at by everybody else."""
        if self._lease is not None and self.held_bytes < self._lease.size_bytes:
            self._lease.shrink(self.held_bytes)
            if not self.held_bytes:
                self._lease = None
        self._room.set()

    def release(self) -> None:
        """Give everything back: what was held is nobody's any more."""
        self.held_bytes = 0
        self.trim()

    @property
    def _drawn_bytes(self) -> int:
        return 0 if self._lease is None else self._lease.size_bytes

    async def _wait_for_room(self) -> None:
        self._room = anyio.Event()
        await self._room.wait()
