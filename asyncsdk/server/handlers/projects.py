"""Projects: create, get, list, update, delete, restore. Their images: `project_images`."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import Row, select

from asyncsdk.domain.ids import make_id
from asyncsdk.errors import Conflict
from asyncsdk.protocol.base import Empty, Page
from asyncsdk.protocol.projects import (
    DEFAULT_PROJECT_NAME,
    CreateProject,
    DeleteProject,
    GetProject,
    ListProjects,
    ProjectRecord,
    RestoreProject,
    UpdateProject,
)
from asyncsdk.server.handlers import removal
from asyncsdk.server.handlers.entities import add, change, fetch, repeated, to_record
from asyncsdk.server.handlers.registry import Context, handles
from asyncsdk.server.handlers.soft_deletes import listed, restore_project, soft_delete_project, taken
from asyncsdk.server.listing import Field, Listing, list_page
from asyncsdk.server.schema import datasets, projects

__all__ = ["project_for"]

_record = partial(to_record, ProjectRecord)

_LISTING = Listing(
    fields={
        "id": Field(projects.c.id, is_unique=True),
        "name": Field(projects.c.name, is_unique=True),
        "description": Field(projects.c.description),
        "created_at": Field(projects.c.created_at, "number"),
        "updated_at": Field(projects.c.updated_at, "number"),
        "deleted_at": Field(projects.c.deleted_at, "number", is_nullable=True),
        "image_filename": Field(projects.c.image_filename, is_nullable=True),
        "created_by": Field(projects.c.created_by, is_nullable=True),
    },
    metadata=projects.c.metadata,
    default_sort=("name",),
)


def project_for(context: Context, project_id: str | None) -> str:
    """Return *project_id* when there is such a project; without one, the default project, made when missing.

    Raises:
        NotFound: There is no such project.
        Conflict: The default project is deleted, but not for good.
    """
    if project_id is not None:
        return str(fetch(context, projects, project_id, "project").id)
    row = _named(context, DEFAULT_PROJECT_NAME)
    if row is None:
        row = add(context, projects, {"id": make_id(), "name": DEFAULT_PROJECT_NAME})
    if row.deleted_at is not None:
        raise taken("project", DEFAULT_PROJECT_NAME, row)
    return str(row.id)


@handles(CreateProject, role="editor", writes=True)
def create_project(context: Context, message: CreateProject) -> ProjectRecord:
    if (row := repeated(context, projects, message.project_id, "project", name=message.name)) is not None:
        return _record(row)
    if (row := _named(context, message.name)) is not None:
        if message.exist_ok and row.deleted_at is None:
            return _record(row)
        raise taken("project", message.name, row)
    values = {
        "id": message.project_id or make_id(),
        "name": message.name,
        "description": message.description,
        "metadata": message.metadata,
    }
    return _record(add(context, projects, values))


@handles(GetProject, role="viewer")
def get_project(context: Context, message: GetProject) -> ProjectRecord:
    return _record(fetch(context, projects, message.project_id, "project"))


@handles(ListProjects, role="viewer")
def list_projects(context: Context, message: ListProjects) -> Page[ProjectRecord]:
    statement = listed(select(projects), projects, deleted=message.deleted)
    return list_page(context.connection, _LISTING, statement, message, _record)


@handles(UpdateProject, role="editor", writes=True)
def update_project(context: Context, message: UpdateProject) -> ProjectRecord:
    row = fetch(context, projects, message.project_id, "project")
    if message.name is not None and (other := _named(context, message.name)) is not None and other.id != row.id:
        raise taken("project", message.name, other)
    return _record(change(context, projects, row, message, ("name", "description", "metadata")))


@handles(DeleteProject, role="editor", writes=True)
def delete_project(context: Context, message: DeleteProject) -> Empty:
    project = fetch(context, projects, message.project_id, "project", with_deleted=message.hard)
    mine = select(datasets.c.id).where(datasets.c.project_id == project.id, datasets.c.is_readonly.is_(True))
    if readonly := tuple(row.id for row in context.connection.execute(mine)):
        raise Conflict(f"{len(readonly)} datasets of this project are read-only; change that first", ids=readonly)
    if message.hard:
        removal.delete_project(context, project.id)
    else:
        soft_delete_project(context, project.id)
    return Empty()


@handles(RestoreProject, role="editor", writes=True)
def restore_deleted(context: Context, message: RestoreProject) -> ProjectRecord:
    restore_project(context, message.project_id)
    return _record(fetch(context, projects, message.project_id, "project"))


def _named(context: Context, name: str) -> Row[Any] | None:
    return context.connection.execute(select(projects).where(projects.c.name == name)).first()
