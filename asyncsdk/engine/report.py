"""What a run amounted to."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from asyncsdk.engine.limits.controller import Step
from asyncsdk.engine.transfers import Outcome
from asyncsdk.engine.waits import Bottleneck, WaitReason, bottleneck_of
from asyncsdk.errors import AsyncSDKError, LeftUndone, ResponseError

__all__ = ["Failure", "Report"]

MAX_FAILURES_KEPT = 1000

_MAX_BODY_KEPT = 1000
"""Characters of what a server said: a thousand of the pages that some proxies send would be 64 MiB."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One object that did not arrive.

    Attributes:
        name: What it is called.
        code: Stable word for what went wrong (`AsyncSDKError.code`).
        error: The error itself, without traceback, cause and context, which would hold the bytes of the object; of what
            a server said the first 1,000 characters.
    """

    name: str
    code: str
    error: Exception


@dataclass(slots=True)
class Report:
    """Counts of a run, and its first 1,000 failures in full. Every outcome went to ``on_outcome``, when given.

    Attributes:
        done: Objects that arrived.
        skipped: Objects that needed no move.
        failed: Objects that did not arrive.
        bytes_done: Bytes of the objects that arrived.
        seconds: How long the run took.
        failures_by_code: How many failed for which reason.
        failures: The first 1,000 of them.
        waits: What the run's places (requests that may be in flight at once) spent their time on, in seconds by reason:
            two requests that wait for a reply for one second make two. Sampled.
        cpu_share: Share of one processor that the event loop's thread used while it lasted; with worker processes, that
            of the busiest.
        concurrency: How the number of requests at once changed while the run lasted, and why, from what each lane began
            with; empty when it was set. With worker processes, of those of this process.
        is_complete: Whether everything in the feed has an outcome: False after the run was drained before that.
    """

    done: int = 0
    skipped: int = 0
    failed: int = 0
    bytes_done: int = 0
    seconds: float = 0.0
    failures_by_code: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    waits: dict[WaitReason, float] = field(default_factory=dict)
    cpu_share: float = 0.0
    concurrency: list[Step] = field(default_factory=list)
    is_complete: bool = True
    _seconds_watched: float = field(default=0.0, repr=False, compare=False)

    def add(self, outcome: Outcome) -> None:
        """Count *outcome*."""
        if outcome.error is not None:
            self.add_failure(outcome.name, outcome.error)
        elif outcome.status == "skipped":
            self.skipped += 1
        else:
            self.done += 1
            self.bytes_done += outcome.size_bytes

    def add_failure(self, name: str, error: Exception) -> None:
        """Count a failure that is no transfer's, such as a refused row."""
        self.add_failures(1, name, error)

    def add_failures(self, count: int, name: str, error: Exception, *, code: str | None = None) -> None:
        """Count *count* failures of one cause, kept as one entry; *code*: under another word than the error's own."""
        if count < 1:
            return
        if code is None:
            code = str(getattr(error, "code", type(error).__name__))
        self.failed += count
        self.failures_by_code[code] += count
        if len(self.failures) < MAX_FAILURES_KEPT:
            self.failures.append(Failure(name, code, _bare(error)))

    @property
    def ok(self) -> bool:
        """Whether everything has an outcome, and nothing failed: False after a run was drained before its end."""
        return self.failed == 0 and self.is_complete

    @property
    def bottleneck(self) -> Bottleneck | None:
        """What limited the run: the reason that most time went into, or ``cpu``; None when it was too short to tell."""
        return bottleneck_of(self.waits, self.cpu_share)

    def add_waits(self, waits: Mapping[WaitReason, float], cpu_share: float, seconds: float) -> None:
        """Add what a run of *seconds* waited for; several runs may make one report."""
        for reason, spent in waits.items():
            self.waits[reason] = self.waits.get(reason, 0.0) + spent
        before, self._seconds_watched = self._seconds_watched, self._seconds_watched + seconds
        if self._seconds_watched > 0:
            self.cpu_share = (self.cpu_share * before + cpu_share * seconds) / self._seconds_watched

    @property
    def objects(self) -> int:
        """Objects with an outcome."""
        return self.done + self.skipped + self.failed

    def raise_for_failures(self) -> None:
        """Raise when anything failed or was left undone.

        Raises:
            ExceptionGroup: The errors of the first 1,000 failures; its message counts them all. Behind them a
                `LeftUndone` when the run was drained before everything in its feed had an outcome.
        """
        if self.ok:
            return
        said: list[str] = []
        errors = [failure.error for failure in self.failures]
        if self.failed:
            kinds = ", ".join(f"{count} {code}" for code, count in self.failures_by_code.most_common())
            said.append(f"{self.failed} of {self.objects} failed: {kinds}")
        if not self.is_complete:
            said.append("drained before everything was done")
            errors.append(LeftUndone(self.objects))
        raise ExceptionGroup("; ".join(said), errors)

    def __str__(self) -> str:
        text = f"{self.done} done, {self.skipped} skipped, {self.failed} failed, {self.bytes_done} bytes"
        limited = "" if self.bottleneck is None else f", limited by {self.bottleneck}"
        return f"{text} in {self.seconds:.1f} s{limited}{'' if self.is_complete else ', not complete'}"


def _bare(error: Exception) -> Exception:
    """Return *error* without what led to it: frames of a traceback hold buffers that nobody counts any more.

    Errors of this package are copied, so that whoever was told the outcome keeps the traceback.
    """
    bare = copy.copy(error) if isinstance(error, AsyncSDKError) else error
    if isinstance(bare, ResponseError) and isinstance(bare.body, str) and len(bare.body) > _MAX_BODY_KEPT:
        bare.body = f"{bare.body[:_MAX_BODY_KEPT]}..."
    bare.__traceback__ = bare.__cause__ = bare.__context__ = None
    return bare
