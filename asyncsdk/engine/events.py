"""What happens in a run, as events: for logs, dashboards and traces.

Nothing is made, and nothing costs anything, unless somebody listens (``on_event``). Names, messages and origins are
redacted as everywhere: no event holds the query of a URL, a header or a token. Kinds and fields are stable: new ones
may be added, those that are there keep their names and meanings.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from asyncsdk.engine.limits.controller import Reason
from asyncsdk.engine.waits import WaitReason

__all__ = [
    "SCHEMA",
    "ConcurrencyChanged",
    "Drained",
    "Event",
    "EventCallback",
    "JournalChanged",
    "ObjectFailed",
    "ObjectFinished",
    "ObjectStarted",
    "Renewed",
    "Resuming",
    "Retried",
    "RunEnded",
    "RunStarted",
    "Throttled",
]

SCHEMA = 1
"""Version of kinds and fields; larger when a meaning changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened in a run.

    Attributes:
        kind: What, in one word.
        run: Names the run; eight hexadecimal digits, none before it has begun.
        time: When, in seconds since 1970 UTC.
    """

    kind: ClassVar[str]
    run: str
    time: float = field(default_factory=time.time)

    def to_json(self) -> dict[str, Any]:
        """Return the event as JSON values: ``event``, ``run``, ``time``, and its own fields that are not None."""
        values: dict[str, Any] = {"event": self.kind, "run": self.run, "time": round(self.time, 6)}
        for own in fields(self):
            value = getattr(self, own.name)
            if own.name not in values and value is not None:
                values[own.name] = round(value, 6) if isinstance(value, float) else _plain(value)
        return values


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): round(seconds, 6) for name, seconds in value.items()}
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A run began.

    Attributes:
        concurrency: Requests at once, or ``auto``.
        objects_total: Objects there will be, when known.
        bytes_total: Bytes there will be, when known.
        schema: Version of the events (`SCHEMA`).
    """

    kind = "run_started"
    concurrency: int | str
    objects_total: int | None = None
    bytes_total: int | None = None
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class Resuming(Event):
    """A run is about to go on where an earlier one was stopped: what that one finished is put in order first.

    That takes some seconds for a million objects, before anything moves.

    Attributes:
        journal: Name of the journal, as ``asyncsdk journal list`` shows it.
        objects: How many are put in order: those that arrived since it was taken up last.
    """

    kind = "resuming"
    journal: str
    objects: int


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalChanged(Event):
    """The journal of a run cannot be kept any more, or can be again. The run goes on either way.

    What is done while none is kept is found out anew when the run has to be gone on with. It is tried again every
    minute.

    Attributes:
        journal: Name of the journal, as ``asyncsdk journal list`` shows it.
        is_kept: Whether what is done from now on is kept.
        reason: Why: another run has it (named by process and host), the disk is full, it is damaged...
    """

    kind = "journal_changed"
    journal: str
    is_kept: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectStarted(Event):
    """A large object, one that takes several requests, began to move. Small ones are only told when they finished.

    Attributes:
        name: What it is called in reports.
        number: Names the object within the run; ``object_finished`` and ``object_failed`` say it again.
        direction: ``upload`` or ``download``.
        size_bytes: Its size, when known.
    """

    kind = "object_started"
    name: str
    number: int
    direction: Literal["upload", "download"]
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFinished(Event):
    """An object is where it should be, settled with the platform where there is one.

    Attributes:
        name: What it is called in reports.
        status: ``done`` or ``skipped``.
        size_bytes: Its size.
        seconds: From the start of its first attempt to its end.
        attempts: Requests tried for it.
        verified: Whether its checksum was compared with one from the other end.
        number: As in ``object_started``; None: there was none.
        waits: Seconds its requests waited, by reason; None: nothing was counted for it.
    """

    kind = "object_finished"
    name: str
    status: Literal["done", "skipped"]
    size_bytes: int
    seconds: float
    attempts: int
    verified: bool
    number: int | None = None
    waits: Mapping[WaitReason, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFailed(Event):
    """An object did not arrive.

    Attributes:
        name: What it is called in reports.
        code: Stable word for what went wrong.
        message: What went wrong.
        seconds: From the start of its first attempt to its end.
        attempts: Requests tried for it.
        number: As in ``object_started``; None: there was none.
        waits: Seconds its requests waited, by reason; None: nothing was counted for it.
        server_code: What the server that refused called it, if it did.
    """

    kind = "object_failed"
    name: str
    code: str
    message: str
    seconds: float
    attempts: int
    number: int | None = None
    waits: Mapping[WaitReason, float] | None = None
    server_code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(Event):
    """A request failed and will be tried again.

    Attributes:
        name: The object.
        attempt: Number of the attempt that failed, from 1.
        wait_seconds: How long until the next one.
        code: Stable word for what went wrong.
        message: What went wrong.
        server_code: What the server that refused called it, if it did.
    """

    kind = "retried"
    name: str
    attempt: int
    wait_seconds: float
    code: str
    message: str
    server_code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed(Event):
    """An object got fresh URLs.

    Attributes:
        name: The object.
        first_part: The first part they are for.
    """

    kind = "renewed"
    name: str
    first_part: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttled(Event):
    """A server asked for fewer requests; told at most once a second.

    Attributes:
        count: How many refusals said so since the last such event.
        code: Stable word of the latest one.
        retry_after: Seconds it asked to wait, if it did.
        server_code: What the server called the latest one, if it did.
    """

    kind = "throttled"
    count: int
    code: str
    retry_after: float | None = None
    server_code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcurrencyChanged(Event):
    """There may be more, or fewer, requests at once than before.

    Attributes:
        lane: ``small``: objects that go by one request; ``part``: parts of large ones.
        before: How many there were.
        after: How many there are.
        reason: Why, as ``limits.trace`` has it (``pays``, ``no gain``, ``refused`` ...); None: somebody set a number.
        per_second: What was measured before it, of what counts: requests, or bytes of parts; None with the reason.
    """

    kind = "concurrency_changed"
    lane: Literal["small", "part"]
    before: int
    after: int
    reason: Reason | None = None
    per_second: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drained(Event):
    """The run was told to finish what is under way and to take nothing new.

    Attributes:
        active: Objects under way.
        dropped: Objects that were taken from the feed, and not begun: they have no outcome.
    """

    kind = "drained"
    active: int
    dropped: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnded(Event):
    """A run ended.

    Attributes:
        done: Objects that arrived.
        skipped: Objects that needed no move.
        failed: Objects that did not arrive.
        bytes_done: Bytes that moved.
        seconds: How long it took.
        is_complete: Whether everything in its feed has an outcome.
        waits: What its places spent their time on, in seconds, by reason.
        bottleneck: The reason with the largest share, or ``cpu``.
        bottleneck_share: That share, 0 to 1.
        cpu_share: Share of one processor that the event loop's thread used; with worker processes, that of the busiest.
        code: Stable word of the error that ended it, ``cancelled`` when it was cancelled; None: nothing did.
    """

    kind = "run_ended"
    done: int
    skipped: int
    failed: int
    bytes_done: int
    seconds: float
    is_complete: bool
    waits: Mapping[WaitReason, float]
    bottleneck: str | None = None
    bottleneck_share: float | None = None
    cpu_share: float = 0.0
    code: str | None = None


EventCallback = Callable[[Event], None]
"""Called in the event loop by the async API, on the calling thread by the blocking one. What it raises ends the run."""
