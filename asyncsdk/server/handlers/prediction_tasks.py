"""Prediction tasks: create, get, list, update, delete."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import Row, select

from asyncsdk.domain.ids import make_id
from asyncsdk.errors import BadRequest, Conflict, NotFound
from asyncsdk.protocol.base import Empty, Page
from asyncsdk.protocol.predictions import (
    CreatePredictionTask,
    DeletePredictionTask,
    GetPredictionTask,
    ListPredictionTasks,
    PredictionTaskRecord,
    UpdatePredictionTask,
)
from asyncsdk.server.handlers import removal
from asyncsdk.server.handlers.datasets import fetch_dataset, fetch_writable_dataset
from asyncsdk.server.handlers.entities import add, change, fetch, repeated, to_record
from asyncsdk.server.handlers.registry import Context, handles
from asyncsdk.server.listing import Field, Listing, list_page
from asyncsdk.server.schema import prediction_tasks as tasks

__all__ = ["fetch_task_named"]

_record = partial(to_record, PredictionTaskRecord)

_LISTING = Listing(
    fields={
        "id": Field(tasks.c.id, is_unique=True),
        "name": Field(tasks.c.name, is_unique=True),
        "kind": Field(tasks.c.kind),
        "version": Field(tasks.c.version, "number"),
        "created_at": Field(tasks.c.created_at, "number"),
        "updated_at": Field(tasks.c.updated_at, "number"),
        "created_by": Field(tasks.c.created_by, is_nullable=True),
    },
    metadata=tasks.c.metadata,
    default_sort=("name",),
)


def fetch_task_named(context: Context, dataset_id: str, name: str) -> Row[Any]:
    """Return the row of a dataset's task; `NotFound` when there is none of that name."""
    row = _named(context, dataset_id, name)
    if row is None:
        raise NotFound(f"this dataset has no prediction task named {name!r}; create it first")
    return row


@handles(CreatePredictionTask, role="editor", writes=True)
def create_task(context: Context, message: CreatePredictionTask) -> PredictionTaskRecord:
    dataset_id = fetch_dataset(context, message.dataset_id).id
    same = {"name": message.name, "dataset_id": dataset_id}
    if (row := repeated(context, tasks, message.task_id, "prediction task", **same)) is not None:
        return _record(row)
    if (row := _named(context, dataset_id, message.name)) is not None:
        if message.exist_ok:
            return _record(row)
        raise Conflict(f"this dataset has a prediction task named {message.name!r} already", ids=(row.id,))
    fetch_writable_dataset(context, dataset_id)
    _check_categories(message.categories)
    values = {
        "id": message.task_id or make_id(),
        "dataset_id": dataset_id,
        "name": message.name,
        "kind": message.kind,
        "categories": message.categories,
        "metadata": message.metadata,
    }
    return _record(add(context, tasks, values))


@handles(GetPredictionTask, role="viewer")
def get_task(context: Context, message: GetPredictionTask) -> PredictionTaskRecord:
    return _record(_fetch(context, message))


@handles(ListPredictionTasks, role="viewer")
def list_tasks(context: Context, message: ListPredictionTasks) -> Page[PredictionTaskRecord]:
    fetch_dataset(context, message.dataset_id)
    statement = select(tasks).where(tasks.c.dataset_id == message.dataset_id)
    return list_page(context.connection, _LISTING, statement, message, _record)


@handles(UpdatePredictionTask, role="editor", writes=True)
def update_task(context: Context, message: UpdatePredictionTask) -> PredictionTaskRecord:
    row = _fetch(context, message)
    fetch_writable_dataset(context, message.dataset_id)
    if message.categories is not None:
        _check_categories(message.categories)
    counted = {"version": row.version + 1}
    return _record(change(context, tasks, row, message, ("categories", "metadata"), counted))


@handles(DeletePredictionTask, role="editor", writes=True)
def delete_task(context: Context, message: DeletePredictionTask) -> Empty:
    row = _fetch(context, message)
    fetch_writable_dataset(context, message.dataset_id)
    removal.delete_task(context, row.id)
    return Empty()


def _fetch(context: Context, message: GetPredictionTask | UpdatePredictionTask | DeletePredictionTask) -> Row[Any]:
    fetch_dataset(context, message.dataset_id)
    return fetch(context, tasks, message.task_id, "prediction task", dataset_id=message.dataset_id)


def _named(context: Context, dataset_id: str, name: str) -> Row[Any] | None:
    statement = select(tasks).where(tasks.c.dataset_id == dataset_id, tasks.c.name == name)
    return context.connection.execute(statement).first()


def _check_categories(categories: tuple[str, ...]) -> None:
    if len(set(categories)) != len(categories):
        twice = next(name for index, name in enumerate(categories) if name in categories[:index])
        raise BadRequest(f"the category {twice!r} is given twice")
