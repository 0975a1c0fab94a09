"""So many per second: a token bucket, and the gate at which those wait who find it empty."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from asyncsdk.engine.waits import WaitReason, waiting
from asyncsdk.errors import ConfigError

__all__ = ["BURST_SECONDS", "Gate", "Ticket", "TokenBucket"]

BURST_SECONDS = 0.1
"""How much of what was not used is made up for at once. A timer of an event loop may be a few milliseconds late."""

_DUST = 1e-6
"""Of a debt: less than what a clock can tell from nothing."""

_MIN_PIECE = 16 * 1024
_MAX_PIECE = 256 * 1024
_PIECES_PER_SECOND = 20


class TokenBucket:
    """Arithmetic of a rate: whoever finds the bucket not in debt may take, and the debt is paid off by time.

    In any time of *t* seconds at most ``per_second * t + burst`` is taken, and what the last one took beyond.

    Args:
        per_second: What comes in.
        burst: What it holds at most.
        clock: Seconds, never going back.

    Raises:
        ConfigError: A number is not positive.
    """

    __slots__ = ("_burst", "_clock", "_rate", "_since", "_tokens")

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._tokens = burst
        self._rate = self._burst = 0.0
        self._set(per_second, burst)

    def _set(self, per_second: float, burst: float) -> None:
        if not per_second > 0 or not burst > 0:
            raise ConfigError(f"a rate must be positive, not {per_second!r} per second in bursts of {burst!r}")
        self._rate, self._burst = float(per_second), float(burst)

    @property
    def per_second(self) -> float:
        """What comes in."""
        return self._rate

    def change(self, per_second: float, burst: float) -> None:
        """Go on with another rate; what is owed stays owed."""
        self._refill()
        self._set(per_second, burst)
        self._tokens = min(self._tokens, self._burst)

    def is_open(self) -> bool:
        """Whether somebody may take."""
        self._refill()
        return self._tokens > -_DUST

    def charge(self, count: float) -> None:
        """Take *count*, whether it is there or not."""
        self._refill()
        self._tokens -= count

    def seconds_until_open(self) -> float:
        """How long until `is_open`, when nothing else is taken."""
        self._refill()
        return max(0.0, -self._tokens / self._rate)

    def _refill(self) -> None:
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._since) * self._rate)
        self._since = now


class Ticket:
    """The place of one who waits at a `Gate`."""

    __slots__ = ("_callback", "_gate", "_since", "cost")

    def __init__(self, gate: Gate, callback: Callable[[], None], cost: float, since: float) -> None:
        self._gate = gate
        self._callback: Callable[[], None] | None = callback
        self._since = since
        self.cost = cost

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits with it any more."""
        return self._callback is None

    def cancel(self) -> None:
        """Wait no longer. Calling it again, or when it was let through already, does nothing."""
        if self._callback is not None:
            self._callback = None
            self._gate.left(self)

    def admit(self, now: float) -> float:
        """Let it through; returns how long it waited."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()
        return now - self._since


class _Timers(Protocol):
    def call_later(self, delay: float, callback: Callable[[], None], /) -> asyncio.TimerHandle: ...


class Gate:
    """Lets through so much per second, first come, first served. One event loop only.

    Who may not pass is called back when its turn comes; one timer serves all who wait. What passes is charged when its
    size is known: before, by *cost*, or right after, by `charge`.

    Args:
        per_second: How much.
        burst: How much at once after a pause; None: a tenth of a second's, but at least *least_burst*.
        clock: Seconds, never going back.
        timers: What calls back later; None: the running event loop.

    Attributes:
        waited_seconds: Sum of what was waited here.
    """

    def __init__(
        self,
        per_second: float,
        *,
        least_burst: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        timers: _Timers | None = None,
    ) -> None:
        self._least_burst = least_burst
        self._clock = clock
        self._timers = timers
        self._bucket = TokenBucket(per_second, self._burst(per_second), clock)
        self._waiting: deque[Ticket] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._is_serving = False
        self._is_lifted = False
        self.waited_seconds = 0.0

    def _burst(self, per_second: float) -> float:
        return max(self._least_burst, per_second * BURST_SECONDS)

    @property
    def per_second(self) -> float:
        """How much passes."""
        return self._bucket.per_second

    @property
    def piece_bytes(self) -> int:
        """How much to move in one turn, when it is bytes that pass: 20 turns a second or more, 16 to 256 KiB each."""
        return int(max(_MIN_PIECE, min(_MAX_PIECE, self.per_second / _PIECES_PER_SECOND)))

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def change(self, per_second: float) -> None:
        """Let through more, or less, from now on."""
        self._bucket.change(per_second, self._burst(per_second))
        self._serve()

    def open_up(self) -> None:
        """Let everybody through that waits, and whoever comes: there is no limit any more."""
        self._is_lifted = True
        while self._waiting:
            self._admit(self._waiting.popleft())
        self._stop_timer()

    def passes(self) -> bool:
        """Whether one may pass now: nobody was there before, and nothing is owed."""
        return self._is_lifted or (not self._waiting and self._bucket.is_open())

    def charge(self, count: float) -> None:
        """Count what passed."""
        self._bucket.charge(count)

    def wait(self, callback: Callable[[], None], cost: float = 0.0) -> Ticket:
        """Queue; *callback* is called in the event loop when one may pass, and charges what it takes beyond *cost*."""
        ticket = Ticket(self, callback, cost, self._clock())
        self._waiting.append(ticket)
        self._serve_later()
        return ticket

    async def take(self, cost: float) -> None:
        """Wait until one may pass, and charge *cost*."""
        if self.passes():
            self.charge(cost)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ticket = self.wait(lambda: None if future.done() else future.set_result(None), cost)
        try:
            with waiting(WaitReason.RATE):
                await future
        except asyncio.CancelledError:
            if ticket.is_cancelled:
                self.charge(-cost)  # it had been let through already
            ticket.cancel()
            raise

    def left(self, ticket: Ticket) -> None:
        """Forget one who waits no longer."""
        self._waiting.remove(ticket)
        if not self._waiting:
            self._stop_timer()

    def _serve(self) -> None:
        if self._is_serving:
            return  # called by one who was just let through
        self._stop_timer()
        self._is_serving = True
        try:
            while self._waiting and self._bucket.is_open():
                self._admit(self._waiting.popleft())
        finally:
            self._is_serving = False
            self._serve_later()

    def _admit(self, ticket: Ticket) -> None:
        self._bucket.charge(ticket.cost)
        self.waited_seconds += ticket.admit(self._clock())

    def _serve_later(self) -> None:
        if self._waiting and self._timer is None and not self._is_serving:
            timers: _Timers = self._timers or asyncio.get_running_loop()
            self._timer = timers.call_later(self._bucket.seconds_until_open(), self._serve)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
