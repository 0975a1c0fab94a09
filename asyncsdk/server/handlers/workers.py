"""Workers: create, get, list, beat, delete."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Text, and_, delete, func, select, type_coerce, update

from asyncsdk.domain.ids import make_id
from asyncsdk.protocol.base import Empty, Page
from asyncsdk.protocol.workers import (
    ONLINE_SECONDS,
    BeatWorker,
    CreateWorker,
    DeleteWorker,
    GetWorker,
    ListWorkers,
    WorkerRecord,
)
from asyncsdk.server.handlers.entities import add, fetch, repeated
from asyncsdk.server.handlers.job_queue import fetch_row, requeue, settle
from asyncsdk.server.handlers.registry import Context, handles
from asyncsdk.server.listing import Field, Listing, list_page
from asyncsdk.server.schema import jobs, workers

__all__ = ["prune_workers"]

TEMPORARY_LIFETIME_MS = 24 * 60 * 60 * 1000
"""When a temporary worker that did not say goodbye is forgotten."""


def _is_online(now_ms: int) -> ColumnElement[bool]:
    has_offers = type_coerce(workers.c.offers, Text) != "{}"
    return and_(workers.c.last_seen_at > now_ms - ONLINE_SECONDS * 1000, has_offers)


def _seen() -> ColumnElement[Any]:
    return func.nullif(workers.c.last_seen_at, 0)


def _columns(now_ms: int) -> list[ColumnElement[Any]]:
    columns: list[ColumnElement[Any]] = [column for column in workers.c if column.name != "last_seen_at"]
    return [*columns, _seen().label("last_seen_at"), _is_online(now_ms).label("is_online")]


def _record(row: Any) -> WorkerRecord:
    return WorkerRecord.model_validate(row._mapping)


def _find(context: Context, worker_id: str) -> WorkerRecord:
    fetch(context, workers, worker_id, "worker")
    statement = select(*_columns(context.now_ms)).where(workers.c.id == worker_id)
    return _record(context.connection.execute(statement).one())


@handles(CreateWorker, role="editor", writes=True)
def create_worker(context: Context, message: CreateWorker) -> WorkerRecord:
    if (row := repeated(context, workers, message.worker_id, "worker", name=message.name)) is not None:
        return _find(context, row.id)
    found = context.connection.execute(select(workers.c.id).where(workers.c.name == message.name)).scalar()
    if found is None:
        values = {
            "id": message.worker_id or make_id(),
            "name": message.name,
            "labels": sorted(set(message.labels)),
            "last_seen_at": 0,
            "is_temporary": message.is_temporary,
            "metadata": message.metadata,
        }
        found = add(context, workers, values).id
    return _find(context, found)


@handles(GetWorker, role="viewer")
def get_worker(context: Context, message: GetWorker) -> WorkerRecord:
    return _find(context, message.worker_id)


@handles(ListWorkers, role="viewer")
def list_workers(context: Context, message: ListWorkers) -> Page[WorkerRecord]:
    listing = Listing(
        fields={
            "id": Field(workers.c.id, is_unique=True),
            "name": Field(workers.c.name, is_unique=True),
            "is_online": Field(_is_online(context.now_ms), "boolean"),
            "is_temporary": Field(workers.c.is_temporary, "boolean"),
            "last_seen_at": Field(_seen(), "number", is_nullable=True),
            "created_at": Field(workers.c.created_at, "number"),
            "updated_at": Field(workers.c.updated_at, "number"),
            "created_by": Field(workers.c.created_by, is_nullable=True),
        },
        metadata=workers.c.metadata,
        default_sort=("name",),
    )
    return list_page(context.connection, listing, select(*_columns(context.now_ms)), message, _record)


@handles(BeatWorker, role="editor", writes=True)
def beat_worker(context: Context, message: BeatWorker) -> WorkerRecord:
    row = fetch(context, workers, message.worker_id, "worker")
    values: dict[str, Any] = {"offers": message.offers}
    if message.labels is not None:
        values["labels"] = sorted(set(message.labels))
    values = {name: value for name, value in values.items() if value != row._mapping[name]}
    if values:  # being there is no change
        values["updated_at"] = max(context.now_ms, row.updated_at + 1)
    values["last_seen_at"] = context.now_ms
    context.connection.execute(update(workers).where(workers.c.id == row.id).values(values))
    return _find(context, row.id)


@handles(DeleteWorker, role="editor", writes=True)
def delete_worker(context: Context, message: DeleteWorker) -> Empty:
    worker = fetch(context, workers, message.worker_id, "worker")
    settle(context)
    mine = select(jobs.c.id).where(jobs.c.status == "running", jobs.c.lease_owner == worker.id)
    for job_id in context.connection.execute(mine).scalars().all():
        requeue(context, fetch_row(context, job_id), is_forgiven=True)
    context.connection.execute(delete(workers).where(workers.c.id == worker.id))
    return Empty()


def prune_workers(connection: Connection, *, now_ms: int) -> None:
    """Forget temporary workers that were not heard of for a day."""
    gone = (workers.c.last_seen_at < now_ms - TEMPORARY_LIFETIME_MS) & workers.c.is_temporary
    connection.execute(delete(workers).where(gone, workers.c.created_at < now_ms - TEMPORARY_LIFETIME_MS))
