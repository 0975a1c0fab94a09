"""One attempt at a job: its runner at work, the reports that keep the lease, and what becomes of the job in the end."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

from anyio import CancelScope
from pydantic import JsonValue

from asyncsdk.entities.job_transfers import download_artifact, upload_output
from asyncsdk.entities.session import Session
from asyncsdk.errors import AsyncSDKError, Conflict, JobCancelled, NotFound
from asyncsdk.protocol.artifacts import (
    ArtifactRecord,
)
from asyncsdk.protocol.base import Problem
from asyncsdk.protocol.jobs import (
    MAX_LOG_TEXT,
    MAX_LOGS_OF_REPORT,
    FinishJob,
    JobRecord,
    LogLevel,
    LogLine,
    ReleaseJob,
    ReportJob,
)
from asyncsdk.worker.folders import AttemptFolder
from asyncsdk.worker.runners import Runner

__all__ = ["Attempt"]

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_REPORT_SECONDS = 1.0
"""Shortest time between two reports that carry news."""
_MAX_WAITING_LINES = 4 * MAX_LOGS_OF_REPORT
"""Lines of log that wait for the next report; who writes more waits."""
_MAX_MESSAGE = 4000
_RETRY_SECONDS = 1.0

StopReason = Literal["cancelled", "lost", "closing"]


class Attempt:
    """What a runner is given as its `Work`, and what drives the runner.

    Args:
        session: The worker's client.
        worker_id: The worker.
        job: As it was claimed.
        inputs: The job's input files.
        runner: Does the work.
        threads: Where blocking code runs.
        lease_seconds: How long the job stays with this worker without a report.
        beat_seconds: How often it is reported when there is no news.
    """

    def __init__(
        self,
        session: Session,
        worker_id: str,
        job: JobRecord,
        inputs: tuple[ArtifactRecord, ...],
        runner: Runner,
        threads: Executor,
        *,
        lease_seconds: float,
        beat_seconds: float,
    ) -> None:
        self._session = session
        self._worker_id = worker_id
        self._job = job
        self._inputs = {record.name: record for record in inputs}
        self._fetched: dict[str, asyncio.Task[Path]] = {}
        self._runner = runner
        self._threads = threads
        self._lease_seconds = lease_seconds
        self._beat_seconds = beat_seconds
        self._lease_ends = time.monotonic() + lease_seconds
        self._folder: AttemptFolder | None = None
        self._running: asyncio.Task[JsonValue] | None = None
        self._stopped: StopReason | None = None
        self._is_stopped = threading.Event()
        self._news: dict[str, Any] = {}
        self._lines: list[LogLine] = []
        self._lines_sent = 0
        self._has_news = asyncio.Event()
        self._sending = asyncio.Lock()

    # --- what the runner sees --------------------------------------------------------------------------------

    @property
    def job(self) -> JobRecord:
        return self._job

    @property
    def session(self) -> Session:
        return self._session

    @property
    def folder(self) -> Path:
        assert self._folder is not None  # made before the runner begins
        return self._folder.work

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self._inputs)

    @property
    def is_cancelled(self) -> bool:
        return self._is_stopped.is_set()

    def raise_if_cancelled(self) -> None:
        if self._is_stopped.is_set():
            raise JobCancelled(job_id=self._job.id, kind=self._job.kind)

    async def report(
        self, *, progress: float | None = None, stage: str | None = None, message: str | None = None
    ) -> None:
        news = {
            "progress": None if progress is None else min(1.0, max(0.0, progress)),
            "stage": None if stage is None else _sendable(stage)[:255],
            "message": None if message is None else _sendable(message)[:_MAX_MESSAGE],
        }
        self._news |= {name: value for name, value in news.items() if value is not None}
        self._has_news.set()

    async def log(self, text: str, level: LogLevel = "info") -> None:
        if self._is_over:  # nobody hears of it any more
            return
        shown = _sendable(text)
        if len(shown) > MAX_LOG_TEXT:
            shown = f"{shown[: MAX_LOG_TEXT - 3]}..."
        self._lines.append(LogLine(text=shown, level=level, logged_at=datetime.now(UTC)))
        self._has_news.set()
        while len(self._lines) >= _MAX_WAITING_LINES and not self._is_over:
            try:
                await self._report_now()
            except AsyncSDKError as error:
                if not error.retryable:
                    raise
                await asyncio.sleep(_RETRY_SECONDS)

    async def in_thread(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        call = functools.partial(contextvars.copy_context().run, function, *args, **kwargs)
        future: asyncio.Future[T] = asyncio.get_running_loop().run_in_executor(self._threads, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # The function uses the attempt's folder, which goes when this returns. Shielded: a cancelled scope of
            # anyio cancels again and again.
            with CancelScope(shield=True):
                await asyncio.wait({future})
            if not future.cancelled():
                future.exception()  # of work that nobody wants any more
            raise

    async def input(self, name: str) -> Path:
        record = self._inputs.get(name)
        if record is None:
            raise NotFound(f"job {self._job.id} has no input {name!r}")
        if name not in self._fetched:
            self._fetched[name] = asyncio.create_task(self._fetch(record))
        return await asyncio.shield(self._fetched[name])

    async def _fetch(self, record: ArtifactRecord) -> Path:
        assert self._folder is not None  # made before the runner begins
        folder = self._folder.inputs / record.id  # a folder each: names may differ in case only
        folder.mkdir()
        return await download_artifact(self._session, record, folder)

    async def add_output(self, path: str | PathLike[str], name: str) -> str:
        record = await upload_output(self._session, self._job, path, name, worker_id=self._worker_id)
        return record.id

    # --- from beginning to end -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Do the job and tell the platform what came of it. Errors of the runner are the job's, not this call's."""
        reporting = asyncio.create_task(self._keep_lease())
        try:
            is_ours = await self._work(reporting)
            reporting.cancel()
            await asyncio.wait({reporting})  # what it did not get to say is said in the end
            if is_ours:
                await self._finish()
        finally:
            reporting.cancel()
            for task in self._fetched.values():
                task.cancel()
            await asyncio.wait({reporting, *self._fetched.values()})
            for task in self._fetched.values():
                if not task.cancelled():
                    task.exception()  # whoever awaited the input has heard of it
            if self._folder is not None:
                await asyncio.to_thread(self._folder.remove)
        if not reporting.cancelled():
            reporting.result()  # an error that nobody foresaw

    async def _work(self, reporting: asyncio.Task[None]) -> bool:
        """Let the runner do it; whether the job is still ours."""
        self._running = asyncio.create_task(self._run_runner())
        if self._stopped is not None:
            self._running.cancel()
        try:
            await asyncio.wait({self._running, reporting}, return_when=asyncio.FIRST_COMPLETED)
            if reporting.done() and reporting.exception() is not None:  # nobody keeps the lease
                self.stop("lost")
            await asyncio.wait({self._running})
        except asyncio.CancelledError:
            self.stop("closing")
            await asyncio.wait({self._running})
            raise
        if not self._running.cancelled():
            self._running.exception()  # looked at, also when nobody is told of it
        return not self._is_over

    async def _run_runner(self) -> JsonValue:
        making = asyncio.get_running_loop().run_in_executor(self._threads, AttemptFolder.make, self._job.id)
        try:
            await asyncio.shield(making)
        finally:  # also when the work is stopped meanwhile: what was made is to be removed
            await asyncio.wait({making})
            if making.exception() is None:
                self._folder = making.result()
        try:
            return await self._runner.run(self)
        except SystemExit as error:  # it would end this program, which would give the job back: to the next one
            raise RuntimeError(f"its runner wanted to end the program, with status {error.code}") from error

    @property
    def _is_over(self) -> bool:
        """Whether another worker has the job, or will have it."""
        return self._stopped in {"lost", "closing"}

    async def _finish(self) -> None:
        """Tell what came of it."""
        assert self._running is not None
        error = asyncio.CancelledError() if self._running.cancelled() else self._running.exception()
        facts: dict[str, Any]
        if error is None:
            facts = {"status": "succeeded", "result": self._running.result()}
        elif self._stopped == "cancelled":
            facts = {"status": "cancelled"}
        else:
            facts = {"status": "failed", "error": await self._explained(error)}
        if await self._flush():
            await self._say_end(facts)

    async def _explained(self, error: BaseException) -> Problem:
        if isinstance(error, AsyncSDKError):
            return Problem(code=error.code, message=_sendable(str(error))[:_MAX_MESSAGE])
        if isinstance(error, asyncio.CancelledError):
            return Problem(code="unexpected", message="its runner cancelled itself")
        await self.log(_sendable("".join(traceback.format_exception(error)))[-MAX_LOG_TEXT:], "error")
        return Problem(code="unexpected", message=_sendable(f"{type(error).__name__}: {error}")[:_MAX_MESSAGE])

    async def _say_end(self, facts: Mapping[str, Any]) -> None:
        """Tell how the job ended, again and again as long as the lease lasts."""
        held = {"job_id": self._job.id, "worker_id": self._worker_id, "attempt": self._job.attempts}
        while True:
            try:
                await self._session.send(FinishJob(**held, **facts))
                return
            except AsyncSDKError as error:
                if _says_over(error):
                    _log.warning("job %s: what came of it was not taken: %s", self._job.id, error)
                    return
                if not error.retryable:  # a result that is no JSON, or too large
                    if facts["status"] == "failed":
                        _log.error("job %s failed, and the platform did not take that: %s", self._job.id, error)
                        return
                    facts = {"status": "failed", "error": await self._explained(error)}
                elif time.monotonic() > self._lease_ends:
                    _log.warning("job %s: what came of it could not be told in time: %s", self._job.id, error)
                    return
                else:
                    await asyncio.sleep(_RETRY_SECONDS)

    def stop(self, reason: StopReason) -> None:
        """Make the runner stop; the first reason counts."""
        if self._stopped is not None:
            return
        self._stopped = reason
        self._is_stopped.set()
        if self._running is not None:
            self._running.cancel()

    async def release(self) -> None:
        """Give the job back at once, and make the runner stop; whoever takes the job next begins anew."""
        if self._stopped is None:
            self.stop("closing")
            held = {"job_id": self._job.id, "worker_id": self._worker_id, "attempt": self._job.attempts}
            await self._session.send(ReleaseJob(**held))

    # --- reports ---------------------------------------------------------------------------------------------

    async def _keep_lease(self) -> None:
        """Report news soon, and that the work goes on now and then; stop the runner when the job is not ours to do."""
        while self._stopped is None or self._stopped == "cancelled":
            with suppress(TimeoutError):
                async with asyncio.timeout(self._beat_seconds):
                    await self._has_news.wait()
            try:
                await self._report_now()
            except AsyncSDKError as error:
                _log.warning("job %s: a report was not heard: %s", self._job.id, error)
            if time.monotonic() > self._lease_ends:
                self.stop("lost")
            await asyncio.sleep(_REPORT_SECONDS)

    async def _flush(self) -> bool:
        """Send what is left to say; whether the job is still ours."""
        try:
            while self._lines or self._news:
                await self._report_now()
        except AsyncSDKError as error:
            _log.warning("job %s: its last report was not heard: %s", self._job.id, error)
        return self._stopped != "lost"

    async def _report_now(self) -> None:
        async with self._sending:
            self._has_news.clear()
            news, self._news = self._news, {}
            lines = tuple(self._lines[:MAX_LOGS_OF_REPORT])
            began = time.monotonic()
            message = ReportJob(
                job_id=self._job.id,
                worker_id=self._worker_id,
                attempt=self._job.attempts,
                logs=lines,
                first_line=self._lines_sent + 1,
                lease_seconds=self._lease_seconds,
                **news,
            )
            try:
                orders = await self._session.send(message)
            except BaseException as error:  # also when this was cancelled: the last report says it then
                self._news = news | self._news
                self._has_news.set()
                if isinstance(error, AsyncSDKError) and _says_over(error):
                    self.stop("lost")
                raise
            self._lease_ends = began + self._lease_seconds
            del self._lines[: len(lines)]
            self._lines_sent += len(lines)
            if self._lines:
                self._has_news.set()
        if orders.is_cancel_requested:
            self.stop("cancelled")


def _sendable(text: str) -> str:
    """Return *text* as UTF-8 can say it: names of files may hold halves of characters."""
    return text.encode("utf-8", "backslashreplace").decode()


def _says_over(error: AsyncSDKError) -> bool:
    """Whether *error* says that the attempt is over: another worker has the job, or there is no such job any more."""
    return (isinstance(error, Conflict) and error.server_code == "lease_lost") or isinstance(error, NotFound)
