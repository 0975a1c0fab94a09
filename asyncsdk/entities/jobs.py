"""Jobs: long work of the platform, to be awaited, watched, cancelled; and the files that belong to them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from os import PathLike
from typing import Any, Generic, Self, TypeVar

from anyio import move_on_after

from asyncsdk.domain.filters import Filter
from asyncsdk.domain.ids import make_id
from asyncsdk.engine import ProgressCallback, Source
from asyncsdk.entities.base import BoundRecord, entity_id, optional_id
from asyncsdk.entities.job_results import result_converter
from asyncsdk.entities.job_transfers import download_artifact, prepare_inputs, upload_inputs
from asyncsdk.entities.job_watching import follow_logs, watch_job
from asyncsdk.entities.pages import AsyncPages, listing
from asyncsdk.entities.session import Session
from asyncsdk.errors import (
    DeadlineExceeded,
    JobCancelled,
    JobFailed,
    JobLost,
    NoWorker,
    RunnerUnavailable,
)
from asyncsdk.protocol.artifacts import (
    ArtifactDirection,
    ArtifactRecord,
    GetArtifact,
    ListArtifacts,
)
from asyncsdk.protocol.base import EntityRecord
from asyncsdk.protocol.jobs import (
    FINISHED,
    CancelJob,
    CreateJob,
    DeleteJob,
    GetJob,
    JobLog,
    JobRecord,
    JobStatus,
    ListJobs,
    RetryJob,
)

__all__ = ["AsyncArtifact", "AsyncArtifacts", "AsyncJob", "AsyncJobs", "create_job"]

R = TypeVar("R")
ResultT = TypeVar("ResultT")


class AsyncJob(BoundRecord, JobRecord, Generic[ResultT]):
    """Long work of the platform: its record as it was when it was asked for, and what can be done with it.

    ``wait_result()`` waits for its end and gives its result.
    """

    @property
    def is_finished(self) -> bool:
        """Whether it ended, in whatever way."""
        return self.status in FINISHED

    @property
    def succeeded(self) -> bool:
        """Whether it ended well."""
        return self.status == "succeeded"

    @property
    def artifacts(self) -> AsyncArtifacts:
        """The files that went into the job and came out of it."""
        return AsyncArtifacts(self._client, self.id)

    def __await__(self) -> Generator[Any, None, ResultT]:
        """``await job`` is ``await job.wait_result()``."""
        return self.wait_result().__await__()

    async def wait_result(self, timeout: float | None = None) -> ResultT:
        """Wait until the job ended and return its result.

        Args:
            timeout: Seconds to wait at most; None: as long as it takes.

        Raises:
            JobFailed, JobCancelled, JobLost: It ended without a result.
            DeadlineExceeded: It is not done yet; it goes on.
        """
        job = await self.wait(timeout)
        convert = result_converter(job.kind)
        result: ResultT = job.result if convert is None else convert(job)  # type: ignore[assignment]  # its kind says
        return result

    async def wait(self, timeout: float | None = None) -> Self:
        """Wait until the job succeeded and return it as it is then.

        On a platform in this process, a job that no worker takes within a second is done here, when its runner is
        installed.

        Args:
            timeout: Seconds to wait at most; None: as long as it takes.

        Raises:
            JobFailed, JobCancelled, JobLost: It ended otherwise.
            DeadlineExceeded: It is not done yet; it goes on.
        """
        job = self
        with move_on_after(timeout):
            async with aclosing(watch_job(self._client, self)) as changes:
                async for record in changes:
                    job = self._bind(record, self._client)
        if job.succeeded:
            return job
        match job.status:
            case "failed":
                code, reason = (
                    ("error", "nobody said why") if job.error is None else (job.error.code, job.error.message)
                )
                raise JobFailed(job_id=job.id, kind=job.kind, reason=reason, error_code=code)
            case "cancelled":
                raise JobCancelled(job_id=job.id, kind=job.kind)
            case "lost":
                raise JobLost(job_id=job.id, kind=job.kind, attempts=job.attempts)
        raise DeadlineExceeded(f"job {job.id} ({job.kind}) is {job.status} after {timeout:g} s; it goes on")

    async def watch(self) -> AsyncIterator[Self]:
        """Yield the job as it is now, then whenever it changed; ends with the job as it ended."""
        async with aclosing(watch_job(self._client, self)) as changes:
            async for record in changes:
                yield self._bind(record, self._client)

    async def refresh(self) -> Self:
        """Return the job as it is now."""
        return self._bind(await self._client.send(GetJob(job_id=self.id)), self._client)

    async def cancel(self) -> Self:
        """Cancel the job and return it: at once when it is queued; when it runs, its worker is told to stop.

        A job that ended stays as it is.
        """
        return self._bind(await self._client.send(CancelJob(job_id=self.id)), self._client)

    async def retry(self) -> Self:
        """Queue the job again, with all its attempts, and return it; one that is under way stays as it is.

        Raises:
            Conflict: It succeeded.
            NoWorker: Nobody does such jobs any more.
        """
        message = RetryJob(job_id=self.id)
        record = await _with_worker(self._client, self.kind, partial(self._client.send, message))
        await self._client.ensure_worker(self.kind, start=False)
        return self._bind(record, self._client)

    async def delete(self) -> None:
        """Delete the job with its logs and files.

        Raises:
            Conflict: It has not ended; cancel it first.
        """
        await self._client.send(DeleteJob(job_id=self.id))

    async def logs(self, *, follow: bool = False, after: int = 0) -> AsyncIterator[JobLog]:
        """Yield the lines of the job's log, in order.

        Args:
            follow: Wait for those to come, until the job ended.
            after: Begin after the line with this ``sequence``.
        """
        async for line in follow_logs(self._client, self.id, after=after, follow=follow):
            yield line


class AsyncArtifact(BoundRecord, ArtifactRecord):
    """A file that went into a job or came out of it."""

    async def download(
        self, destination: str | PathLike[str], *, on_progress: ProgressCallback | None = None
    ) -> AsyncArtifact:
        """Download the file; it appears under its name only when all bytes are there and their checksum is right.

        Args:
            destination: The file; in a folder that exists, it takes the name it has in the job.
            on_progress: Told how far it is, at most every 0.1 s.

        Raises:
            DestinationFull, DestinationUnwritable: It cannot be written there.
        """
        await download_artifact(self._client, self, destination, on_progress=on_progress)
        return self


class AsyncArtifacts:
    """The files of one job."""

    def __init__(self, session: Session, job_id: str) -> None:
        self._session = session
        self._job_id = job_id

    def _bind(self, record: ArtifactRecord) -> AsyncArtifact:
        return AsyncArtifact._bind(record, self._session)

    async def get(self, artifact: ArtifactRecord | str) -> AsyncArtifact:
        """Return one file by its id.

        Raises:
            NotFound: The job has no such file.
        """
        message = GetArtifact(job_id=self._job_id, artifact_id=entity_id(artifact, "file"))
        return self._bind(await self._session.send(message))

    def list(
        self,
        *,
        direction: ArtifactDirection | None = None,
        filter: Filter | None = None,
        sort: Sequence[str] = (),
        limit: int | None = None,
    ) -> AsyncPages[AsyncArtifact]:
        """List the files, lazily, inputs first and by name unless sorted otherwise.

        Args:
            direction: Only ``input`` or ``output``.
            filter: Which ones; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        message = ListArtifacts(job_id=self._job_id, direction=direction, filter=filter, sort=tuple(sort))
        return listing(self._session, message, self._bind, limit=limit)


class AsyncJobs:
    """The jobs of a platform."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def _bind(self, record: JobRecord) -> AsyncJob[Any]:
        return AsyncJob._bind(record, self._session)

    async def create(
        self,
        kind: str,
        payload: Mapping[str, Any] | None = None,
        *,
        inputs: Mapping[str, Source] | None = None,
        priority: int = 0,
        labels: Sequence[str] = (),
        subject: EntityRecord | str | None = None,
        max_attempts: int = 3,
        metadata: Mapping[str, Any] | None = None,
    ) -> AsyncJob[Any]:
        """Queue a job. Durable when it returns.

        On a platform in this process, a worker for the kind is started here when none runs and its runner is installed.

        Args:
            kind: What is to be done.
            payload: JSON object that says with what, at most 512 KiB.
            inputs: Files that go with it, by name: paths, bytes, open binary files or asynchronous iterables of bytes.
            priority: Higher ones first; among equals the oldest.
            labels: What a worker must have to take it.
            subject: The model or dataset it is about.
            max_attempts: How many workers may go away with it before it is lost.
            metadata: JSON object of your own.

        Raises:
            NoWorker: Nobody does such jobs; the message says what to install or start.
        """
        return await create_job(
            self._session,
            kind,
            payload,
            inputs=inputs,
            priority=priority,
            labels=labels,
            subject=subject,
            max_attempts=max_attempts,
            metadata=metadata,
        )

    async def get(self, job: JobRecord | str) -> AsyncJob[Any]:
        """Return one job by its id.

        Raises:
            NotFound: There is none, or it ended long ago: jobs go 30 days after their end.
        """
        return self._bind(await self._session.send(GetJob(job_id=entity_id(job, "job"))))

    def list(
        self,
        *,
        kind: str | None = None,
        status: JobStatus | None = None,
        subject: EntityRecord | str | None = None,
        filter: Filter | None = None,
        sort: Sequence[str] = (),
        limit: int | None = None,
    ) -> AsyncPages[AsyncJob[Any]]:
        """List jobs, lazily, newest first unless sorted otherwise.

        Payloads and results over 16 KiB are left out (``is_brief``); ``refresh()`` brings them.

        Args:
            kind: Only those of a kind.
            status: Only those of a status.
            subject: Only those about a model or dataset.
            filter: Which ones; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        subject_id = optional_id(subject, "model or dataset")
        message = ListJobs(kind=kind, status=status, subject_id=subject_id, filter=filter, sort=tuple(sort))
        return listing(self._session, message, self._bind, limit=limit)


async def create_job(
    session: Session,
    kind: str,
    payload: Mapping[str, Any] | None = None,
    *,
    inputs: Mapping[str, Source] | None = None,
    priority: int = 0,
    labels: Sequence[str] = (),
    subject: EntityRecord | str | None = None,
    max_attempts: int = 3,
    metadata: Mapping[str, Any] | None = None,
) -> AsyncJob[Any]:
    """Queue a job; as `AsyncJobs.create`, for the verbs of other entities."""
    message = CreateJob(
        job_id=make_id(),
        kind=kind,
        payload=dict(payload or {}),
        priority=priority,
        labels=tuple(labels),
        subject_id=optional_id(subject, "model or dataset"),
        max_attempts=max_attempts,
        metadata=dict(metadata or {}),
    )
    if inputs:
        wanted = message.payload.get("format")
        prepare = partial(
            prepare_inputs,
            session,
            message.job_id,
            inputs,
            kind=kind,
            format=wanted if isinstance(wanted, str) else None,
        )
        uploads = await _with_worker(session, kind, prepare)
        sent = await upload_inputs(session, message.job_id, inputs, uploads)
        message = message.model_copy(update={"inputs": sent})
    record = await _with_worker(session, kind, partial(session.send, message))
    await session.ensure_worker(kind, start=False)
    if record.is_brief:  # what was sent just now need not come back
        record = record.model_copy(update={"payload": message.payload, "is_brief": False})
    return AsyncJob._bind(record, session)


async def _with_worker(session: Session, kind: str, ask: Callable[[], Awaitable[R]]) -> R:
    """Return what *ask* gives; when nobody does the jobs, it is asked again after a worker was started here.

    Raises:
        NoWorker: None can be.
    """
    try:
        return await ask()
    except NoWorker as error:
        await _start_worker(session, kind, error)
        return await ask()


async def _start_worker(session: Session, kind: str, refusal: NoWorker) -> None:
    """Start a worker in this process for jobs that nobody else does.

    Raises:
        NoWorker: It cannot be.
    """
    try:
        is_running = await session.ensure_worker(kind)
    except RunnerUnavailable as error:
        raise NoWorker(f"no worker does {kind!r} jobs, and this process cannot: {error.reason}") from error
    if not is_running:
        raise refusal
