"""Soft deletes: out of sight and out of reach, nothing lost, the name still taken, until restored or deleted for good.

A row with ``deleted_at`` is for every message as if it were not there (`entities.fetch`, `listed`), but for those that
restore or delete it for good. A project takes its datasets and models along: they get the project's own ``deleted_at``,
which is later than that of any of them before, so that restoring the project brings back exactly those.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Table, func, select, update

from asyncsdk.errors import Conflict
from asyncsdk.server.handlers.entities import fetch
from asyncsdk.server.handlers.registry import Context
from asyncsdk.server.schema import datasets, models, projects

__all__ = ["listed", "restore", "restore_project", "soft_delete", "soft_delete_project", "taken"]


def listed(statement: Select[Any], table: Table, *, deleted: bool) -> Select[Any]:
    """Return *statement* limited to rows of *table* that are deleted, or to those that are not."""
    return statement.where(table.c.deleted_at.is_not(None) if deleted else table.c.deleted_at.is_(None))


def soft_delete(context: Context, table: Table, entity_id: str) -> None:
    """Put a row that is not deleted out of reach."""
    _set(context, table, table.c.id == entity_id, context.now_ms)


def soft_delete_project(context: Context, project_id: str) -> None:
    """Put a project out of reach, with the datasets and models in it."""
    latest = [
        context.connection.execute(
            select(func.max(table.c.deleted_at)).where(table.c.project_id == project_id)
        ).scalar()
        for table in (datasets, models)
    ]
    deleted_at = max(context.now_ms, *(moment + 1 for moment in latest if moment is not None), 0)
    for table in (datasets, models):
        _set(context, table, (table.c.project_id == project_id) & table.c.deleted_at.is_(None), deleted_at)
    _set(context, projects, projects.c.id == project_id, deleted_at)


def restore(context: Context, table: Table, entity_id: str, kind: str) -> None:
    """Bring a dataset or model back; one that is not deleted stays as it is.

    Raises:
        NotFound: There is none.
        Conflict: Its project is deleted.
    """
    row = fetch(context, table, entity_id, kind, with_deleted=True)
    if row.deleted_at is None:
        return
    project = fetch(context, projects, row.project_id, "project", with_deleted=True)
    if project.deleted_at is not None:
        raise Conflict(f"the project {project.name!r} of this {kind} is deleted; restore that first", ids=(project.id,))
    _set(context, table, table.c.id == entity_id, None)


def restore_project(context: Context, project_id: str) -> None:
    """Bring a project back with what was deleted along with it; one that is not deleted stays as it is.

    Raises:
        NotFound: There is none.
    """
    project = fetch(context, projects, project_id, "project", with_deleted=True)
    if project.deleted_at is None:
        return
    for table in (datasets, models):
        mine = (table.c.project_id == project_id) & (table.c.deleted_at == project.deleted_at)
        _set(context, table, mine, None)
    _set(context, projects, projects.c.id == project_id, None)


def taken(kind: str, name: str, row: Row[Any], where: str = "") -> Conflict:
    """Return the error for a name that *row* has already, deleted or not."""
    if row.deleted_at is None:
        return Conflict(f"there is a {kind} named {name!r}{where} already", ids=(row.id,))
    return Conflict(
        f"a {kind} named {name!r}{where} was deleted and keeps its name: restore it, or delete it for good, by its "
        f"id {row.id}",
        ids=(row.id,),
    )


def _set(context: Context, table: Table, condition: ColumnElement[bool], deleted_at: int | None) -> None:
    moved = func.max(context.now_ms, table.c.updated_at + 1)
    context.connection.execute(update(table).where(condition).values(deleted_at=deleted_at, updated_at=moved))
