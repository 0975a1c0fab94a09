"""The queue's rules: what a job's status is, how it changes, and which worker may have which job.

    queued -> running            claimed: a lease, one attempt more
    running -> queued            the lease ran out, or the job was given back
    running -> lost              the lease ran out, and no attempt is left
    running -> succeeded, failed, cancelled
    queued -> cancelled
    failed, cancelled, lost -> queued      retried

A lease runs out by the clock, without anybody who writes that down: whatever reads a status takes it from `status_at`,
and every change of the queue begins with `settle`, which makes the rows say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    Text,
    and_,
    case,
    func,
    literal,
    null,
    or_,
    select,
    text,
    type_coerce,
    update,
)

from asyncsdk.errors import Conflict, NotFound, NoWorker
from asyncsdk.protocol.base import Problem
from asyncsdk.protocol.jobs import BRIEF_BYTES, FINISHED, JobRecord, JobStatus
from asyncsdk.protocol.workers import ONLINE_SECONDS
from asyncsdk.server.handlers.outbox import tell
from asyncsdk.server.handlers.registry import Context
from asyncsdk.server.schema import JsonText, jobs, json_text, workers

__all__ = [
    "expired",
    "fetch_held",
    "fetch_job",
    "fetch_row",
    "job_columns",
    "move",
    "requeue",
    "require_offer",
    "settle",
    "status_at",
    "to_job",
    "waiting_for",
]

Detail = Literal["whole", "listed", "brief"]
"""``listed``: large payloads and results are left out; ``brief``: all are."""

_SETTLED_AT_ONCE = 1000
_RENAMED = {"lease_owner": "worker_id"}
_HIDDEN = {"payload", "result", "status", "lease_expires_at", "forgiven_attempts", "claim_id"}
_EXTRAS = {"export": "predict", "predict": "predict", "unpack_archive": "archive"}
"""Extras of this package that bring what the runner of a kind needs."""


def expired(now_ms: int) -> ColumnElement[bool]:
    """Return what holds for jobs whose lease ran out."""
    return and_(jobs.c.status == "running", jobs.c.lease_expires_at <= now_ms)


def status_at(now_ms: int) -> ColumnElement[str]:
    """Return the status of a job at a time, in SQL."""
    return case(
        (or_(jobs.c.status != "running", jobs.c.lease_expires_at > now_ms), jobs.c.status),
        (jobs.c.is_cancel_requested, literal("cancelled")),
        (jobs.c.attempts - jobs.c.forgiven_attempts >= jobs.c.max_attempts, literal("lost")),
        else_=literal("queued"),
    )


def job_columns(now_ms: int, detail: Detail = "whole") -> list[ColumnElement[Any]]:
    """Return what `to_job` needs, in SQL."""
    columns: list[ColumnElement[Any]] = [
        column.label(_RENAMED[column.name]) if column.name in _RENAMED else column
        for column in jobs.c
        if column.name not in _HIDDEN
    ]
    columns.append(status_at(now_ms).label("status"))
    if detail == "whole":
        return [*columns, jobs.c.payload, jobs.c.result]
    if detail == "brief":
        empty = [literal({}, JsonText).label("payload"), null().label("result")]
        return [*columns, *empty, literal(True).label("is_brief")]
    left_out = []
    for column, nothing in ((jobs.c.payload, literal("{}", Text)), (jobs.c.result, null())):
        kept = type_coerce(column, Text)
        is_large = func.coalesce(func.length(kept), 0) > BRIEF_BYTES
        columns.append(type_coerce(case((is_large, nothing), else_=kept), JsonText).label(column.name))
        left_out.append(is_large)
    return [*columns, or_(*left_out).label("is_brief")]


def to_job(row: Row[Any]) -> JobRecord:
    """Return the record of a row of `job_columns`."""
    return JobRecord.model_validate(row._mapping)


def fetch_job(context: Context, job_id: str, detail: Detail = "whole") -> JobRecord:
    """Return a job.

    Raises:
        NotFound: There is none.
    """
    statement = select(*job_columns(context.now_ms, detail)).where(jobs.c.id == job_id)
    row = context.connection.execute(statement).first()
    if row is None:
        raise NotFound(f"there is no job {job_id}")
    return to_job(row)


# --- changes of status ---------------------------------------------------------------------------------------


def _rows(now_ms: int) -> Select[Any]:
    """Select what the rules need to know of a job."""
    counts = "attempts forgiven_attempts max_attempts"
    names = f"id kind lease_owner is_cancel_requested updated_at stage progress message {counts}"
    return select(*(jobs.c[name] for name in names.split()), status_at(now_ms).label("status"))


def settle(context: Context) -> None:
    """Put jobs whose lease ran out where `status_at` says they are."""
    statement = _rows(context.now_ms).where(expired(context.now_ms)).limit(_SETTLED_AT_ONCE)
    while rows := context.connection.execute(statement).all():
        for row in rows:
            requeue(context, row)


def fetch_row(context: Context, job_id: str) -> Row[Any]:
    """Return what the rules need to know of a job.

    Raises:
        NotFound: There is none.
    """
    row = context.connection.execute(_rows(context.now_ms).where(jobs.c.id == job_id)).first()
    if row is None:
        raise NotFound(f"there is no job {job_id}")
    return row


def fetch_held(context: Context, job_id: str, worker_id: str, attempt: int) -> Row[Any]:
    """Return the row of a job that a worker has, by this attempt.

    Raises:
        NotFound: There is no such job.
        Conflict: The attempt is over (``lease_lost``).
    """
    row = fetch_row(context, job_id)
    if row.status != "running" or row.lease_owner != worker_id or row.attempts != attempt:
        raise Conflict(
            f"attempt {attempt} at job {job_id} is over: its lease ran out, or the job was given back; it is "
            f"{row.status} now",
            code="lease_lost",
            ids=(job_id,),
        )
    return row


def move(context: Context, row: Row[Any], status: JobStatus, **changes: Any) -> None:
    """Change the status of a job and what goes with it, and tell of it."""
    values: dict[str, Any] = {"status": status, "updated_at": max(context.now_ms, row.updated_at + 1), **changes}
    if status != "running":
        values |= {"lease_expires_at": None, "claim_id": None}
    if status == "queued":
        values |= {"lease_owner": None, "ended_at": None}
    if status in FINISHED:
        values["ended_at"] = context.now_ms
    context.connection.execute(update(jobs).where(jobs.c.id == row.id).values(values))
    attempt = values.get("attempts", row.attempts)
    tell(context, f"job.{status}", row.id, kind=row.kind, attempt=attempt)


def requeue(context: Context, row: Row[Any], *, is_forgiven: bool = False) -> None:
    """Take a running job from its worker: back into the queue, or to its end.

    Args:
        context: Of the message.
        row: Of a running job.
        is_forgiven: Whether the attempt does not count.
    """
    if row.is_cancel_requested:
        move(context, row, "cancelled")
    elif is_forgiven:
        move(context, row, "queued", forgiven_attempts=row.forgiven_attempts + 1)
    elif row.attempts - row.forgiven_attempts >= row.max_attempts:
        reason = f"{row.attempts - row.forgiven_attempts} times a worker took it and was not heard of any more"
        move(context, row, "lost", error=Problem(code="job_lost", message=reason).model_dump(exclude_none=True))
    else:
        move(context, row, "queued")


# --- who may have what ---------------------------------------------------------------------------------------


def _formats(offer: Any) -> list[str] | None:
    """Return the formats that an offer is limited to; None when it is not."""
    formats = offer.get("formats") if isinstance(offer, dict) else None
    return [name for name in formats if isinstance(name, str)] if isinstance(formats, list) else None


def waiting_for(worker: Row[Any]) -> ColumnElement[bool]:
    """Return what holds for queued jobs that a worker may have: it does their kind and format, and has their labels."""
    ways: list[ColumnElement[bool]] = []
    plain = [kind for kind, offer in worker.offers.items() if _formats(offer) is None]
    for kind, offer in worker.offers.items():
        if (formats := _formats(offer)) is not None:
            wanted = func.json_extract(type_coerce(jobs.c.payload, Text), "$.format")
            ways.append(and_(jobs.c.kind == kind, or_(wanted.is_(None), wanted.in_(formats))))
    has_labels = text(
        "NOT EXISTS (SELECT 1 FROM json_each(jobs.labels) AS wanted "
        "WHERE wanted.value NOT IN (SELECT value FROM json_each(:mine)))"
    ).bindparams(mine=json_text(worker.labels))
    return and_(
        jobs.c.status == "queued",
        or_(jobs.c.kind.in_(plain), *ways),
        or_(type_coerce(jobs.c.labels, Text) == "[]", has_labels),
    )


def require_offer(context: Context, kind: str, payload: Mapping[str, Any]) -> None:
    """Let a job pass that a worker does which was seen lately.

    Raises:
        NoWorker: There is none; the message says what to do about it.
    """
    since = context.now_ms - ONLINE_SECONDS * 1000
    path = f'$."{kind}"'  # its pattern has no quotes
    statement = select(workers.c.offers).where(
        workers.c.last_seen_at > since, func.json_type(type_coerce(workers.c.offers, Text), path).is_not(None)
    )
    found = [row.offers[kind] for row in context.connection.execute(statement)]
    wanted = payload.get("format")
    formats: set[str] = set()
    for offer in found:
        offered = _formats(offer)
        if wanted is None or offered is None or wanted in offered:
            return
        formats.update(offered)
    if found:
        known = ", ".join(sorted(formats)) or "none"
        raise NoWorker(f"no worker does {kind!r} jobs of format {wanted!r}; those that do {kind!r} offer: {known}")
    extra = f" (where it runs: pip install 'asyncsdk[{_EXTRAS[kind]}]')" if kind in _EXTRAS else ""
    raise NoWorker(f"no worker does {kind!r} jobs; start one with: asyncsdk worker{extra}")
