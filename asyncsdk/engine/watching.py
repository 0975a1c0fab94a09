"""One run as seen from outside: what it waits for, and what it tells those who listen."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable

from asyncsdk.engine.events import (
    ConcurrencyChanged,
    Drained,
    Event,
    EventCallback,
    ObjectFailed,
    ObjectFinished,
    ObjectStarted,
    Renewed,
    Retried,
    RunEnded,
    RunStarted,
    Throttled,
)
from asyncsdk.engine.lanes import LaneName
from asyncsdk.engine.limits.controller import Step
from asyncsdk.engine.strays import no_strays
from asyncsdk.engine.transfers import Download, Outcome, Upload
from asyncsdk.engine.waits import ObjectWaits, RunWaits
from asyncsdk.errors import AsyncSDKError, RateLimited, server_code_of
from asyncsdk.transport.base import Request

__all__ = ["Watch"]

_THROTTLED_SECONDS = 1.0


class Watch:
    """What is seen of one run. Without somebody who listens, telling costs one comparison.

    Args:
        on_event: Told everything; None: nobody listens.

    Attributes:
        waits: What the run's places spend their time on.
        flights: Requests under way, other than those of the express lane, and whose they are; by their `id`.
        on_failure: Takes what *on_event* raised: a mistake of the caller ends the run where it is iterated, not the
            transfer that happened to be told of.
        is_heard: Whether somebody listens.
    """

    __slots__ = (
        "_numbers",
        "_on_event",
        "_run",
        "_started",
        "_throttled",
        "_throttled_at",
        "flights",
        "is_heard",
        "on_failure",
        "waits",
    )

    def __init__(self, on_event: EventCallback | None = None) -> None:
        self._on_event = on_event
        self._run = secrets.token_hex(4) if on_event is not None else ""
        self._numbers = 0
        self._started: dict[int, int] = {}  # numbers of large objects, by the id of their transfer
        self._throttled = 0
        self._throttled_at = -_THROTTLED_SECONDS
        self.is_heard = on_event is not None
        self.waits = RunWaits()
        self.flights: dict[int, tuple[Request, ObjectWaits | None]] = {}
        self.on_failure: Callable[[Exception], None] | None = None

    # --- telling ---------------------------------------------------------------------------------------------

    def run_started(self, concurrency: int | str, objects_total: int | None, bytes_total: int | None) -> None:
        """The run began."""
        if self.is_heard:
            self._tell(
                RunStarted(run=self._run, concurrency=concurrency, objects_total=objects_total, bytes_total=bytes_total)
            )

    def object_started(self, transfer: Upload | Download) -> None:
        """A large object began to move."""
        if not self.is_heard:
            return
        self._numbers += 1
        self._started[id(transfer)] = self._numbers
        is_upload = isinstance(transfer, Upload)
        self._tell(
            ObjectStarted(
                run=self._run,
                name=transfer.name,
                number=self._numbers,
                direction="upload" if is_upload else "download",
                size_bytes=transfer.size_bytes if isinstance(transfer, Upload) else transfer.origin.size_bytes,
            )
        )

    def settled(self, outcome: Outcome) -> None:
        """An outcome became final. Ask ``is_heard`` before."""
        number = self._started.pop(id(outcome.transfer), None)
        error = outcome.error
        if error is not None:
            self._tell(
                ObjectFailed(
                    run=self._run,
                    name=outcome.name,
                    code=error.code,
                    server_code=server_code_of(error),
                    message=str(error),
                    seconds=outcome.seconds,
                    attempts=outcome.attempts,
                    number=number,
                    waits=outcome.waits or None,
                )
            )
            return
        self._tell(
            ObjectFinished(
                run=self._run,
                name=outcome.name,
                status="skipped" if outcome.status == "skipped" else "done",
                size_bytes=outcome.size_bytes,
                seconds=outcome.seconds,
                attempts=outcome.attempts,
                verified=outcome.verified,
                number=number,
                waits=outcome.waits or None,
            )
        )

    def retried(self, name: str, attempt: int, wait_seconds: float, error: AsyncSDKError) -> None:
        """A request failed and is tried again after *wait_seconds*."""
        if not self.is_heard:
            return
        self._tell(
            Retried(
                run=self._run,
                name=name,
                attempt=attempt,
                wait_seconds=wait_seconds,
                code=error.code,
                server_code=server_code_of(error),
                message=str(error),
            )
        )
        asked = getattr(error, "retry_after", None)
        if isinstance(error, RateLimited) or asked is not None:
            self._throttled += 1
            now = time.monotonic()
            if now - self._throttled_at >= _THROTTLED_SECONDS:
                self._throttled_at = now
                count, self._throttled = self._throttled, 0
                self._tell(
                    Throttled(
                        run=self._run,
                        count=count,
                        code=error.code,
                        server_code=server_code_of(error),
                        retry_after=asked,
                    )
                )

    def renewed(self, name: str, first_part: int) -> None:
        """An object got fresh URLs."""
        if self.is_heard:
            self._tell(Renewed(run=self._run, name=name, first_part=first_part))

    def concurrency_changed(self, lane: LaneName, before: int, after: int, step: Step | None) -> None:
        """There may be more, or fewer, requests at once; *step* says why, if it was not set."""
        if self.is_heard:
            reason, per_second = (None, None) if step is None else (step.reason, step.per_second)
            self._tell(
                ConcurrencyChanged(
                    run=self._run, lane=lane, before=before, after=after, reason=reason, per_second=per_second
                )
            )

    def drained(self, active: int, dropped: int) -> None:
        """Nothing new is taken."""
        if self.is_heard:
            self._tell(Drained(run=self._run, active=active, dropped=dropped))

    def run_ended(
        self,
        *,
        done: int,
        skipped: int,
        failed: int,
        bytes_done: int,
        seconds: float,
        is_complete: bool,
        error: BaseException | None,
    ) -> None:
        """The run ended."""
        if not self.is_heard:
            return
        found = self.waits.bottleneck
        self._tell(
            RunEnded(
                run=self._run,
                done=done,
                skipped=skipped,
                failed=failed,
                bytes_done=bytes_done,
                seconds=seconds,
                is_complete=is_complete,
                waits=dict(self.waits.seconds),
                bottleneck=None if found is None else found.reason,
                bottleneck_share=None if found is None else found.share,
                cpu_share=self.waits.cpu_share,
                code=None if error is None else _word_of_end(error),
            )
        )

    def _tell(self, event: Event) -> None:
        assert self._on_event is not None
        try:
            with no_strays():
                self._on_event(event)
        except Exception as error:  # it ends the run, and is raised unchanged where the run is iterated
            self.is_heard = False  # who raised once is not told more
            if self.on_failure is None:
                raise
            self.on_failure(error)


def _word_of_end(error: BaseException) -> str:
    """Return the stable word for what ended a run; ``cancelled`` is no error."""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    return error.code if isinstance(error, AsyncSDKError) else type(error).__name__
