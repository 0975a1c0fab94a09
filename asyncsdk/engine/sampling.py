"""Looking at a run every few milliseconds: what each of its places does right now.

Clocks around every wait of every small file would cost more than the file. A look costs some microseconds, whatever the
number of files, and the shares it finds are right on average: after ten seconds each rests on 200 looks at all places.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import anyio

from asyncsdk.engine.express import Express
from asyncsdk.engine.lanes import LaneName
from asyncsdk.engine.limits import Limits
from asyncsdk.engine.waits import WaitReason
from asyncsdk.engine.watching import Watch
from asyncsdk.transport.base import Request, Transport
from asyncsdk.transport.lean import LeanTransport

__all__ = ["Counts", "Sampler"]

_FIRST_SECONDS = 0.002
_LONGEST_SECONDS = 0.05
_GROWTH = 1.5

_LONG_SECONDS = 0.005
"""A first byte that takes longer is on its way, or the server thinks about it: meanwhile it could answer others. One
that is there sooner, though every place waits for one, comes from a server that has as much to do as it can."""

_REASONS: Mapping[str, WaitReason] = {
    "send": WaitReason.SEND,
    "reply": WaitReason.REPLY,
    "head": WaitReason.REPLY,
    "body": WaitReason.REPLY,
    "thread": WaitReason.DISK,
    "memory": WaitReason.MEMORY,
}


_WAITING = (
    WaitReason.DISK,
    WaitReason.MEMORY,
    WaitReason.RATE,
    WaitReason.CONNECT,
    WaitReason.SEND,
    WaitReason.REPLY,
)
"""What transfers without a request may wait for, and say so."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What a run says of itself at one moment.

    Attributes:
        queued: Transfers that nobody has begun.
        unfinished: Transfers without an outcome, the queued ones included.
        finished: Transfers with an outcome.
        idle_elsewhere: Places of worker processes that have nothing to do; None: none of them moves anything.
        is_settling: Whether the platform is committing.
        wants_more: Whether the feed has more to give, or has not said that it ended.
        parked: Transfers that nobody has begun because their server asked for a pause, or is out; not among the queued.
    """

    queued: int
    unfinished: int
    finished: int
    idle_elsewhere: int | None
    is_settling: bool
    wants_more: bool
    parked: int = 0


class Sampler:
    """Looks at a run until it is cancelled.

    Args:
        watch: What is seen is counted there.
        counts: What the run says of itself.
        express: Its express lane, if it has one.
        transport: Knows what its connections wait for, if it is the lean one.
        limits: How many places there are, and what is waited for a rate. When their number follows what was measured,
            more of them would bring nothing.
    """

    def __init__(
        self,
        watch: Watch,
        counts: Callable[[], Counts],
        express: Express | None,
        transport: Transport,
        limits: Limits,
    ) -> None:
        self._watch = watch
        self._counts = counts
        self._express = express
        self._transport = transport
        self._limits = limits
        self._slots = limits.slots
        self._seen_limits = (self._slots.small_limit, self._slots.part_limit)
        self._begun = self._since = time.monotonic()
        self._cpu = time.thread_time()

    async def run(self) -> None:
        """Look until cancelled."""
        pause = _FIRST_SECONDS
        while True:
            await anyio.sleep(pause)
            self.look()
            pause = min(_LONGEST_SECONDS, pause * _GROWTH)

    def look(self) -> None:
        """Look once, and count the time since the last look as what is seen now."""
        now = time.monotonic()
        seconds, self._since = now - self._since, now
        cpu_share = (time.thread_time() - self._cpu) / max(now - self._begun, 1e-9)
        self._watch.waits.cpu_share = max(cpu_share, self._watch.waits.cpu_elsewhere)
        self._tell_changes()
        phases = self._phases()
        seen: dict[WaitReason, int] = {}
        first_byte = 0
        flights = self._watch.flights
        for request in () if self._express is None else self._express.requests():
            reason = _REASONS.get(phases.get(id(request), ""), WaitReason.CONNECT)
            seen[reason] = seen.get(reason, 0) + 1
            first_byte += phases.get(id(request)) == "reply"
        for key, (request, waits) in flights.items():
            phase = phases.get(key, "")
            reason = _REASONS.get(phase) or self._guess(request)
            seen[reason] = seen.get(reason, 0) + 1
            first_byte += phase == "reply"
            if waits is not None:
                waits.add(reason, seconds)
        for reason, count in zip((WaitReason.SEND, WaitReason.REPLY), self._limits.paced, strict=True):
            _move(seen, reason, WaitReason.RATE, count)
        self._count_idle(self._counts(), seen, first_byte)
        for reason, count in seen.items():
            self._watch.waits.add(reason, count * seconds)

    def _count_idle(self, counts: Counts, seen: dict[WaitReason, int], first_byte: int) -> None:
        """Add to *seen* what places without a request wait for."""
        live = self._watch.waits.live
        in_flight = sum(seen.values())
        slots = self._slots
        has_workers = bool(self._watch.flights) or any(live.values())
        places = slots.part_limit if has_workers else slots.small_limit
        idle = max(0, max(places, in_flight) - in_flight)
        waiters = live[WaitReason.SLOT] + (0 if self._express is None else self._express.slot_waiters)
        is_long = first_byte * (self._since - self._begun) > _LONG_SECONDS * counts.finished  # Little's law
        if self._limits.concurrency != "auto" and is_long and idle == 0 and (counts.queued or waiters):
            # No place is free and there is more to do: it is the number of places that keeps it waiting.
            _move(seen, WaitReason.REPLY, WaitReason.SLOT, first_byte)
        waiting = {reason: live[reason] for reason in _WAITING}
        waiting[WaitReason.RATE] += counts.parked
        waiting[WaitReason.RATE] += 0 if self._limits.requests is None else self._limits.requests.waiting
        waiting[WaitReason.SLOT] = waiters  # with places left: other runs of the engine hold the slots
        for reason, count in waiting.items():
            if count := min(idle, count):
                seen[reason] = seen.get(reason, 0) + count
                idle -= count
        if counts.idle_elsewhere is not None:
            idle = counts.idle_elsewhere  # what the others wait for they tell themselves
        if not idle or counts.queued:
            return
        if counts.is_settling and (counts.unfinished == 0 or not counts.wants_more):
            seen[WaitReason.COMMIT] = seen.get(WaitReason.COMMIT, 0) + idle
        elif counts.wants_more:
            seen[WaitReason.FEED] = seen.get(WaitReason.FEED, 0) + idle

    def _phases(self) -> dict[int, str]:
        transport = self._transport
        return transport.phases() if isinstance(transport, LeanTransport) else {}

    def _guess(self, request: Request) -> WaitReason:
        """Return what a request waits for of which the transport says nothing."""
        if isinstance(self._transport, LeanTransport):
            return WaitReason.CONNECT
        size = 0 if request.body is None else request.body.size_bytes
        sent = getattr(request.on_sent, "size_bytes", size)
        return WaitReason.SEND if sent < size else WaitReason.REPLY

    def _tell_changes(self) -> None:
        before, self._seen_limits = self._seen_limits, (self._slots.small_limit, self._slots.part_limit)
        lanes: tuple[LaneName, LaneName] = ("small", "part")
        for lane, was, is_now in zip(lanes, before, self._seen_limits, strict=True):
            if was != is_now and self._watch.is_heard:
                latest = next((step for step in reversed(self._limits.trace) if step.lane == lane), None)
                is_its_doing = latest is not None and latest.limit == is_now
                self._watch.concurrency_changed(lane, was, is_now, latest if is_its_doing else None)


def _move(seen: dict[WaitReason, int], source: WaitReason, target: WaitReason, count: int) -> None:
    """Count up to *count* places as waiting for *target* that seemed to wait for *source*."""
    if count := min(count, seen.get(source, 0)):
        seen[source] -= count
        seen[target] = seen.get(target, 0) + count
