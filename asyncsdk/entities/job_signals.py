"""Who waits for a job hears at once what a worker of the same client did with it, instead of asking again and again.

The client tells of each message about jobs that it sent and got an answer to. What workers elsewhere do is not heard
of: whoever waits goes on asking, less often where a worker of this client has the job or will take it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

from asyncsdk.entities.session import Session
from asyncsdk.protocol.base import Message
from asyncsdk.protocol.jobs import (
    FINISHED,
    CancelJob,
    ClaimedJob,
    ClaimJob,
    FinishJob,
    JobRecord,
    ReleaseJob,
    ReportJob,
)
from asyncsdk.protocol.workers import BeatWorker, DeleteWorker

__all__ = ["JobSignals", "JobWaiter", "signals_of"]

_TELLING: frozenset[type[Message[Any]]] = frozenset(
    {BeatWorker, CancelJob, ClaimJob, DeleteWorker, FinishJob, ReleaseJob, ReportJob}
)


class JobWaiter:
    """Waits for news of one job.

    Attributes:
        ended: The job as it ended, whole, once that was heard.
    """

    def __init__(self) -> None:
        self.ended: JobRecord | None = None
        self._news = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Return when there is news, also such as came since the last call, and after *seconds* without."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        self._news.clear()

    def tell(self, ended: JobRecord | None) -> None:
        """Wake whoever waits."""
        self.ended = ended or self.ended
        self._news.set()


class JobSignals:
    """What the workers of one client do, for those who wait in the same event loop."""

    def __init__(self) -> None:
        self._waiters: dict[str, list[JobWaiter]] = {}
        self._kinds: dict[str, frozenset[str]] = {}

    @contextmanager
    def listening(self, job_id: str) -> Iterator[JobWaiter]:
        """Hold what hears of a job."""
        waiter = JobWaiter()
        self._waiters.setdefault(job_id, []).append(waiter)
        try:
            yield waiter
        finally:
            self._waiters[job_id].remove(waiter)
            if not self._waiters[job_id]:
                del self._waiters[job_id]

    def expects(self, job: JobRecord) -> bool:
        """Whether a worker of this client has the job, or is one that takes such jobs: then there will be a signal."""
        if job.status == "running":
            return job.worker_id in self._kinds
        return job.status == "queued" and any(job.kind in kinds for kinds in self._kinds.values())

    def sent(self, message: Message[Any], reply: object) -> None:
        """Hear of a message that was answered; those that say nothing of jobs cost nothing."""
        if type(message) not in _TELLING:
            return
        match message:
            case BeatWorker():
                if message.offers:
                    self._kinds[message.worker_id] = frozenset(message.offers)
                else:
                    self._kinds.pop(message.worker_id, None)
            case DeleteWorker():
                self._kinds.pop(message.worker_id, None)
            case ClaimJob():
                if isinstance(reply, ClaimedJob) and reply.job is not None:
                    self._tell(reply.job.id, None)
            case FinishJob() | CancelJob() | ReleaseJob() | ReportJob():
                is_end = isinstance(reply, JobRecord) and reply.status in FINISHED and not reply.is_brief
                self._tell(message.job_id, reply if is_end else None)  # type: ignore[arg-type]  # seen just now

    def _tell(self, job_id: str, ended: JobRecord | None) -> None:
        for waiter in self._waiters.get(job_id, ()):
            waiter.tell(ended)


_signals: WeakKeyDictionary[Session, JobSignals] = WeakKeyDictionary()


def signals_of(session: Session) -> JobSignals:
    """Return the signals of a client: one object for each, as long as it lives."""
    found = _signals.get(session)
    if found is None:
        found = _signals[session] = JobSignals()
    return found
