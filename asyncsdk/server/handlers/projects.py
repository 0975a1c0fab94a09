"""Projects: create, get, list, update, delete."""

from __future__ import annotations

from functools import partial

from sqlalchemy import Row, delete, select

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
    UpdateProject,
)
from asyncsdk.server.handlers import removal
from asyncsdk.server.handlers.entities import add, change, fetch, repeated, to_record
from asyncsdk.server.handlers.registry import Context, handles
from asyncsdk.server.listing import Field, Listing, list_page
from asyncsdk.server.schema import datasets, models, projects

__all__ = ["project_for"]

_record = partial(to_record, ProjectRecord)

_LISTING = Listing(
    fields={
        "id": Field(projects.c.id, is_unique=True),
        "name": Field(projects.c.name, is_unique=True),
        "description": Field(projects.c.description),
        "created_at": Field(projects.c.created_at, "number"),
        "updated_at": Field(projects.c.updated_at, "number"),
        "created_by": Field(projects.c.created_by, is_nullable=True),
    },
    metadata=projects.c.metadata,
    default_sort=("name",),
)


def project_for(context: Context, project_id: str | None) -> str:
    """Return *project_id* when there is such a project; without one, the default project, made when missing.

    Raises:
        NotFound: There is no such project.
    """
    if project_id is not None:
        return str(fetch(context, projects, project_id, "project").id)
    found = context.connection.execute(select(projects.c.id).where(projects.c.name == DEFAULT_PROJECT_NAME)).scalar()
    if found is None:
        found = add(context, projects, {"id": make_id(), "name": DEFAULT_PROJECT_NAME}).id
    return str(found)


@handles(CreateProject, role="editor", writes=True)
def create_project(context: Context, message: CreateProject) -> ProjectRecord:
    if (row := repeated(context, projects, message.project_id, "project", name=message.name)) is not None:
        return _record(row)
    if (row := _named(context, message.name)) is not None:
        if message.exist_ok:
            return _record(row)
        raise _taken(message.name, row)
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
    return list_page(context.connection, _LISTING, select(projects), message, _record)


@handles(UpdateProject, role="editor", writes=True)
def update_project(context: Context, message: UpdateProject) -> ProjectRecord:
    row = fetch(context, projects, message.project_id, "project")
    if message.name is not None and (other := _named(context, message.name)) is not None and other.id != row.id:
        raise _taken(message.name, other)
    return _record(change(context, projects, row, message, ("name", "description", "metadata")))


@handles(DeleteProject, role="editor", writes=True)
def delete_project(context: Context, message: DeleteProject) -> Empty:
    project = fetch(context, projects, message.project_id, "project")
    mine = select(datasets.c.id, datasets.c.is_readonly).where(datasets.c.project_id == project.id)
    found = context.connection.execute(mine).all()
    if readonly := tuple(row.id for row in found if row.is_readonly):
        raise Conflict(f"{len(readonly)} datasets of this project are read-only; change that first", ids=readonly)
    for row in found:
        removal.delete_dataset(context, row.id)
    for (model_id,) in context.connection.execute(select(models.c.id).where(models.c.project_id == project.id)).all():
        removal.delete_model(context, model_id)
    context.connection.execute(delete(projects).where(projects.c.id == project.id))
    return Empty()


def _named(context: Context, name: str) -> Row[tuple[object, ...]] | None:
    return context.connection.execute(select(projects).where(projects.c.name == name)).first()


def _taken(name: str, row: Row[tuple[object, ...]]) -> Conflict:
    return Conflict(f"there is a project named {name!r} already", ids=(str(row.id),))
