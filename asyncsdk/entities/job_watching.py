"""Waiting for jobs: the platform is asked again and again, cheaply, and less often the longer nothing happens.

What a worker of the same client does is heard of at once (`job_signals`); then asking is only there for what is not.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from anyio import sleep

from asyncsdk.entities.job_signals import signals_of
from asyncsdk.entities.session import Session
from asyncsdk.errors import RunnerUnavailable
from asyncsdk.protocol.jobs import FINISHED, GetJob, JobLog, JobRecord, ListJobLogs

__all__ = ["Intervals", "follow_logs", "watch_job"]

_GROWTH = 1.3
_QUEUED_SECONDS = 1.0
"""How long a job is left in the queue before a worker is started for it here, where that can be."""
_QUEUED_AGAIN_SECONDS = 5.0
_EXPECTED_SECONDS = (0.1, 0.5)
"""First and longest wait where a signal is expected. Somebody else's worker may still take a job that is queued."""


@dataclass(slots=True)
class Intervals:
    """How long to wait before asking again, in seconds: grows from *first* to *last* until something happens.

    Args:
        first: The first wait.
        last: The longest.
    """

    first: float
    last: float
    _next: float = 0.0

    @classmethod
    def of(cls, session: Session) -> Intervals:
        """Return those of a platform: in this process, asking costs a fifth of a millisecond."""
        return cls(0.005, 0.05) if session.settings.url is None else cls(0.05, 1.0)

    def next(self) -> float:
        """Return the next wait."""
        wait = max(self.first, self._next)
        self._next = min(self.last, wait * _GROWTH)
        return wait

    def restart(self) -> None:
        """Begin with the shortest wait again."""
        self._next = 0.0


class _Patience:
    """Starts a worker in this process for a job that nobody takes."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._due_at: float | None = None

    async def look(self, job: JobRecord) -> None:
        if job.status != "queued":
            self._due_at = None
            return
        now = time.monotonic()
        if self._due_at is None:
            self._due_at = now + _QUEUED_SECONDS
        if now < self._due_at:
            return
        self._due_at = now + _QUEUED_AGAIN_SECONDS
        try:
            await self._session.ensure_worker(job.kind)
        except RunnerUnavailable:  # somebody else's worker may come yet: the job waits, as its maker was told
            return


async def watch_job(session: Session, record: JobRecord) -> AsyncGenerator[JobRecord, None]:
    """Yield a job as it is now, then whenever it changed, until it ended.

    All but the last have the payload that *record* has; the last is whole.
    """
    known: tuple[object, ...] | None = None
    asking, expecting, patience = Intervals.of(session), Intervals(*_EXPECTED_SECONDS), _Patience(session)
    signals = signals_of(session)
    with signals.listening(record.id) as waiter:  # before the first question: nothing falls between
        while True:
            if waiter.ended is not None:
                yield waiter.ended
                return
            brief = await session.send(GetJob(job_id=record.id, brief=True))
            if brief.status in FINISHED:
                whole = await session.send(GetJob(job_id=record.id))
                if whole.status in FINISHED:  # else it was retried between the two
                    yield whole
                    return
                continue
            found = (brief.updated_at, brief.status, brief.attempts)
            if found != known:
                known = found
                asking.restart()
                expecting.restart()
                yield brief.model_copy(update={"payload": record.payload, "is_brief": record.is_brief})
            await patience.look(brief)
            await waiter.wait((expecting if signals.expects(brief) else asking).next())


async def follow_logs(session: Session, job_id: str, *, after: int, follow: bool) -> AsyncIterator[JobLog]:
    """Yield the lines of a job that come after one; with *follow*, those to come too, until it ended."""
    intervals = Intervals.of(session)
    while True:
        is_over = not follow or (await session.send(GetJob(job_id=job_id, brief=True))).status in FINISHED
        while True:
            page = await session.send(ListJobLogs(job_id=job_id, after=after))
            for line in page.entries:
                yield line
            if page.entries:
                intervals.restart()
            after = page.last
            if not page.entries:
                break
        if is_over:
            return
        await sleep(intervals.next())
