"""The byte budget: how much memory buffers may hold, one for the whole process.

Everything that holds bytes of objects draws from it: parts of streams, downloads into memory, ranges that wait for
their turn (leases), and the buffers of every open connection (allowances). Engines in several threads share it,
whatever their event loops. Whoever asked first is served first; a request larger than the whole budget is served alone.

Who holds a lease may wait for a connection, never the other way round, so connections come and go whatever is leased:
a quarter of the budget is kept for them while there is a transport, and each transport always gets its first one. Of
the rest they take what nobody else wants, up to half of the budget. What they hold above their quarter they lose, one
reply after the other, when somebody waits for a lease. Transports share alike: one that holds more than its part of
what connections may have gives some back, in the same way, when another has less than its part and wants more.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Self
from weakref import WeakSet

from asyncsdk.engine.allowance import Allowance
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

    def absorb(self, other: Lease) -> None:
        """Take over what *other*, of the same budget, holds."""
        self.size_bytes += other.size_bytes
        other.size_bytes = 0

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
        limit_bytes: Upper bound of all leases and allowances together. A single lease that does not fit beside the
            share of connections is served when it is the only one, and each transport has its first connection
            whatever is leased: with a budget of less than four parts and 8 MiB that may be more.
    """

    def __init__(self, limit_bytes: int = DEFAULT_MEMORY_BYTES) -> None:
        self._limit = limit_bytes
        self._used = 0
        self._waiting: deque[_Waiter] = deque()
        # One that nobody holds any more (an engine that was never closed) takes what it held along.
        self._allowances: WeakSet[Allowance] = WeakSet()
        # Taken again by its holder where the garbage collector ends a coroutine that holds a lease just then.
        self._lock = threading.RLock()

    @property
    def limit_bytes(self) -> int:
        """Upper bound of all leases and allowances together."""
        return self._limit

    @property
    def used_bytes(self) -> int:
        """What is held now."""
        with self._lock:
            return self._used + sum(allowance.held_bytes for allowance in self._living())

    @property
    def leased_bytes(self) -> int:
        """What is held by buffers that connections do not own."""
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
            self._changed()

    async def take(self, size_bytes: int) -> Lease:
        """Wait until *size_bytes* are free and take them.

        Who holds a lease must not wait for another one, or not for long: two such holders could wait for each other.
        """
        with self._lock:
            if not self._waiting and self._fits(size_bytes):
                self._used += size_bytes
                return Lease(self, size_bytes)
            loop = asyncio.get_running_loop()
            waiter = _Waiter(size_bytes, loop, loop.create_future())
            self._waiting.append(waiter)
            self._tell()
        try:
            with waiting(WaitReason.MEMORY):
                await waiter.future
        except BaseException:  # cancelled, or closed with its event loop: nobody waits any more; raised again
            with self._lock:
                if waiter.is_granted:
                    self._used -= size_bytes
                elif waiter in self._waiting:
                    self._waiting.remove(waiter)
                self._changed()
            raise
        return Lease(self, size_bytes)

    def take_nowait(self, size_bytes: int) -> Lease | None:
        """Take *size_bytes* if they are free and nobody waits, else return None."""
        with self._lock:
            if self._waiting or not self._fits(size_bytes):
                return None
            self._used += size_bytes
        return Lease(self, size_bytes)

    # --- connections -----------------------------------------------------------------------------------------

    def allowance(self) -> Allowance:
        """Return the memory of a transport of the running event loop."""
        return Allowance(self)

    def admit(self, allowance: Allowance) -> None:
        """Count what *allowance* holds, and keep the share of connections free."""
        with self._lock:
            self._allowances.add(allowance)

    def dismiss(self, allowance: Allowance) -> None:
        """Count *allowance* no longer."""
        with self._lock:
            allowance.held_bytes = 0
            self._allowances.discard(allowance)
            self._changed()

    def allow(self, allowance: Allowance, size_bytes: int, *, is_needed: bool) -> bool:
        """Let *allowance* hold so much more (or less) if there is room; it is told later when there was none.

        Args:
            is_needed: Whatever the room.
        """
        with self._lock:
            if not is_needed and not self._has_room(allowance, size_bytes):
                allowance.is_refused, allowance.wanted_bytes = True, size_bytes
                self._tell(has_room=False)
                self._ask_whether_wanted(allowance)
                return False
            allowance.held_bytes += size_bytes
            if size_bytes < 0:
                self._changed()
                return True
            if is_needed:
                allowance.least_bytes = max(allowance.least_bytes, allowance.held_bytes)
            if allowance.wanted_bytes:
                allowance.wanted_bytes = 0
                self._tell(has_room=False)
            return True

    def look_again(self) -> None:
        """Serve who can be served now."""
        with self._lock:
            self._changed()

    def _ask_whether_wanted(self, refused: Allowance) -> None:
        """Have those look again that *refused* stands back for: what they wanted may have been given up."""
        living = self._living()
        fair = self._fair_to_others(living, refused)
        if fair is not None and refused.held_bytes + refused.wanted_bytes > fair:
            for allowance in living:
                if allowance is not refused and allowance.wanted_bytes:
                    allowance.tell()

    def _living(self) -> list[Allowance]:
        return [allowance for allowance in self._allowances if not allowance.is_gone]

    def _allowed(self) -> int:
        """What connections hold, or may take without asking."""
        return sum(max(allowance.held_bytes, allowance.least_bytes) for allowance in self._living())

    def _least(self) -> int:
        """What connections cannot do without."""
        return sum(allowance.least_bytes for allowance in self._living())

    def _share(self) -> int:
        """What is kept for connections, whoever waits."""
        least = self._least()
        return max(self._limit // 4, min(least, self._limit // 2)) if least else 0

    def _has_room(self, allowance: Allowance, size_bytes: int) -> bool:
        """Whether *allowance* may hold so much more."""
        grows = max(0, allowance.held_bytes + size_bytes - max(allowance.held_bytes, allowance.least_bytes))
        held, share = self._allowed() + grows, self._share()
        if self._used + held > self._limit or (held > share and (self._waiting or held > self._limit // 2)):
            return False
        fair = self._fair_to_others(self._living(), allowance)
        return not grows or fair is None or allowance.held_bytes + size_bytes <= fair

    def _fair_to_others(self, living: list[Allowance], but: Allowance | None = None) -> int | None:
        """Return what each may hold while one that holds less wants more; None: none does."""
        if len(living) < 2 or not any(allowance.wanted_bytes for allowance in living):
            return None
        most = self._share()
        if not self._waiting:
            most = max(most, min(self._limit // 2, self._limit - self._used))
        fair = most // len(living)
        is_wanted = any(
            allowance.wanted_bytes and allowance.held_bytes + allowance.wanted_bytes <= fair
            for allowance in living
            if allowance is not but
        )
        return fair if is_wanted else None

    def _tell(self, *, has_room: bool = True) -> None:
        """Have transports look when connections are to make room, need not any more, or may be opened again.

        Args:
            has_room: There may be more than before.
        """
        if not self._allowances:
            return
        living = self._living()
        is_tight = bool(self._waiting) and self._allowed() > self._share()
        fair = self._fair_to_others(living)
        for allowance in living:
            held = allowance.held_bytes
            is_squeezed = held > allowance.least_bytes and (is_tight or (fair is not None and held > fair))
            is_told = has_room and allowance.is_refused and not is_squeezed
            if allowance.is_squeezed != is_squeezed or is_told:
                allowance.is_squeezed = is_squeezed
                allowance.is_refused = allowance.is_refused and not is_told
                allowance.tell()

    # --- leases ----------------------------------------------------------------------------------------------

    def _fits(self, size_bytes: int) -> bool:
        share, held = (self._share(), self._allowed()) if self._allowances else (0, 0)
        if self._used + size_bytes <= self._limit - max(share, held):
            return True
        # Alone, when it can never have room beside connections, however few of them there are.
        return self._used == 0 and (size_bytes > self._limit - share or held <= self._least())

    def _give_back(self, size_bytes: int) -> None:
        with self._lock:
            self._used -= size_bytes
            self._changed()

    def _changed(self) -> None:
        self._serve()
        self._tell()

    def _serve(self) -> None:
        while self._waiting:
            waiter = self._waiting[0]
            if not self._fits(waiter.size_bytes):
                break
            if not self._waiting or self._waiting[0] is not waiter:
                continue  # the garbage collector gave something back just now
            self._waiting.popleft()
            waiter.is_granted = True
            self._used += waiter.size_bytes
            try:
                waiter.loop.call_soon_threadsafe(_wake, waiter.future)
            except RuntimeError:  # its event loop was closed: nobody is waiting there any more
                waiter.is_granted = False
                self._used -= waiter.size_bytes


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
    _process_budget._lock = threading.RLock()  # what the parent made may still be closed here
    _process_budget = Budget(_process_budget.limit_bytes)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_again)
