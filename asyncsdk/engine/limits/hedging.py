"""Parts that are late: asked for once more, and the first answer counts.

One request in a thousand takes ten times as long as the others; at the end of a large object everything waits for it.
What late means is learnt from the parts before, of the same direction and about the same size: twice what 95 of 100
take from the moment they have their slot. Waiting for it, and pauses between attempts, say nothing of the server. A
repetition costs bytes, so it is begun only while a slot is free that nobody waits for, and never more than 5 % of what
parts moved.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import anyio

from asyncsdk.engine.attempts import Airtime
from asyncsdk.engine.lanes import Slots

if TYPE_CHECKING:
    from asyncsdk.engine.health import Health

__all__ = ["Claim", "Hedging"]

T = TypeVar("T")

Direction = Literal["up", "down"]

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

    def __init__(self, direction: Direction, size_bytes: int, repeat: Callable[[Claim], Awaitable[T]]) -> None:
        self.direction = direction
        self.size_bytes = size_bytes
        self.repeat = repeat
        self.airtime = Airtime()  # of the first request
        self.first_scope = anyio.CancelScope()
        self.has_ended = False
        self.timer: asyncio.TimerHandle | None = None  # of the next look whether it is late
        self.repetition: asyncio.Task[None] | None = None
        self.repetition_scope = anyio.CancelScope()
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
        if self.timer is not None:
            self.timer.cancel()
        if not self.repeated.cancel() and not self.repeated.cancelled():
            self.repeated.exception()  # nobody may be left who asks for it
        if self.repetition is not None:
            self.repetition_scope.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait((self.repetition,))


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
        self._seconds: dict[tuple[Direction, int], deque[float]] = {}
        self.repeated = 0
        self.won = 0
        self.extra_bytes = 0

    def late_seconds(self, direction: Direction, size_bytes: int) -> float | None:
        """From when on a part counts as late, since it has its slot; None: not enough is known of such parts.

        Sizes are told apart by powers of two. Where too little is known of one, the next larger one that is known will
        do: the last part of an object takes no longer than the others did.
        """
        smallest = size_bytes.bit_length()
        known = [
            (size, seconds)
            for (way, size), seconds in self._seconds.items()
            if way == direction and size >= smallest and len(seconds) >= _LEAST_SAMPLES
        ]
        if not known:
            return None
        ordered = sorted(min(known)[1])
        return max(_LEAST_SECONDS, _LATE * ordered[int(0.95 * (len(ordered) - 1))])

    def learn(self, direction: Direction, size_bytes: int, seconds: float) -> None:
        """A part of *size_bytes* took *seconds*."""
        key = direction, size_bytes.bit_length()
        self._seconds.setdefault(key, deque(maxlen=_KEPT_SAMPLES)).append(seconds)

    async def run(
        self,
        direction: Direction,
        size_bytes: int,
        first: Callable[[Airtime], Awaitable[T]],
        repeat: Callable[[Claim], Awaitable[T]],
    ) -> T:
        """Return what *first* returns, or *repeat* if that has it earlier; the other has ended then.

        Args:
            direction: Whether it is sent or received.
            size_bytes: What a repetition costs.
            first: Moves the part, and tells when its request has its slot. Cancelled when the repetition wins.
            repeat: Moves it once more, touching nothing that *first* touches before it was granted its claim. What it
                raises before that is dropped: the first request goes on, and its error is the one to tell.
        """
        if not self._is_on:
            return await first(Airtime())
        flight = _Flight(direction, size_bytes, repeat)
        # A timer, and a task only for a part that is late: a task for each would cost as much as sending 100 KiB.
        self._look_in(_LEAST_SECONDS, flight)
        try:
            result = await self._race(flight, first)
        finally:
            await flight.end()
        if flight.airtime.started is not None:
            self.learn(direction, size_bytes, monotonic() - flight.airtime.started)
        return result

    async def _race(self, flight: _Flight[T], first: Callable[[Airtime], Awaitable[T]]) -> T:
        with flight.first_scope:
            return await first(flight.airtime)
        flight.stopped.set()
        result = await flight.repeated
        self.won += 1
        return result

    def _look_in(self, seconds: float, flight: _Flight[T]) -> None:
        # No closure that names itself: such a cycle would keep the bytes of every part until the next collection.
        flight.timer = asyncio.get_running_loop().call_later(seconds, self._look, flight)

    def _look(self, flight: _Flight[T]) -> None:
        """Repeat the part if it is late and that costs nobody anything, else look again."""
        flight.timer = None  # it holds the flight
        pause = self._seconds_until_late(flight)
        if pause > 0:
            self._look_in(pause, flight)
        else:
            flight.repetition = asyncio.get_running_loop().create_task(self._repeat(flight))

    def _seconds_until_late(self, flight: _Flight[T]) -> float:
        """When to look again; 0: the part is late, and its repetition costs nobody anything."""
        started = flight.airtime.started
        if started is None:
            return _LEAST_SECONDS
        late = self.late_seconds(flight.direction, flight.size_bytes)
        if late is None:
            return _LEAST_SECONDS  # nobody tells when enough is known
        pause = started + late - monotonic()
        if pause > 0:
            return pause
        return 0 if self._may_repeat(flight.size_bytes) else late / 4  # nor when a slot has become free

    async def _repeat(self, flight: _Flight[T]) -> None:
        """Ask for a part that is late once more."""
        if flight.has_ended:
            return  # before this began
        pause = self._seconds_until_late(flight)
        if pause > 0:  # another one, late at the same moment, has the slot that was free
            flight.repetition = None
            self._look_in(pause, flight)
            return
        self.extra_bytes += flight.size_bytes
        self.repeated += 1
        with flight.repetition_scope:
            try:
                result = await flight.repeat(flight.claim)
            except Exception as error:  # noqa: BLE001  # once the first request was stopped its caller gets it, see `run`
                if flight.first_scope.cancel_called and not flight.repeated.done():
                    flight.repeated.set_exception(error)
                return
            if flight.first_scope.cancel_called and not flight.repeated.done():
                flight.repeated.set_result(result)

    def _may_repeat(self, size_bytes: int) -> bool:
        cost = self.extra_bytes + size_bytes
        return self._slots.has_free("part") and cost <= _EXTRA_SHARE * self._health.part_bytes
