"""The byte budget: how much memory buffers may hold, one for the whole process.

Everything that holds bytes of objects for longer than one chunk draws from it: parts of streams, downloads into
memory, ranges that wait for their turn. Engines in several threads share it, whatever their event loops. Whoever asked
first is served first; a request larger than the whole budget is served alone.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Self

from asyncsdk.engine.config import MiB
from asyncsdk.engine.waits import WaitReason, waiting
from asyncsdk.errors import ConfigError

__all__ = ["DEFAULT_MEMORY_BYTES", "Budget", "Lease", "process_budget"]

DEFAULT_MEMORY_BYTES = 256 * MiB


@dataclass(slots=True, eq=False)
class _Waiter:
    size_bytes: int
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[None]
    is_granted: bool = field(default=False)


class Lease:
    """Bytes taken from a budget; `release` gives them back, once."""

    __slots__ = ("_budget", "size_bytes")

    def __init__(self, budget: Budget, size_bytes: int) -> None:
        self._budget = budget
        self.size_bytes = size_bytes

    def shrink(self, size_bytes: int) -> None:
        """Keep only *size_bytes* of it."""
        given_back, self.size_bytes = self.size_bytes - size_bytes, size_bytes
        if given_back < 0:
            raise ValueError("a lease does not grow")
        self._budget._give_back(given_back)

    def release(self) -> None:
        """Give everything back. Calling it again does nothing."""
        if self.size_bytes:
            self.shrink(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class Budget:
    """Bytes that may be held at once. Safe to use from any thread and any event loop.

    Args:
        limit_bytes: Upper bound of all leases together.
    """

    def __init__(self, limit_bytes: int = DEFAULT_MEMORY_BYTES) -> None:
        self._limit = limit_bytes
        self._used = 0
        self._waiting: deque[_Waiter] = deque()
        self._lock = threading.Lock()

    @property
    def limit_bytes(self) -> int:
        """Upper bound of all leases together."""
        return self._limit

    @property
    def used_bytes(self) -> int:
        """What is leased now."""
        return self._used

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits for some of it."""
        return bool(self._waiting)

    def resize(self, limit_bytes: int) -> None:
        """Change the bound; leases that exist are kept."""
        if limit_bytes < 1:
            raise ConfigError(f"a memory budget must hold at least 1 byte, not {limit_bytes}")
        with self._lock:
            self._limit = limit_bytes
            self._serve()

    async def take(self, size_bytes: int) -> Lease:
        """Wait until *size_bytes* are free and take them.

        Who holds a lease must not wait for another one: two such holders could wait for each other.
        """
        with self._lock:
            if not self._waiting and self._fits(size_bytes):
                self._used += size_bytes
                return Lease(self, size_bytes)
            loop = asyncio.get_running_loop()
            waiter = _Waiter(size_bytes, loop, loop.create_future())
            self._waiting.append(waiter)
        try:
            with waiting(WaitReason.MEMORY):
                await waiter.future
        except asyncio.CancelledError:
            with self._lock:
                if waiter.is_granted:
                    self._used -= size_bytes
                else:
                    self._waiting.remove(waiter)
                self._serve()
            raise
        return Lease(self, size_bytes)

    def take_nowait(self, size_bytes: int) -> Lease | None:
        """Take *size_bytes* if they are free and nobody waits, else return None."""
        with self._lock:
            if self._waiting or not self._fits(size_bytes):
                return None
            self._used += size_bytes
        return Lease(self, size_bytes)

    def _fits(self, size_bytes: int) -> bool:
        return self._used == 0 or self._used + size_bytes <= self._limit

    def _give_back(self, size_bytes: int) -> None:
        with self._lock:
            self._used -= size_bytes
            self._serve()

    def _serve(self) -> None:
        while self._waiting and self._fits(self._waiting[0].size_bytes):
            waiter = self._waiting.popleft()
            try:
                waiter.loop.call_soon_threadsafe(_wake, waiter.future)
            except RuntimeError:  # its event loop was closed: nobody is waiting there any more
                continue
            waiter.is_granted = True
            self._used += waiter.size_bytes


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


_process_budget = Budget()


def process_budget() -> Budget:
    """Return the budget of this process."""
    return _process_budget


def _start_again() -> None:
    # What the parent holds is not held here, and its lock may have been taken by a thread that does not exist here.
    global _process_budget  # noqa: PLW0603  # one per process is the point
    _process_budget = Budget(_process_budget.limit_bytes)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_again)
