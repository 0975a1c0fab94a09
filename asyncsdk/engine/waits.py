"""What transfers wait for, and therefore what limits a run.

Two things are counted. Of one object: the seconds its requests waited, summed (`Outcome.waits`). Of a run: what its
places (requests that may be in flight at once) spent their time on, looked at every few milliseconds (`Report.waits`);
the reason with the largest share is the bottleneck.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic

from asyncsdk.errors import AsyncSDKError, ConnectionFailed, RateLimited, RequestTimeout

__all__ = [
    "Bottleneck",
    "ObjectWaits",
    "RunWaits",
    "WaitReason",
    "bottleneck_of",
    "counting",
    "reason_of",
    "waiting",
]

_FULL_CPU = 0.85
"""Share of one processor from which on an event loop has no time to spare: the rest is lost between its turns."""


class WaitReason(StrEnum):
    """What is waited for."""

    DISK = "disk"
    """A file that is read or written, or a source that gives its bytes."""
    MEMORY = "memory"
    """Room in the byte budget."""
    RATE = "rate"
    """A limit per second, ours or the server's (429, ``Retry-After``)."""
    SLOT = "slot"
    """A free request: there are as many in flight as there may be, and more would find something to do."""
    CONNECT = "connect"
    """A connection, or a pause after one failed."""
    SEND = "send"
    """Room to send: the network, or a server that reads slowly."""
    REPLY = "reply"
    """The reply, its body included, or a pause after one that failed: the server, the network, or the way there."""
    COMMIT = "commit"
    """The platform, which commits what arrived."""
    FEED = "feed"
    """Something to move: the listing, the platform's signed URLs, the caller's iterable, or a caller who takes outcomes
    slowly."""


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """What limits a run.

    Attributes:
        reason: A `WaitReason`, or ``cpu``: the event loop had no time to spare, and what seemed to be waited for was
            there before it was looked at.
        share: Its share, 0 to 1, of the time that was waited; of ``cpu``, of one processor.
    """

    reason: str
    share: float

    def __str__(self) -> str:
        return f"{self.reason} ({self.share:.0%})"


class RunWaits:
    """What the places of one run spent their time on.

    Attributes:
        seconds: Place-seconds by reason: two requests that wait for a reply for one second make two.
        live: How many wait right now, of those who say so (`waiting`).
        cpu_share: Share of one processor that the thread of the event loop used while the run lasted; with worker
            processes, of the busiest.
        cpu_elsewhere: That of the busiest worker process.
    """

    __slots__ = ("cpu_elsewhere", "cpu_share", "live", "seconds")

    def __init__(self) -> None:
        self.seconds: dict[WaitReason, float] = {}
        self.live: Counter[WaitReason] = Counter()
        self.cpu_share = 0.0
        self.cpu_elsewhere = 0.0

    def add(self, reason: WaitReason, seconds: float) -> None:
        """Count *seconds* of one place."""
        self.seconds[reason] = self.seconds.get(reason, 0.0) + seconds

    @property
    def bottleneck(self) -> Bottleneck | None:
        """What most time went into; None when nothing was waited for long enough to be seen."""
        return bottleneck_of(self.seconds, self.cpu_share)


def bottleneck_of(seconds: Mapping[WaitReason, float], cpu_share: float) -> Bottleneck | None:
    """Return what limits a run whose places waited so long; None when nothing was waited for."""
    if cpu_share >= _FULL_CPU:
        return Bottleneck("cpu", min(1.0, cpu_share))
    total = sum(seconds.values())
    if total <= 0:
        return None
    reason = max(seconds, key=lambda reason: seconds[reason])
    return Bottleneck(reason.value, seconds[reason] / total)


class ObjectWaits:
    """What the requests of one object waited for.

    Attributes:
        seconds: By reason, summed over its requests: two parts that wait for a slot for one second make two. ``slot``,
            ``memory``, ``rate`` and pauses between attempts are exact, the others are what the run's looks found.
        live: Those of its run.
    """

    __slots__ = ("live", "seconds")

    def __init__(self, live: Counter[WaitReason]) -> None:
        self.seconds: dict[WaitReason, float] = {}
        self.live = live

    def add(self, reason: WaitReason, seconds: float) -> None:
        """Count *seconds*."""
        self.seconds[reason] = self.seconds.get(reason, 0.0) + seconds


_current: ContextVar[ObjectWaits | None] = ContextVar("asyncsdk_waits", default=None)


class counting:  # noqa: N801  # read as a statement: with counting(waits)
    """Count what is waited for in this block, and in tasks that it starts, for one object."""

    __slots__ = ("_token", "_waits")

    def __init__(self, waits: ObjectWaits | None) -> None:
        self._waits = waits
        self._token: Token[ObjectWaits | None]

    def __enter__(self) -> None:
        self._token = _current.set(self._waits)

    def __exit__(self, *exc_info: object) -> None:
        _current.reset(self._token)


class waiting:  # noqa: N801  # read as a statement: with waiting(WaitReason.SLOT)
    """Count this block as waiting, for the object that is being moved in this task; for none, nothing happens.

    Meant for what really has to wait: it costs about a microsecond.
    """

    __slots__ = ("_reason", "_since", "_waits")

    def __init__(self, reason: WaitReason) -> None:
        self._reason = reason
        self._waits = _current.get()
        self._since = 0.0

    def __enter__(self) -> None:
        if self._waits is not None:
            self._waits.live[self._reason] += 1
            self._since = monotonic()

    def __exit__(self, *exc_info: object) -> None:
        if self._waits is not None:
            self._waits.live[self._reason] -= 1
            self._waits.add(self._reason, monotonic() - self._since)


def reason_of(error: AsyncSDKError) -> WaitReason:
    """Return what the pause before another attempt is counted as: what made the last one fail."""
    if isinstance(error, RateLimited) or getattr(error, "retry_after", None) is not None:
        return WaitReason.RATE
    if isinstance(error, ConnectionFailed) or (isinstance(error, RequestTimeout) and error.phase == "connect"):
        return WaitReason.CONNECT
    if isinstance(error, RequestTimeout) and error.phase == "send":
        return WaitReason.SEND
    return WaitReason.REPLY
