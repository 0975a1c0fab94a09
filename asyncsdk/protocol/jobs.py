"""Jobs: long work of the platform, one queue for all kinds of it, and the files that go into a job and come out of it.

A job waits until a worker that offers its kind takes it. The worker holds it by a lease that its reports extend; a
lease that ran out puts the job back until its attempts are used up. What is reported or finished in the name of an
attempt that is over is refused: at most one worker speaks for a job.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, JsonValue

from asyncsdk.domain.ids import Id
from asyncsdk.domain.paths import Name
from asyncsdk.protocol.artifacts import ArtifactRecord, Attempt
from asyncsdk.protocol.base import (
    MAX_BULK_ENTRIES,
    Crc32cHex,
    Delete,
    Empty,
    EntityRecord,
    Get,
    ListMessage,
    Message,
    Metadata,
    Post,
    Problem,
    Record,
    Timestamp,
    Value,
)
from asyncsdk.protocol.uploads import PreparedUploads, UploadKey

__all__ = [
    "FINISHED",
    "CancelJob",
    "ClaimJob",
    "ClaimedJob",
    "CreateJob",
    "DeleteJob",
    "FinishJob",
    "GetJob",
    "JobInput",
    "JobKind",
    "JobLabels",
    "JobLog",
    "JobLogs",
    "JobOrders",
    "JobRecord",
    "JobStatus",
    "ListJobLogs",
    "ListJobs",
    "LogLevel",
    "LogLine",
    "PlannedInput",
    "PrepareJobInputs",
    "ReleaseJob",
    "ReportJob",
    "RetryJob",
]

JobStatus = Literal["queued", "running", "succeeded", "failed", "cancelled", "lost"]
"""``lost``: every worker that took it went away, as often as it may be tried."""

FINISHED: frozenset[str] = frozenset({"succeeded", "failed", "cancelled", "lost"})
"""The statuses of jobs that nothing happens to any more."""

JobKind = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
"""Name of a kind of job: lower-case letters, digits and underscores, at most 64."""

JobLabels = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=100)], ...], Field(max_length=32)]
"""Words that a job asks for and a worker has, such as ``gpu``; a worker that has more of them may take it, too."""

LogLevel = Literal["debug", "info", "warning", "error"]

MAX_PRIORITY = 1_000_000
MAX_PAYLOAD_BYTES = 512 * 1024
"""Of the JSON of a payload: 256 KiB of bytes fit as base64. What is larger is an input."""
MAX_RESULT_BYTES = 4 * 1024 * 1024
"""Of the JSON of a result. What is larger is an output."""
MAX_LOG_LINES = 10_000
"""Lines that a job keeps; those that follow are dropped, and a last one says so."""
MAX_LOG_TEXT = 8192
"""Characters of one line."""
MAX_LOGS_OF_REPORT = 500
BRIEF_BYTES = 16 * 1024
"""Payloads and results whose JSON is larger are left out of listings."""

Progress = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class JobRecord(EntityRecord):
    """A job.

    Attributes:
        kind: What is to be done; decides who can do it.
        status: ``queued``, ``running``, or how it ended: ``succeeded``, ``failed``, ``cancelled``, ``lost``.
        payload: What it is to be done with.
        result: What came of it; None until it succeeded.
        priority: Higher ones first; among equals the oldest.
        labels: What a worker must have to take it.
        subject_id: The model or dataset it is about; it may be deleted before the job is.
        worker_id: Who has it, or had it last.
        attempts: How often it was taken; also the number of the attempt that runs.
        max_attempts: How many workers may go away with it before it is lost.
        stage: What is being done, in a word or two.
        progress: Share that is done, 0 to 1; None: nobody knows.
        message: What the worker last said of it.
        error: Why it failed or was lost.
        is_cancel_requested: Whether it is to stop as soon as its worker hears of it.
        started_at: When its last attempt began.
        ended_at: When it ended.
        is_brief: Whether payload and result were left out: large ones are, from listings.
    """

    kind: str
    status: JobStatus
    payload: dict[str, JsonValue] = {}
    result: JsonValue = None
    priority: int = 0
    labels: tuple[str, ...] = ()
    subject_id: str | None = None
    worker_id: str | None = None
    attempts: int = 0
    max_attempts: int = 3
    stage: str = ""
    progress: float | None = None
    message: str = ""
    error: Problem | None = None
    is_cancel_requested: bool = False
    started_at: Timestamp | None = None
    ended_at: Timestamp | None = None
    is_brief: bool = False


# --- who wants something done --------------------------------------------------------------------------------


class PlannedInput(Value):
    """A file that shall go into a job.

    Attributes:
        name: Unique among the job's inputs.
        size_bytes: Its size; None when not known before it was read.
        crc32c: Its checksum, when known: then arriving bytes are checked against it.
    """

    name: Name
    size_bytes: Annotated[int, Field(ge=0)] | None = None
    crc32c: Crc32cHex | None = None


class JobInput(Value):
    """A file that was sent for a job: name and key as prepared, size and checksum of the bytes that were sent."""

    name: Name
    key: UploadKey
    size_bytes: Annotated[int, Field(ge=0)]
    crc32c: Crc32cHex


class PrepareJobInputs(Message[PreparedUploads]):
    """Mint targets for the inputs of a job that is to be created with this id. Writes nothing; one answer per entry.

    Every verdict is ``upload`` or ``refused``. To renew them, the id of the job is the scope. With ``kind`` (and
    ``format``, when the payload will name one) it is refused as `CreateJob` would be, before bytes travel for nothing.
    """

    route: ClassVar = Post("/jobs/{job_id}/inputs/prepare")
    job_id: Id
    kind: JobKind | None = None
    format: Annotated[str, Field(max_length=255)] | None = None
    entries: Annotated[tuple[PlannedInput, ...], Field(min_length=1, max_length=MAX_BULK_ENTRIES)]


class CreateJob(Message[JobRecord]):
    """Queue a job, with the inputs that were sent for it. Durable when it answers; idempotent by ``job_id``.

    Refused (``no_worker``) when no worker that was seen within a minute offers the kind; and, when the payload names a
    ``format`` and the kind's offers name ``formats``, this one. Whether a worker has the labels is not asked: the job
    waits until one does.
    """

    route: ClassVar = Post("/jobs")
    job_id: Id
    kind: JobKind
    payload: Metadata = {}
    priority: Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] = 0
    labels: JobLabels = ()
    subject_id: Id | None = None
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    inputs: Annotated[tuple[JobInput, ...], Field(max_length=MAX_BULK_ENTRIES)] = ()
    metadata: Metadata = {}


class GetJob(Message[JobRecord]):
    """Return one job; with ``brief`` without payload and result, which is what waiting for it needs."""

    route: ClassVar = Get("/jobs/{job_id}")
    job_id: Id
    brief: bool = False


class ListJobs(ListMessage[JobRecord]):
    """List jobs, newest first unless sorted otherwise. Payloads and results over 16 KiB are left out."""

    route: ClassVar = Get("/jobs")
    kind: JobKind | None = None
    status: JobStatus | None = None
    subject_id: Id | None = None


class CancelJob(Message[JobRecord]):
    """Cancel a job: at once when it is queued; when it runs, its worker is told to stop. One that ended stays so."""

    route: ClassVar = Post("/jobs/{job_id}/cancel")
    job_id: Id


class RetryJob(Message[JobRecord]):
    """Queue a job again that failed, was cancelled or lost, with all its attempts. One that is under way stays so.

    Refused when it succeeded, and as `CreateJob` when nobody offers its kind.
    """

    route: ClassVar = Post("/jobs/{job_id}/retry")
    job_id: Id


class DeleteJob(Message[Empty]):
    """Delete a job that ended, with its logs and files."""

    route: ClassVar = Delete("/jobs/{job_id}")
    job_id: Id


# --- logs ----------------------------------------------------------------------------------------------------


class LogLine(Value):
    """A line that a worker writes."""

    text: Annotated[str, Field(max_length=MAX_LOG_TEXT)]
    level: LogLevel = "info"
    logged_at: Timestamp | None = None


class JobLog(Record):
    """A line of a job's log.

    Attributes:
        sequence: Number of the line in the job, from 1.
        attempt: The attempt that wrote it.
        level: ``debug``, ``info``, ``warning`` or ``error``.
        text: One or more lines of text.
        logged_at: When it was written, by the worker's clock.
    """

    sequence: int
    attempt: int
    level: LogLevel
    text: str
    logged_at: Timestamp


class JobLogs(Record):
    """Lines in order; ``last`` is the sequence to go on after."""

    entries: tuple[JobLog, ...]
    last: int


class ListJobLogs(Message[JobLogs]):
    """Return the lines of a job that come after one, at most ``limit``."""

    route: ClassVar = Get("/jobs/{job_id}/logs")
    job_id: Id
    after: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1, le=MAX_BULK_ENTRIES)] = 500


# --- who does it ---------------------------------------------------------------------------------------------


class ClaimedJob(Record):
    """The job that a worker has now, with its inputs; None: there is none for it."""

    job: JobRecord | None = None
    inputs: tuple[ArtifactRecord, ...] = ()


class ClaimJob(Message[ClaimedJob]):
    """Take the next job for a worker: one that it offers the kind of, and has the labels for; none is taken twice.

    Repeating the message with the same ``claim_id`` gives the same job, as long as its attempt lasts.
    """

    route: ClassVar = Post("/workers/{worker_id}/claim")
    worker_id: Id
    claim_id: Id
    lease_seconds: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] = 30.0


class JobOrders(Record):
    """What a worker is to know of its job.

    Attributes:
        is_cancel_requested: Whether it is to stop.
        lease_expires_at: Until when it has the job unless it reports again.
    """

    is_cancel_requested: bool
    lease_expires_at: Timestamp


class ReportJob(Message[JobOrders]):
    """Say how far a job is, which extends the lease. A field that is not given stays as it is.

    ``first_line`` is the number, within the attempt and from 1, of the first line of ``logs``: lines that were heard
    before are not written again. Refused (``lease_lost``) when the attempt is over.
    """

    route: ClassVar = Post("/jobs/{job_id}/report")
    job_id: Id
    worker_id: Id
    attempt: Attempt
    stage: Annotated[str, Field(max_length=255)] | None = None
    progress: Progress | None = None
    message: Annotated[str, Field(max_length=4096)] | None = None
    logs: Annotated[tuple[LogLine, ...], Field(max_length=MAX_LOGS_OF_REPORT)] = ()
    first_line: Annotated[int, Field(ge=1)] = 1
    lease_seconds: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] = 30.0


class FinishJob(Message[JobRecord]):
    """End a job. Idempotent; refused (``lease_lost``) when the attempt is over."""

    route: ClassVar = Post("/jobs/{job_id}/finish")
    job_id: Id
    worker_id: Id
    attempt: Attempt
    status: Literal["succeeded", "failed", "cancelled"]
    result: JsonValue = None
    error: Problem | None = None


class ReleaseJob(Message[Empty]):
    """Give a job back: it is queued again at once, and the attempt does not count. Nothing when the attempt is over."""

    route: ClassVar = Post("/jobs/{job_id}/release")
    job_id: Id
    worker_id: Id
    attempt: Attempt
