"""Jobs, for those who do them: look, claim, report, finish, give back."""

from __future__ import annotations

from sqlalchemy import exists, func, insert, or_, select, update

from asyncsdk.errors import BadRequest
from asyncsdk.protocol.base import Empty, Problem
from asyncsdk.protocol.jobs import (
    FINISHED,
    MAX_LOG_LINES,
    MAX_RESULT_BYTES,
    ClaimedJob,
    ClaimJob,
    FinishJob,
    JobOrders,
    JobRecord,
    ReleaseJob,
    ReportJob,
)
from asyncsdk.protocol.workers import PeekJobs, QueueState
from asyncsdk.server.handlers import artifacts
from asyncsdk.server.handlers.entities import fetch, milliseconds
from asyncsdk.server.handlers.job_queue import (
    expired,
    fetch_held,
    fetch_job,
    fetch_row,
    move,
    requeue,
    settle,
    waiting_for,
)
from asyncsdk.server.handlers.registry import Context, handles
from asyncsdk.server.schema import job_logs, jobs, json_text, workers

__all__: list[str] = []

# In SQL as it is, and before all else: idle workers ask this many times a second, and to build the expressions below
# costs ten times as much as to answer.
_IS_ANYTHING_THERE = """
    SELECT EXISTS (SELECT 1 FROM workers WHERE id = :worker),
           EXISTS (SELECT 1 FROM jobs WHERE status = 'queued'),
           EXISTS (SELECT 1 FROM jobs WHERE status = 'running'
                   AND (lease_expires_at <= :now OR (lease_owner = :worker AND is_cancel_requested)))
"""


@handles(PeekJobs, role="editor")
def peek_jobs(context: Context, message: PeekJobs) -> QueueState:
    asked = {"worker": message.worker_id, "now": context.now_ms}
    is_known, *anything = context.connection.exec_driver_sql(_IS_ANYTHING_THERE, asked).one()
    if is_known and not any(anything):
        return QueueState(has_jobs=False)
    worker = fetch(context, workers, message.worker_id, "worker")
    found = context.connection.execute(
        select(or_(exists().where(waiting_for(worker)), exists().where(expired(context.now_ms))))
    ).scalar_one()
    mine = (jobs.c.status == "running") & (jobs.c.lease_owner == worker.id) & jobs.c.is_cancel_requested
    cancelled = context.connection.execute(select(jobs.c.id).where(mine)).scalars()
    return QueueState(has_jobs=bool(found), cancelled=tuple(cancelled))


@handles(ClaimJob, role="editor", writes=True)
def claim_job(context: Context, message: ClaimJob) -> ClaimedJob:
    worker = fetch(context, workers, message.worker_id, "worker")
    settle(context)
    seen = {"last_seen_at": context.now_ms}
    context.connection.execute(update(workers).where(workers.c.id == worker.id).values(seen))
    again = (jobs.c.status == "running") & (jobs.c.lease_owner == worker.id) & (jobs.c.claim_id == message.claim_id)
    job_id = context.connection.execute(select(jobs.c.id).where(again)).scalar()
    if job_id is None:
        waiting = select(jobs.c.id).where(waiting_for(worker))
        in_order = waiting.order_by(jobs.c.priority.desc(), jobs.c.created_at, jobs.c.id)
        job_id = context.connection.execute(in_order.limit(1)).scalar()
        if job_id is None:
            return ClaimedJob()
        row = fetch_row(context, job_id)
        artifacts.drop_outputs(context, job_id)  # of an attempt before: what is there in the end comes of one attempt
        move(
            context,
            row,
            "running",
            attempts=row.attempts + 1,
            lease_owner=worker.id,
            lease_expires_at=context.now_ms + round(message.lease_seconds * 1000),
            claim_id=message.claim_id,
            started_at=context.now_ms,
            stage="",
            progress=None,
            message="",
            error=None,
        )
    return ClaimedJob(job=fetch_job(context, job_id), inputs=artifacts.inputs_of(context, job_id))


@handles(ReportJob, role="editor", writes=True)
def report_job(context: Context, message: ReportJob) -> JobOrders:
    row = fetch_held(context, message.job_id, message.worker_id, message.attempt)
    _write_logs(context, message)
    names = ("stage", "progress", "message")
    changes = {name: value for name in names if (value := getattr(message, name)) is not None}
    changes = {name: value for name, value in changes.items() if value != row._mapping[name]}
    if changes:
        changes["updated_at"] = max(context.now_ms, row.updated_at + 1)
    until = context.now_ms + round(message.lease_seconds * 1000)
    context.connection.execute(update(jobs).where(jobs.c.id == row.id).values(lease_expires_at=until, **changes))
    context.connection.execute(
        update(workers).where(workers.c.id == message.worker_id).values(last_seen_at=context.now_ms)
    )
    return JobOrders(is_cancel_requested=row.is_cancel_requested, lease_expires_at=until)


def _write_logs(context: Context, message: ReportJob) -> None:
    """Write the lines that were not heard before, as far as the job's log has room."""
    if not message.logs:
        return
    mine = job_logs.c.job_id == message.job_id
    last = context.connection.execute(select(func.max(job_logs.c.sequence)).where(mine)).scalar() or 0
    # Its lines are the last ones, without a gap: to count them would read them all, once a second.
    own = select(job_logs.c.sequence).where(mine, job_logs.c.attempt == message.attempt)
    first = context.connection.execute(own.order_by(job_logs.c.sequence).limit(1)).scalar()
    heard = 0 if first is None else last - first + 1
    lines = message.logs[max(0, heard - (message.first_line - 1)) :]
    rows = [
        {
            "level": line.level,
            "text": line.text,
            "logged_at": context.now_ms if line.logged_at is None else milliseconds(line.logged_at),
        }
        for line in lines[: max(0, MAX_LOG_LINES - last)]
    ]
    if len(rows) < len(lines) and last <= MAX_LOG_LINES:
        cut = f"a job keeps {MAX_LOG_LINES} lines of log; what follows is left out"
        rows.append({"level": "warning", "text": cut, "logged_at": context.now_ms})
    if rows:
        same = {"job_id": message.job_id, "attempt": message.attempt}
        numbered = [{**same, "sequence": last + number, **row} for number, row in enumerate(rows, start=1)]
        context.connection.execute(insert(job_logs), numbered)


@handles(FinishJob, role="editor", writes=True)
def finish_job(context: Context, message: FinishJob) -> JobRecord:
    before = fetch_row(context, message.job_id)
    ended_so = before.status in FINISHED and before.status == message.status
    if ended_so and (before.lease_owner, before.attempts) == (message.worker_id, message.attempt):
        return fetch_job(context, message.job_id, "listed")  # its reply was lost
    row = fetch_held(context, message.job_id, message.worker_id, message.attempt)
    match message.status:
        case "succeeded":
            if (size := len(json_text(message.result).encode())) > MAX_RESULT_BYTES:
                raise BadRequest(f"the result has {size} bytes; {MAX_RESULT_BYTES} are allowed, outputs take the rest")
            move(context, row, "succeeded", result=message.result, progress=1.0)
        case "failed":
            problem = message.error or Problem(code="error", message="its worker did not say why")
            move(context, row, "failed", error=problem.model_dump(exclude_none=True))
        case "cancelled":
            move(context, row, "cancelled")
    return fetch_job(context, message.job_id, "listed")


@handles(ReleaseJob, role="editor", writes=True)
def release_job(context: Context, message: ReleaseJob) -> Empty:
    settle(context)
    row = fetch_row(context, message.job_id)
    if (row.status, row.lease_owner, row.attempts) == ("running", message.worker_id, message.attempt):
        requeue(context, row, is_forgiven=True)
    return Empty()
