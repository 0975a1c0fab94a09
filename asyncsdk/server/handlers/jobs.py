"""Jobs, for those who want something done: create, get, list, cancel, retry, delete, and read the log."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, func, select
from sqlalchemy import insert as insert_into

from asyncsdk.errors import BadRequest, Conflict
from asyncsdk.protocol.base import Empty, Page
from asyncsdk.protocol.jobs import (
    FINISHED,
    MAX_PAYLOAD_BYTES,
    CancelJob,
    CreateJob,
    DeleteJob,
    GetJob,
    JobLog,
    JobLogs,
    JobRecord,
    ListJobLogs,
    ListJobs,
    RetryJob,
)
from asyncsdk.server.handlers import artifacts
from asyncsdk.server.handlers.entities import history_fields
from asyncsdk.server.handlers.job_queue import (
    fetch_job,
    fetch_row,
    job_columns,
    move,
    require_offer,
    settle,
    status_at,
    to_job,
)
from asyncsdk.server.handlers.outbox import tell
from asyncsdk.server.handlers.registry import Arrivals, Context, handles
from asyncsdk.server.listing import Field, Listing, list_page
from asyncsdk.server.schema import job_logs, jobs, json_text

__all__ = ["prune_jobs"]

JOB_LIFETIME_MS = 30 * 24 * 60 * 60 * 1000
"""How long a job that ended can be looked at."""

_PRUNED_AT_ONCE = 200


def _listing(now_ms: int) -> Listing:
    return Listing(
        fields={
            "id": Field(jobs.c.id, is_unique=True),
            "kind": Field(jobs.c.kind),
            "status": Field(status_at(now_ms)),
            "priority": Field(jobs.c.priority, "number"),
            "subject_id": Field(jobs.c.subject_id, is_nullable=True),
            "worker_id": Field(jobs.c.lease_owner, is_nullable=True),
            "attempts": Field(jobs.c.attempts, "number"),
            "stage": Field(jobs.c.stage),
            "progress": Field(jobs.c.progress, "number", is_nullable=True),
            "created_at": Field(jobs.c.created_at, "number"),
            "updated_at": Field(jobs.c.updated_at, "number"),
            "started_at": Field(jobs.c.started_at, "number", is_nullable=True),
            "ended_at": Field(jobs.c.ended_at, "number", is_nullable=True),
            "created_by": Field(jobs.c.created_by, is_nullable=True),
        },
        metadata=jobs.c.metadata,
        default_sort=("-created_at",),
    )


def _made_before(context: Context, message: CreateJob) -> bool:
    """Whether an earlier call made the job.

    Raises:
        Conflict: The id belongs to another job.
    """
    kind = context.connection.execute(select(jobs.c.kind).where(jobs.c.id == message.job_id)).scalar()
    if kind not in {None, message.kind}:
        raise Conflict(f"the id {message.job_id} belongs to another job", ids=(message.job_id,))
    return kind is not None


def _arrivals(context: Context, message: CreateJob) -> Arrivals:
    if _made_before(context, message):
        return Arrivals({})
    return artifacts.arrivals_of(context, message.job_id, message.inputs)


@handles(CreateJob, role="editor", writes=True, arrivals=_arrivals)
def create_job(context: Context, message: CreateJob) -> JobRecord:
    if not _made_before(context, message):
        if (size := len(json_text(message.payload).encode())) > MAX_PAYLOAD_BYTES:
            raise BadRequest(f"the payload has {size} bytes; {MAX_PAYLOAD_BYTES} are allowed, inputs take the rest")
        require_offer(context, message.kind, message.payload)
        values = {
            "id": message.job_id,
            "kind": message.kind,
            "status": "queued",
            "payload": message.payload,
            "priority": message.priority,
            "labels": sorted(set(message.labels)),
            "subject_id": message.subject_id,
            "max_attempts": message.max_attempts,
            "metadata": message.metadata,
        }
        context.connection.execute(insert_into(jobs).values({**history_fields(context), **values}))
        artifacts.add_inputs(context, message.job_id, message.inputs)
        tell(context, "job.queued", message.job_id, kind=message.kind, attempt=0)
    return fetch_job(context, message.job_id, "listed")


@handles(GetJob, role="viewer")
def get_job(context: Context, message: GetJob) -> JobRecord:
    return fetch_job(context, message.job_id, "brief" if message.brief else "whole")


@handles(ListJobs, role="viewer")
def list_jobs(context: Context, message: ListJobs) -> Page[JobRecord]:
    statement = select(*job_columns(context.now_ms, "listed"))
    if message.kind is not None:
        statement = statement.where(jobs.c.kind == message.kind)
    if message.status is not None:
        # The second follows from the first; said alone it lets an index begin there.
        statement = statement.where(status_at(context.now_ms) == message.status)
        statement = statement.where(jobs.c.status.in_({message.status, "running"}))
        if message.status == "running":  # few of many: else all jobs are gone through in the order of their time
            statement = statement.where(jobs.c.id.in_(select(jobs.c.id).where(jobs.c.status == "running")))
    if message.subject_id is not None:
        statement = statement.where(jobs.c.subject_id == message.subject_id)
    return list_page(context.connection, _listing(context.now_ms), statement, message, to_job)


@handles(CancelJob, role="editor", writes=True)
def cancel_job(context: Context, message: CancelJob) -> JobRecord:
    settle(context)
    row = fetch_row(context, message.job_id)
    if row.status == "queued":
        move(context, row, "cancelled", is_cancel_requested=True)
    elif row.status == "running" and not row.is_cancel_requested:
        move(context, row, "running", is_cancel_requested=True)
    return fetch_job(context, message.job_id)


@handles(RetryJob, role="editor", writes=True)
def retry_job(context: Context, message: RetryJob) -> JobRecord:
    settle(context)
    row = fetch_row(context, message.job_id)
    if row.status == "succeeded":
        raise Conflict(f"job {row.id} succeeded; create another one", ids=(row.id,))
    if row.status in FINISHED:
        whole = fetch_job(context, message.job_id)
        require_offer(context, whole.kind, whole.payload)
        context.connection.execute(delete(job_logs).where(job_logs.c.job_id == row.id))
        artifacts.drop_outputs(context, row.id)
        fresh = {"stage": "", "progress": None, "message": "", "error": None, "result": None, "started_at": None}
        move(context, row, "queued", is_cancel_requested=False, forgiven_attempts=row.attempts, **fresh)
    return fetch_job(context, message.job_id)


@handles(DeleteJob, role="editor", writes=True)
def delete_job(context: Context, message: DeleteJob) -> Empty:
    settle(context)
    row = fetch_row(context, message.job_id)
    if row.status not in FINISHED:
        raise Conflict(f"job {row.id} is {row.status}; cancel it first", ids=(row.id,))
    _remove(context.connection, [row.id])
    return Empty()


def _remove(connection: Connection, job_ids: list[str]) -> None:
    artifacts.remove_all(connection, job_ids)
    connection.execute(delete(job_logs).where(job_logs.c.job_id.in_(job_ids)))
    connection.execute(delete(jobs).where(jobs.c.id.in_(job_ids)))


def prune_jobs(connection: Connection, *, now_ms: int) -> int:
    """Delete some of the jobs that ended 30 days ago or earlier, with their logs and files; returns how many."""
    statement = select(jobs.c.id).where(
        jobs.c.status.in_(FINISHED), func.coalesce(jobs.c.ended_at, jobs.c.updated_at) < now_ms - JOB_LIFETIME_MS
    )
    found = list(connection.execute(statement.limit(_PRUNED_AT_ONCE)).scalars())
    if found:
        _remove(connection, found)
    return len(found)


@handles(ListJobLogs, role="viewer")
def list_job_logs(context: Context, message: ListJobLogs) -> JobLogs:
    fetch_row(context, message.job_id)
    statement = select(job_logs).where(job_logs.c.job_id == message.job_id, job_logs.c.sequence > message.after)
    rows: Any = context.connection.execute(statement.order_by(job_logs.c.sequence).limit(message.limit)).all()
    entries = tuple(JobLog.model_validate(row._mapping) for row in rows)
    return JobLogs(entries=entries, last=entries[-1].sequence if entries else message.after)
