# Generated from asyncsdk/entities/jobs.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""Jobs: long work of the platform, to be awaited, watched, cancelled; and the files that belong to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import Any, Generic, Self

from asyncsdk.domain.filters import Filter
from asyncsdk.engine import ProgressCallback, Source
from asyncsdk.entities.jobs import AsyncArtifact, AsyncArtifacts, AsyncJob, AsyncJobs, ResultT
from asyncsdk.protocol.artifacts import ArtifactDirection, ArtifactRecord
from asyncsdk.protocol.base import EntityRecord
from asyncsdk.protocol.jobs import JobLog, JobRecord, JobStatus
from asyncsdk.sync.bridge import on_caller, run
from asyncsdk.sync.iterables import caller_streams
from asyncsdk.sync.iteration import iterate
from asyncsdk.sync.pages import Pages
from asyncsdk.sync.twins import BlockingRecord, BlockingTwin, blocking

__all__ = ["Artifact", "Artifacts", "Job", "Jobs"]


class Job(BlockingRecord, JobRecord, Generic[ResultT]):
    """Long work of the platform: its record as it was when it was asked for, and what can be done with it.

    ``wait_result()`` waits for its end and gives its result.
    """

    @property
    def _twin(self) -> AsyncJob[ResultT]:
        return AsyncJob._bind(self, self._client)

    @property
    def is_finished(self) -> bool:
        """Whether it ended, in whatever way."""
        return self._twin.is_finished

    @property
    def succeeded(self) -> bool:
        """Whether it ended well."""
        return self._twin.succeeded

    @property
    def artifacts(self) -> Artifacts:
        """The files that went into the job and came out of it."""
        return Artifacts._of(self._twin.artifacts)

    def wait_result(self, timeout: float | None = None) -> ResultT:
        """Wait until the job ended and return its result.

        Args:
            timeout: Seconds to wait at most; None: as long as it takes.

        Raises:
            JobFailed, JobCancelled, JobLost: It ended without a result.
            DeadlineExceeded: It is not done yet; it goes on.
        """
        return blocking(run(self._twin.wait_result, timeout))

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until the job succeeded and return it as it is then.

        On a platform in this process, a job that no worker takes within a second is done here, when its runner is
        installed.

        Args:
            timeout: Seconds to wait at most; None: as long as it takes.

        Raises:
            JobFailed, JobCancelled, JobLost: It ended otherwise.
            DeadlineExceeded: It is not done yet; it goes on.
        """
        return self._of(run(self._twin.wait, timeout))

    def watch(self) -> Iterator[Self]:
        """Yield the job as it is now, then whenever it changed; ends with the job as it ended."""
        return map(self._of, iterate(self._twin.watch()))

    def refresh(self) -> Self:
        """Return the job as it is now."""
        return self._of(run(self._twin.refresh))

    def cancel(self) -> Self:
        """Cancel the job and return it: at once when it is queued; when it runs, its worker is told to stop.

        A job that ended stays as it is.
        """
        return self._of(run(self._twin.cancel))

    def retry(self) -> Self:
        """Queue the job again, with all its attempts, and return it; one that is under way stays as it is.

        Raises:
            Conflict: It succeeded.
            NoWorker: Nobody does such jobs any more.
        """
        return self._of(run(self._twin.retry))

    def delete(self) -> None:
        """Delete the job with its logs and files.

        Raises:
            Conflict: It has not ended; cancel it first.
        """
        run(self._twin.delete)

    def logs(self, *, follow: bool = False, after: int = 0) -> Iterator[JobLog]:
        """Yield the lines of the job's log, in order.

        Args:
            follow: Wait for those to come, until the job ended.
            after: Begin after the line with this ``sequence``.
        """
        return iterate(self._twin.logs(follow=follow, after=after))


class Artifact(BlockingRecord, ArtifactRecord):
    """A file that went into a job or came out of it."""

    @property
    def _twin(self) -> AsyncArtifact:
        return AsyncArtifact._bind(self, self._client)

    def download(self, destination: str | PathLike[str], *, on_progress: ProgressCallback | None = None) -> Artifact:
        """Download the file; it appears under its name only when all bytes are there and their checksum is right.

        Args:
            destination: The file; in a folder that exists, it takes the name it has in the job.
            on_progress: Told how far it is, at most every 0.1 s.

        Raises:
            DestinationFull, DestinationUnwritable: It cannot be written there.
        """
        return Artifact._of(run(self._twin.download, destination, on_progress=on_caller(on_progress)))


class Artifacts(BlockingTwin[AsyncArtifacts]):
    """The files of one job."""

    def get(self, artifact: ArtifactRecord | str) -> Artifact:
        """Return one file by its id.

        Raises:
            NotFound: The job has no such file.
        """
        return Artifact._of(run(self._twin.get, artifact))

    def list(
        self,
        *,
        direction: ArtifactDirection | None = None,
        filter: Filter | None = None,
        sort: Sequence[str] = (),
        limit: int | None = None,
    ) -> Pages[Artifact]:
        """List the files, lazily, inputs first and by name unless sorted otherwise.

        Args:
            direction: Only ``input`` or ``output``.
            filter: Which ones; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        return Pages(self._twin.list(direction=direction, filter=filter, sort=sort, limit=limit), Artifact._of)


class Jobs(BlockingTwin[AsyncJobs]):
    """The jobs of a platform."""

    def create(
        self,
        kind: str,
        payload: Mapping[str, Any] | None = None,
        *,
        inputs: Mapping[str, Source | Iterable[bytes]] | None = None,
        priority: int = 0,
        labels: Sequence[str] = (),
        subject: EntityRecord | str | None = None,
        max_attempts: int = 3,
        metadata: Mapping[str, Any] | None = None,
    ) -> Job[Any]:
        """Queue a job. Durable when it returns.

        On a platform in this process, a worker for the kind is started here when none runs and its runner is installed.

        Args:
            kind: What is to be done.
            payload: JSON object that says with what, at most 512 KiB.
            inputs: Files that go with it, by name: paths, bytes, open binary files or iterables of bytes.
            priority: Higher ones first; among equals the oldest.
            labels: What a worker must have to take it.
            subject: The model or dataset it is about.
            max_attempts: How many workers may go away with it before it is lost.
            metadata: JSON object of your own.

        Raises:
            NoWorker: Nobody does such jobs; the message says what to install or start.
        """
        return Job._of(
            run(
                self._twin.create,
                kind,
                payload,
                inputs=caller_streams(inputs),
                priority=priority,
                labels=labels,
                subject=subject,
                max_attempts=max_attempts,
                metadata=metadata,
            )
        )

    def get(self, job: JobRecord | str) -> Job[Any]:
        """Return one job by its id.

        Raises:
            NotFound: There is none, or it ended long ago: jobs go 30 days after their end.
        """
        return Job._of(run(self._twin.get, job))

    def list(
        self,
        *,
        kind: str | None = None,
        status: JobStatus | None = None,
        subject: EntityRecord | str | None = None,
        filter: Filter | None = None,
        sort: Sequence[str] = (),
        limit: int | None = None,
    ) -> Pages[Job[Any]]:
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
        return Pages(
            self._twin.list(kind=kind, status=status, subject=subject, filter=filter, sort=sort, limit=limit), Job._of
        )
