"""Models: create, get, list, update, delete, restore."""

from __future__ import annotations

from functools import partial

from sqlalchemy import select

from asyncsdk.domain.ids import make_id
from asyncsdk.errors import Conflict
from asyncsdk.protocol.base import Empty, Page
from asyncsdk.protocol.models import (
    CreateModel,
    DeleteModel,
    GetModel,
    ListModels,
    ModelRecord,
    RestoreModel,
    UpdateModel,
)
from asyncsdk.server.handlers import removal
from asyncsdk.server.handlers.datasets import fetch_dataset
from asyncsdk.server.handlers.entities import add, change, fetch, repeated, to_record
from asyncsdk.server.handlers.model_states import model_states, states_of
from asyncsdk.server.handlers.projects import project_for
from asyncsdk.server.handlers.registry import Context, handles
from asyncsdk.server.handlers.soft_deletes import listed, restore, soft_delete
from asyncsdk.server.listing import Field, Listing, list_page
from asyncsdk.server.schema import models, projects

__all__: list[str] = []

_MAX_IDS = 100
"""Ids named by a conflict."""

_record = partial(to_record, ModelRecord)

_FIELDS = {
    "id": Field(models.c.id, is_unique=True),
    "project_id": Field(models.c.project_id),
    "dataset_id": Field(models.c.dataset_id, is_nullable=True),
    "name": Field(models.c.name),
    "description": Field(models.c.description),
    "framework": Field(models.c.framework),
    "created_at": Field(models.c.created_at, "number"),
    "updated_at": Field(models.c.updated_at, "number"),
    "deleted_at": Field(models.c.deleted_at, "number", is_nullable=True),
    "created_by": Field(models.c.created_by, is_nullable=True),
}


def _listing(now_ms: int) -> Listing:
    states = {
        name: Field(column, "text" if name == "status" else "boolean") for name, column in model_states(now_ms).items()
    }
    return Listing(fields={**_FIELDS, **states}, metadata=models.c.metadata, default_sort=("-created_at",))


def _get(context: Context, model_id: str) -> ModelRecord:
    row = context.connection.execute(select(models).where(models.c.id == model_id)).one()
    return _record(row).model_copy(update=states_of(context, [model_id])[model_id])


@handles(CreateModel, role="editor", writes=True)
def create_model(context: Context, message: CreateModel) -> ModelRecord:
    project_id = project_for(context, message.project_id)
    same = {"name": message.name, "project_id": project_id}
    if (row := repeated(context, models, message.model_id, "model", **same)) is not None:
        return _get(context, row.id)
    if message.exist_ok:
        named = select(models.c.id).where(models.c.project_id == project_id, models.c.name == message.name)
        statement = listed(named, models, deleted=False)
        found = context.connection.execute(statement.order_by(models.c.id).limit(_MAX_IDS)).all()
        if len(found) > 1:
            raise Conflict(
                f"several models of this project are named {message.name!r}; choose one by its id",
                ids=tuple(row.id for row in found),
            )
        if found:
            return _get(context, found[0].id)
    values = {
        "id": message.model_id or make_id(),
        "project_id": project_id,
        "dataset_id": None if message.dataset_id is None else fetch_dataset(context, message.dataset_id).id,
        "name": message.name,
        "description": message.description,
        "framework": message.framework,
        "labels": message.labels,
        "config": message.config,
        "retention": None if message.retention is None else message.retention.model_dump(),
        "metadata": message.metadata,
    }
    return _get(context, add(context, models, values).id)


@handles(GetModel, role="viewer")
def get_model(context: Context, message: GetModel) -> ModelRecord:
    return _get(context, fetch(context, models, message.model_id, "model").id)


@handles(ListModels, role="viewer")
def list_models(context: Context, message: ListModels) -> Page[ModelRecord]:
    statement = listed(select(models), models, deleted=message.deleted)
    if message.project_id is not None:
        fetch(context, projects, message.project_id, "project", with_deleted=message.deleted)
        statement = statement.where(models.c.project_id == message.project_id)
    page = list_page(context.connection, _listing(context.now_ms), statement, message, _record)
    # Of this page only: selected with the rest, they would be found out for every model that is sorted.
    states = states_of(context, [record.id for record in page.entries])
    entries = tuple(record.model_copy(update=states[record.id]) for record in page.entries)
    return page.model_copy(update={"entries": entries})


@handles(UpdateModel, role="editor", writes=True)
def update_model(context: Context, message: UpdateModel) -> ModelRecord:
    row = fetch(context, models, message.model_id, "model")
    if message.dataset_id is not None:
        fetch_dataset(context, message.dataset_id)
    names = ("name", "description", "framework", "labels", "config", "retention", "dataset_id", "metadata")
    return _get(context, change(context, models, row, message, names).id)


@handles(DeleteModel, role="editor", writes=True)
def delete_model(context: Context, message: DeleteModel) -> Empty:
    model = fetch(context, models, message.model_id, "model", with_deleted=message.hard)
    if message.hard:
        removal.delete_model(context, model.id)
    else:
        soft_delete(context, models, model.id)
    return Empty()


@handles(RestoreModel, role="editor", writes=True)
def restore_model(context: Context, message: RestoreModel) -> ModelRecord:
    restore(context, models, message.model_id, "model")
    return _get(context, message.model_id)
