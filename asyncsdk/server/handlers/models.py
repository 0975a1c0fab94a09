"""Models: create, get, list, update, delete."""

from __future__ import annotations

from functools import partial

from sqlalchemy import select

from asyncsdk.domain.ids import make_id
from asyncsdk.errors import Conflict
from asyncsdk.protocol.base import Empty, Page
from asyncsdk.protocol.models import CreateModel, DeleteModel, GetModel, ListModels, ModelRecord, UpdateModel
from asyncsdk.server.handlers import removal
from asyncsdk.server.handlers.entities import add, change, fetch, repeated, to_record
from asyncsdk.server.handlers.projects import project_for
from asyncsdk.server.handlers.registry import Context, handles
from asyncsdk.server.listing import Field, Listing, list_page
from asyncsdk.server.schema import models, projects

__all__: list[str] = []

_MAX_IDS = 100
"""Ids named by a conflict."""

_record = partial(to_record, ModelRecord)

_LISTING = Listing(
    fields={
        "id": Field(models.c.id, is_unique=True),
        "project_id": Field(models.c.project_id),
        "name": Field(models.c.name),
        "description": Field(models.c.description),
        "framework": Field(models.c.framework),
        "created_at": Field(models.c.created_at, "number"),
        "updated_at": Field(models.c.updated_at, "number"),
        "created_by": Field(models.c.created_by, is_nullable=True),
    },
    metadata=models.c.metadata,
    default_sort=("-created_at",),
)


@handles(CreateModel, role="editor", writes=True)
def create_model(context: Context, message: CreateModel) -> ModelRecord:
    project_id = project_for(context, message.project_id)
    same = {"name": message.name, "project_id": project_id}
    if (row := repeated(context, models, message.model_id, "model", **same)) is not None:
        return _record(row)
    if message.exist_ok:
        statement = select(models).where(models.c.project_id == project_id, models.c.name == message.name)
        found = context.connection.execute(statement.order_by(models.c.id).limit(_MAX_IDS)).all()
        if len(found) > 1:
            raise Conflict(
                f"several models of this project are named {message.name!r}; choose one by its id",
                ids=tuple(row.id for row in found),
            )
        if found:
            return _record(found[0])
    values = {
        "id": message.model_id or make_id(),
        "project_id": project_id,
        "name": message.name,
        "description": message.description,
        "framework": message.framework,
        "labels": message.labels,
        "config": message.config,
        "metadata": message.metadata,
    }
    return _record(add(context, models, values))


@handles(GetModel, role="viewer")
def get_model(context: Context, message: GetModel) -> ModelRecord:
    return _record(fetch(context, models, message.model_id, "model"))


@handles(ListModels, role="viewer")
def list_models(context: Context, message: ListModels) -> Page[ModelRecord]:
    statement = select(models)
    if message.project_id is not None:
        fetch(context, projects, message.project_id, "project")
        statement = statement.where(models.c.project_id == message.project_id)
    return list_page(context.connection, _LISTING, statement, message, _record)


@handles(UpdateModel, role="editor", writes=True)
def update_model(context: Context, message: UpdateModel) -> ModelRecord:
    row = fetch(context, models, message.model_id, "model")
    names = ("name", "description", "framework", "labels", "config", "metadata")
    return _record(change(context, models, row, message, names))


@handles(DeleteModel, role="editor", writes=True)
def delete_model(context: Context, message: DeleteModel) -> Empty:
    removal.delete_model(context, fetch(context, models, message.model_id, "model").id)
    return Empty()
