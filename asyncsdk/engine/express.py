"""The express lane: first attempts of objects that go by one request, without a task, a future or a thread for any.

One `Carrier` per slot moves one transfer after the other. Only what goes well goes this way, and what fails for good.
An attempt to be repeated, a disk that keeps the loop waiting, an object that needs ranges: the transfer is handed to
the workers of the run, with what was found out already.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import anyio

from asyncsdk.engine.carrier import STALL_SECONDS, Carrier
from asyncsdk.engine.config import TransferConfig
from asyncsdk.engine.downloads import LargeObject
from asyncsdk.engine.expiry import Horizon
from asyncsdk.engine.limits import Limits
from asyncsdk.engine.parking import Parking
from asyncsdk.engine.transfers import Download, Outcome, Upload
from asyncsdk.engine.work import SMALL_BYTES, Work
from asyncsdk.targets import PutTarget, UrlOrigin
from asyncsdk.transport.base import Request
from asyncsdk.transport.lean import LeanTransport

__all__ = ["Express"]

_PATIENCE_SECONDS = 0.4
"""How much of a second may go into such stalls. A busy machine causes some, too: with four others on two processors,
0.03 of a second."""

_DETOUR_SECONDS = 1.0
"""How long threads do it after that, before the loop tries again; twice as long every time that does not go well."""

_LONGEST_DETOUR_SECONDS = 16.0

HandOver = Callable[[Work, LargeObject | None], None]


class Express:
    """Moves small objects over a lean transport.

    Args:
        transport: Whose connections are used.
        limits: Shared with everything else that sends requests.
        start: Makes the work of a transfer.
        finish: Takes outcomes.
        hand_over: Takes work that needs more than one request; with a `LargeObject` when it needs ranges.
        on_pulled: Called after a transfer left the queue.
        on_failure: Takes what is no error of one transfer, but a mistake.
        parking: Where transfers wait whose server may not be asked now.

    Attributes:
        held: While not 0, the queue is left alone; whoever sets it to 0 again calls `resume`.
    """

    def __init__(
        self,
        transport: LeanTransport,
        limits: Limits,
        start: Callable[[Upload | Download], Work],
        finish: Callable[[Outcome], None],
        hand_over: HandOver,
        on_pulled: Callable[[], None],
        on_failure: Callable[[Exception], None],
        parking: Parking,
    ) -> None:
        self.parking = parking
        self.transport = transport
        self.limits = limits
        self.slots = limits.slots
        self.start = start
        self.finish = finish
        self.hand_over = hand_over
        self.on_pulled = on_pulled
        self.on_failure = on_failure
        self.queue: deque[Upload | Download] = deque()
        self.idle: list[Carrier] = []
        self.detour_until = 0.0
        self.horizon = Horizon()
        self.is_over = False
        self.held = 0
        self._stalls_since = 0.0
        self._stalled = 0.0
        self._detour_seconds = _DETOUR_SECONDS
        self._carriers: list[Carrier] = []
        self.slots.has_grown.append(self.resume)

    def __len__(self) -> int:
        return len(self.queue)

    @staticmethod
    def takes(transfer: Upload | Download, config: TransferConfig) -> bool:
        """Whether *transfer* may go by one request, from where it can be read to where it can be written at once."""
        if isinstance(transfer, Upload):
            source, resume = transfer.source, transfer.resume
            return (
                isinstance(transfer.target, PutTarget)
                and (
                    isinstance(source, (str, Path))
                    or (isinstance(source, (bytes, memoryview)) and memoryview(source).nbytes <= SMALL_BYTES)
                )
                and (resume is None or not resume.may_be_there)
            )
        origin = transfer.origin
        if not isinstance(origin, UrlOrigin) or not isinstance(transfer.sink, (str, Path)):
            return False
        return origin.size_bytes is None or origin.size_bytes <= config.multipart_threshold

    def put(self, transfer: Upload | Download) -> None:
        """Queue *transfer*."""
        self.queue.append(transfer)
        if len(self._carriers) - len(self.idle) < self.slots.small_limit:
            self._engage_one()

    def resume(self) -> None:
        """Go on with the queue: it is held no longer, or there may be more at once."""
        for _ in range(min(len(self.queue), self.slots.small_limit - len(self._carriers) + len(self.idle))):
            self._engage_one()

    def _engage_one(self) -> None:
        if self.held or self.is_over:
            return
        if not self.idle:
            carrier = Carrier(self)
            self._carriers.append(carrier)
            carrier.ask_for_slot()
        else:
            self.idle.pop().ask_for_slot()

    def requests(self) -> list[Request]:
        """Return the requests that are under way."""
        return [carrier.request for carrier in self._carriers if carrier.work is not None]

    @property
    def slot_waiters(self) -> int:
        """How many wait for a slot to go on with."""
        return max(0, sum(not carrier.has_slot for carrier in self._carriers) - len(self.idle))

    def drop_waiting(self) -> int:
        """Forget what is not begun; returns how many."""
        dropped = len(self)
        self.queue.clear()
        return dropped

    def left(self) -> list[Work | Upload | Download]:
        """Return everything that has no outcome yet. Call it before `aclose`."""
        under_way = [work for carrier in self._carriers if (work := carrier.work) is not None]
        return [*under_way, *self.queue]

    def was_slow(self, started: float) -> None:
        """Look at how long the disk kept the loop since *started*; take the detour for a while if that adds up."""
        now = monotonic()
        if now - started < STALL_SECONDS:
            return
        if now - self._stalls_since > 1.0:
            self._stalls_since, self._stalled = now, 0.0
        self._stalled += now - started
        if self._stalled > _PATIENCE_SECONDS:
            is_again = now - self.detour_until < 2.0  # it took that long at most to find out once more
            longer = min(2 * self._detour_seconds, _LONGEST_DETOUR_SECONDS)
            self._detour_seconds = longer if is_again else _DETOUR_SECONDS
            self.detour_until = now + self._detour_seconds
            self._stalled = 0.0

    async def aclose(self) -> None:
        """Drop what is under way, and return when nothing of it is left. Cancelling it does not hurry it."""
        self.is_over = True
        self.queue.clear()
        self.slots.has_grown.remove(self.resume)
        waiting = [future for carrier in self._carriers for future in carrier.abandon()]
        with anyio.CancelScope(shield=True):
            while waiting:
                # Threads use the files that are closed next; connections that are being made close themselves.
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait(waiting)
                waiting = [future for future in waiting if not future.done()]
        for carrier in self._carriers:
            carrier.drop()
