"""The worker: makes known what it offers, takes jobs, has them done, and gives them back when it ends.

A job is held by a lease that reports extend. Whatever computes or blocks belongs into threads (`Work.in_thread`): an
event loop that stands still for the length of a lease loses its jobs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Self

from anyio import CancelScope, move_on_after
from pydantic import JsonValue

from asyncsdk.domain.ids import make_id
from asyncsdk.entities.job_watching import Intervals
from asyncsdk.entities.session import Session
from asyncsdk.errors import AsyncSDKError, ConfigError, NotFound, RunnerUnavailable
from asyncsdk.protocol.jobs import ClaimedJob, ClaimJob, ReleaseJob
from asyncsdk.protocol.workers import BeatWorker, CreateWorker, DeleteWorker, PeekJobs, QueueState, WorkerRecord
from asyncsdk.worker.attempt import Attempt
from asyncsdk.worker.folders import remove_abandoned
from asyncsdk.worker.runners import Runner, find_runners

__all__ = ["Worker"]

_log = logging.getLogger(__name__)

LEASE_SECONDS = 30.0
BEAT_SECONDS = 10.0
"""How often a worker says that it is there: three times within a lease, six within the time it counts as online."""
STOP_SECONDS = 10.0
"""How long the end waits for runners that were told to stop. What threads do cannot be stopped."""
_BUSY_SECONDS = 0.5
"""How often a worker without a free hand looks for jobs that were cancelled."""
_ERROR_SECONDS = 2.0
_THREADS_PER_JOB = 4


class Worker:
    """Takes jobs and does them, in this event loop, from ``async with`` to its end.

    Args:
        session: The client.
        name: Unique on the platform; a worker of that name that is known already is gone on with. None: a name of its
            own, forgotten at the end.
        labels: Words that jobs may ask for; None: those that the platform knows of the name.
        kinds: Kinds of jobs to take; None: all that something is installed for.
        runners: What does the jobs, in place of what is installed.
        concurrency: Jobs at once.
        lease_seconds: How long a job waits for this worker when it is not heard of.

    Raises:
        ConfigError: An argument makes no sense.
    """

    def __init__(
        self,
        session: Session,
        *,
        name: str | None = None,
        labels: Sequence[str] | None = None,
        kinds: Iterable[str] | None = None,
        runners: Iterable[Runner] | None = None,
        concurrency: int = 1,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        if concurrency < 1:
            raise ConfigError(f"concurrency must be 1 or more, not {concurrency}")
        self._session = session
        self._name = name
        self._labels = None if labels is None else tuple(labels)
        self._kinds = None if kinds is None else tuple(kinds)
        self._given = None if runners is None else tuple(runners)
        self._concurrency = concurrency
        self._lease_seconds = lease_seconds
        self._beat_seconds = min(BEAT_SECONDS, lease_seconds / 3)
        self._runners: dict[str, Runner] = {}
        self._missing: list[RunnerUnavailable] = []
        self._offers: dict[str, dict[str, JsonValue]] = {}
        self._record: WorkerRecord | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._attempts: dict[str, tuple[Attempt, asyncio.Task[None]]] = {}
        self._threads: ThreadPoolExecutor | None = None
        self._wake = asyncio.Event()
        self._pid = os.getpid()
        self._error: BaseException | None = None
        self._is_draining = False
        self._is_idle = asyncio.Event()
        self._done = 0

    # --- what is known of it ---------------------------------------------------------------------------------

    @property
    def record(self) -> WorkerRecord:
        """The worker as the platform knows it, once it runs."""
        if self._record is None:
            raise ConfigError("this worker does not run; use it with `async with`")
        return self._record

    @property
    def offers(self) -> Mapping[str, Mapping[str, JsonValue]]:
        """Kinds of jobs it does, and what it can do of each, once it runs."""
        return self._offers

    @property
    def missing(self) -> Sequence[RunnerUnavailable]:
        """Kinds of jobs it does not do although something is installed for them, and why, once it runs."""
        return self._missing

    @property
    def is_running(self) -> bool:
        """Whether it takes jobs."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    @property
    def jobs_done(self) -> int:
        """Jobs that it took and that are over, in whatever way."""
        return self._done

    # --- beginning and end -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Make it known and begin to take jobs.

        Raises:
            RunnerUnavailable: It could do no job at all; the message says why.
        """
        await self._find_runners()
        await asyncio.to_thread(remove_abandoned)  # of workers that were killed
        self._threads = ThreadPoolExecutor(_THREADS_PER_JOB * self._concurrency, thread_name_prefix="asyncsdk-job")
        try:
            await self._register()
        except BaseException:  # closed whatever ended it, then raised again
            self._threads.shutdown(wait=False)
            raise
        self._tasks = [asyncio.create_task(self._take_jobs()), asyncio.create_task(self._beat())]
        for task in self._tasks:
            task.add_done_callback(self._task_ended)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, as `aclose`.

        Raises:
            Exception: What ended the worker before, when nothing else ended the block.
        """
        await self.aclose()
        if error is None and self._error is not None:
            raise self._error

    async def aclose(self) -> None:
        """Stop, give back the jobs that are not done, at once, and take leave. Calling it again does nothing.

        Nor does calling it in a child that was forked: its jobs are the parent's.
        """
        if os.getpid() != self._pid:
            return
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        with CancelScope(shield=True):
            if tasks:
                await asyncio.wait(tasks)
                with move_on_after(STOP_SECONDS):
                    await self._give_back()
                with move_on_after(STOP_SECONDS):
                    await self._take_leave()
        if self._threads is not None:
            self._threads.shutdown(wait=False)

    async def wait(self) -> None:
        """Wait until `drain` was called and all is done; raises what ended the worker, if something did."""
        idle = asyncio.create_task(self._is_idle.wait())
        try:
            done, _ = await asyncio.wait({idle, *self._tasks}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            idle.cancel()
            await asyncio.wait({idle})

    def drain(self) -> bool:
        """Take no more jobs; those under way are done. Returns whether any are."""
        self._is_draining = True
        self._wake.set()
        return bool(self._attempts)

    def look(self) -> None:
        """Look for jobs now: one was just created."""
        self._wake.set()

    async def run_waiting(self) -> None:
        """Do the jobs that wait for this worker, and return when none does; raises what ended the worker."""
        while self._attempts or (await self._peek()).has_jobs:
            if self._error is not None:
                raise self._error
            self.look()
            await asyncio.sleep(0.02)

    # --- what it offers --------------------------------------------------------------------------------------

    async def _find_runners(self) -> None:
        if self._given is not None:
            found, self._missing = list(self._given), []
        else:
            found, self._missing = await asyncio.to_thread(find_runners, self._kinds)
        for runner in found:
            if self._kinds is not None and runner.kind not in self._kinds:
                continue
            try:
                self._offers[runner.kind] = dict(await asyncio.to_thread(runner.offers))
                self._runners[runner.kind] = runner
            except RunnerUnavailable as error:
                self._missing.append(error)
            except Exception as error:  # noqa: BLE001  # somebody else's code: it must not end the others
                reason = f"its runner failed ({type(error).__name__}: {error})"
                self._missing.append(RunnerUnavailable(runner.kind, reason))
        if not self._runners:
            if len(self._missing) == 1:
                raise self._missing[0]
            reasons = "; ".join(f"{error.kind}: {error.reason}" for error in self._missing)
            raise RunnerUnavailable("any", reasons or "no runner is installed")

    async def _register(self) -> None:
        is_temporary = self._name is None
        name = self._name or f"{platform.node() or 'worker'}-{os.getpid()}-{make_id()[-6:]}"
        message = CreateWorker(name=name, worker_id=make_id(), is_temporary=is_temporary)
        record = await self._session.send(message)
        self._record = await self._session.send(
            BeatWorker(worker_id=record.id, offers=self._offers, labels=self._labels)
        )

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._beat_seconds)
            try:
                self._record = await self._session.send(BeatWorker(worker_id=self.record.id, offers=self._offers))
            except NotFound:  # forgotten while this machine slept, or deleted by somebody
                _log.warning("worker %s is not known any more; it is made known again", self.record.name)
                with suppress(AsyncSDKError):  # the next beat tries again
                    await self._register()
            except AsyncSDKError as error:
                _log.warning("worker %s: a beat was not heard: %s", self.record.name, error)

    # --- taking jobs -----------------------------------------------------------------------------------------

    async def _take_jobs(self) -> None:
        intervals = Intervals.of(self._session)
        intervals.first = max(intervals.first, 0.02)  # it is woken for what is created in this process
        while True:
            self._wake.clear()
            if self._is_draining and not self._attempts:
                self._is_idle.set()
                return
            wait = _BUSY_SECONDS
            try:
                state = await self._peek()
                for job_id in state.cancelled:
                    if job_id in self._attempts:
                        self._attempts[job_id][0].stop("cancelled")
                if self._has_free_hand:
                    if state.has_jobs and await self._take_one():
                        intervals.restart()
                        continue
                    wait = intervals.next()
            except NotFound:  # the next beat makes the worker known again
                wait = _ERROR_SECONDS
            except AsyncSDKError as error:
                _log.warning("worker %s cannot look for jobs: %s", self.record.name, error)
                wait = _ERROR_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """Tell at once of an error that nobody foresaw; whoever waits for the worker or ends it gets it raised."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._error = self._error or error
            _log.error("the worker takes no more jobs: %s: %s", type(error).__name__, error, exc_info=error)

    @property
    def _has_free_hand(self) -> bool:
        return not self._is_draining and len(self._attempts) < self._concurrency

    async def _peek(self) -> QueueState:
        return await self._session.send(PeekJobs(worker_id=self.record.id))

    async def _take_one(self) -> bool:
        """Take a job and begin it; whether there was one."""
        message = ClaimJob(worker_id=self.record.id, claim_id=make_id(), lease_seconds=self._lease_seconds)
        claiming = asyncio.ensure_future(self._session.send(message))
        try:
            claimed = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # A claim that was heard is a job of ours: it must be given back, so that its answer is waited for.
            with move_on_after(STOP_SECONDS, shield=True), suppress(AsyncSDKError):
                self._begin(await claiming)
            raise
        if claimed.job is not None and claimed.job.kind not in self._runners:
            job = claimed.job
            await self._session.send(ReleaseJob(job_id=job.id, worker_id=self.record.id, attempt=job.attempts))
            raise ConfigError(f"another worker uses its name and offers {job.kind!r}; give each a name of its own")
        return self._begin(claimed)

    def _begin(self, claimed: ClaimedJob) -> bool:
        job = claimed.job
        if job is None or job.kind not in self._runners:
            return False
        assert self._threads is not None  # made before the first job is taken
        attempt = Attempt(
            self._session,
            self.record.id,
            job,
            claimed.inputs,
            self._runners[job.kind],
            self._threads,
            lease_seconds=self._lease_seconds,
            beat_seconds=self._beat_seconds,
        )
        task = asyncio.create_task(attempt.run())
        self._attempts[job.id] = attempt, task
        task.add_done_callback(lambda _: self._ended(job.id, task))
        return True

    def _ended(self, job_id: str, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("job %s could not be driven to its end: %s", job_id, error, exc_info=error)
        if job_id in self._attempts and self._attempts[job_id][1] is task:
            del self._attempts[job_id]
        self._done += 1
        self._wake.set()

    # --- the end ---------------------------------------------------------------------------------------------

    async def _give_back(self) -> None:
        attempts = list(self._attempts.values())
        if not attempts:
            return
        replies = await asyncio.gather(*(attempt.release() for attempt, _ in attempts), return_exceptions=True)
        for reply in replies:
            if isinstance(reply, AsyncSDKError):  # the lease runs out instead
                _log.warning("worker %s could not give a job back: %s", self.record.name, reply)
            elif isinstance(reply, BaseException):
                raise reply
        await asyncio.wait({task for _, task in attempts})

    async def _take_leave(self) -> None:
        try:
            if self.record.is_temporary:
                await self._session.send(DeleteWorker(worker_id=self.record.id))
            else:
                await self._session.send(BeatWorker(worker_id=self.record.id, offers={}))
        except AsyncSDKError as error:  # it counts as away when it is not heard of
            _log.warning("worker %s could not take leave: %s", self.record.name, error)
