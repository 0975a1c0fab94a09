"""Parts that are late: asked for once more, and the first answer counts.

One request in a thousand takes ten times as long as the others; at the end of a large object everything waits for it.
What late means is learnt from the parts before: twice what 95 of 100 take. A repetition costs bytes, so it is begun
only while a slot is free that nobody waits for, and never more than 5 % of what parts moved.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio
from anyio.abc import TaskGroup

from asyncsdk.engine.lanes import Slots

if TYPE_CHECKING:
    from asyncsdk.engine.health import Health

__all__ = ["Claim", "Hedging"]

T = TypeVar("T")

Claim = Callable[[], Awaitable[bool]]
"""Awaited by a repetition that has what it wanted: ends the first request. False: that came first, drop everything."""

_LEAST_SAMPLES = 8
_KEPT_SAMPLES = 256
_LATE = 2.0
"""Times what 95 of 100 take."""

_LEAST_SECONDS = 0.2
_EXTRA_SHARE = 0.05


class _Flight(Generic[T]):
    """A part under way."""

    def __init__(self) -> None:
        self.first_scope = anyio.CancelScope()
        self.watch_scope = anyio.CancelScope()
        self.has_ended = False
        self.repetition_ended: asyncio.Event | None = None  # None: there is none
        self.stopped = asyncio.Event()
        self.repeated: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    async def claim(self) -> bool:
        """Stop the first request; see `Claim`."""
        if self.has_ended:
            return False
        self.first_scope.cancel()
        await self.stopped.wait()
        return not self.has_ended

    async def end(self) -> None:
        """Let nothing of it go on: whoever has the result closes what a repetition may be sending."""
        self.has_ended = True
        self.stopped.set()
        self.watch_scope.cancel()
        self.repeated.cancel()
        if self.repetition_ended is not None:
            with anyio.CancelScope(shield=True):
                await self.repetition_ended.wait()


class Hedging:
    """Knows how long parts take, and repeats those that are late.

    Args:
        slots: Looked at, never taken.
        health: Counts the bytes of parts.
        is_on: False: nothing is ever repeated.

    Attributes:
        repeated: Parts that were asked for once more.
        won: Those of them whose repetition came first.
        extra_bytes: Bytes that the repetitions may have cost.
    """

    def __init__(self, slots: Slots, health: Health, *, is_on: bool = True) -> None:
        self._slots = slots
        self._health = health
        self._is_on = is_on
        self._seconds: deque[float] = deque(maxlen=_KEPT_SAMPLES)
        self.repeated = 0
        self.won = 0
        self.extra_bytes = 0

    @property
    def late_seconds(self) -> float | None:
        """From when on a part counts as late; None: not enough is known."""
        if len(self._seconds) < _LEAST_SAMPLES:
            return None
        ordered = sorted(self._seconds)
        return max(_LEAST_SECONDS, _LATE * ordered[int(0.95 * (len(ordered) - 1))])

    async def run(
        self,
        group: TaskGroup,
        size_bytes: int,
        first: Callable[[], Awaitable[T]],
        repeat: Callable[[Claim], Awaitable[T]],
    ) -> T:
        """Return what *first* returns, or *repeat* if that has it earlier.

        Args:
            group: Where a repetition runs; it has ended when this returns.
            size_bytes: What a repetition costs.
            first: Moves the part. Cancelled when the repetition wins.
            repeat: Moves it once more, touching nothing that *first* touches before it was granted its claim. What it
                raises before that is dropped: the first request goes on, and its error is the one to tell.
        """
        started = monotonic()
        late = self.late_seconds if self._is_on else None
        if late is None:
            result = await first()
        else:
            flight: _Flight[T] = _Flight()
            group.start_soon(self._watch, flight, late, size_bytes, repeat)
            try:
                result = await self._race(flight, first)
            finally:
                await flight.end()
        self._seconds.append(monotonic() - started)
        return result

    async def _race(self, flight: _Flight[T], first: Callable[[], Awaitable[T]]) -> T:
        with flight.first_scope:
            return await first()
        flight.stopped.set()
        result = await flight.repeated
        self.won += 1
        return result

    async def _watch(
        self, flight: _Flight[T], late: float, size_bytes: int, repeat: Callable[[Claim], Awaitable[T]]
    ) -> None:
        """Repeat the part when it is late, as soon as that costs nobody anything."""
        with flight.watch_scope:
            await anyio.sleep(late)
            while not self._may_repeat(size_bytes):  # noqa: ASYNC110  # nobody tells when a slot has become free
                await anyio.sleep(late / 4)
            self.extra_bytes += size_bytes
            self.repeated += 1
            flight.repetition_ended = asyncio.Event()
            try:
                result = await repeat(flight.claim)
            except Exception as error:  # noqa: BLE001  # once the first request was stopped its caller gets it, see `run`
                if flight.first_scope.cancel_called and not flight.repeated.done():
                    flight.repeated.set_exception(error)
                return
            finally:
                flight.repetition_ended.set()
            if flight.first_scope.cancel_called and not flight.repeated.done():
                flight.repeated.set_result(result)

    def _may_repeat(self, size_bytes: int) -> bool:
        cost = self.extra_bytes + size_bytes
        return self._slots.has_free("part") and cost <= _EXTRA_SHARE * self._health.part_bytes
