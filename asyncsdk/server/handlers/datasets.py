"""Datasets: create, get, list, update, delete, restore."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import Row, select

from asyncsdk.domain.ids import make_id
from asyncsdk.errors import Conflict
from asyncsdk.protocol.base import Empty, Page
from asyncsdk.protocol.datasets import (
    CreateDataset,
    DatasetRecord,
    DeleteDataset,
    GetDataset,
    ListDatasets,
    RestoreDataset,
    UpdateDataset,
)
from asyncsdk.server.handlers import removal
from asyncsdk.server.handlers.entities import add, change, fetch, repeated, to_record
from asyncsdk.server.handlers.projects import project_for
from asyncsdk.server.handlers.registry import Context, handles
from asyncsdk.server.handlers.soft_deletes import listed, restore, soft_delete, taken
from asyncsdk.server.listing import Field, Listing, list_page
from asyncsdk.server.schema import datasets, projects

__all__ = ["fetch_dataset", "fetch_writable_dataset"]

_record = partial(to_record, DatasetRecord)

_LISTING = Listing(
    fields={
        "id": Field(datasets.c.id, is_unique=True),
        "project_id": Field(datasets.c.project_id),
        "name": Field(datasets.c.name),
        "kind": Field(datasets.c.kind),
        "description": Field(datasets.c.description),
        "is_readonly": Field(datasets.c.is_readonly, "boolean"),
        "item_count": Field(datasets.c.item_count, "number"),
        "size_bytes": Field(datasets.c.size_bytes, "number"),
        "created_at": Field(datasets.c.created_at, "number"),
        "updated_at": Field(datasets.c.updated_at, "number"),
        "archive_filename": Field(datasets.c.archive_filename, is_nullable=True),
        "deleted_at": Field(datasets.c.deleted_at, "number", is_nullable=True),
        "created_by": Field(datasets.c.created_by, is_nullable=True),
    },
    metadata=datasets.c.metadata,
    default_sort=("name",),
)


def fetch_dataset(context: Context, dataset_id: str) -> Row[Any]:
    """Return the dataset's row; `NotFound` when there is none."""
    return fetch(context, datasets, dataset_id, "dataset")


def fetch_writable_dataset(context: Context, dataset_id: str) -> Row[Any]:
    """Return the dataset's row when what is in it may change.

    Raises:
        NotFound: There is no such dataset.
        Conflict: It is read-only.
    """
    row = fetch_dataset(context, dataset_id)
    if row.is_readonly:
        raise _readonly(row)
    return row


@handles(CreateDataset, role="editor", writes=True)
def create_dataset(context: Context, message: CreateDataset) -> DatasetRecord:
    project_id = project_for(context, message.project_id)
    same = {"name": message.name, "project_id": project_id}
    if (row := repeated(context, datasets, message.dataset_id, "dataset", **same)) is not None:
        return _record(row)
    if (row := _named(context, project_id, message.name)) is not None:
        if message.exist_ok and row.deleted_at is None:
            return _record(row)
        raise _taken(message.name, row)
    values = {
        "id": message.dataset_id or make_id(),
        "project_id": project_id,
        "name": message.name,
        "kind": message.kind,
        "description": message.description,
        "metadata": message.metadata,
    }
    return _record(add(context, datasets, values))


@handles(GetDataset, role="viewer")
def get_dataset(context: Context, message: GetDataset) -> DatasetRecord:
    return _record(fetch_dataset(context, message.dataset_id))


@handles(ListDatasets, role="viewer")
def list_datasets(context: Context, message: ListDatasets) -> Page[DatasetRecord]:
    statement = listed(select(datasets), datasets, deleted=message.deleted)
    if message.project_id is not None:
        fetch(context, projects, message.project_id, "project", with_deleted=message.deleted)
        statement = statement.where(datasets.c.project_id == message.project_id)
    return list_page(context.connection, _LISTING, statement, message, _record)


@handles(UpdateDataset, role="editor", writes=True)
def update_dataset(context: Context, message: UpdateDataset) -> DatasetRecord:
    row = fetch_dataset(context, message.dataset_id)
    changes_metadata = message.metadata is not None and message.metadata != row.metadata
    if row.is_readonly and changes_metadata and message.is_readonly is not False:
        raise _readonly(row)
    if message.name is not None:
        other = _named(context, row.project_id, message.name)
        if other is not None and other.id != row.id:
            raise _taken(message.name, other)
    return _record(change(context, datasets, row, message, ("name", "description", "is_readonly", "metadata")))


@handles(DeleteDataset, role="editor", writes=True)
def delete_dataset(context: Context, message: DeleteDataset) -> Empty:
    dataset = fetch(context, datasets, message.dataset_id, "dataset", with_deleted=message.hard)
    if dataset.is_readonly:
        raise _readonly(dataset)
    if message.hard:
        removal.delete_dataset(context, dataset.id)
    else:
        soft_delete(context, datasets, dataset.id)
    return Empty()


@handles(RestoreDataset, role="editor", writes=True)
def restore_dataset(context: Context, message: RestoreDataset) -> DatasetRecord:
    restore(context, datasets, message.dataset_id, "dataset")
    return _record(fetch_dataset(context, message.dataset_id))


def _readonly(row: Row[Any]) -> Conflict:
    return Conflict(f"dataset {row.name!r} is read-only; update it with is_readonly=False first", ids=(row.id,))


def _named(context: Context, project_id: str, name: str) -> Row[Any] | None:
    statement = select(datasets).where(datasets.c.project_id == project_id, datasets.c.name == name)
    return context.connection.execute(statement).first()


def _taken(name: str, row: Row[Any]) -> Conflict:
    return taken("dataset", name, row, " in this project")
