"""Finding one entity by name."""

from __future__ import annotations

from typing import TypeVar

from asyncsdk.domain.filters import Condition
from asyncsdk.entities.base import entity_id
from asyncsdk.entities.session import Session
from asyncsdk.errors import ConfigError, Conflict, NotFound
from asyncsdk.protocol.base import EntityRecord, ListMessage
from asyncsdk.protocol.projects import DEFAULT_PROJECT_NAME, ListProjects, ProjectRecord

__all__ = ["exactly_one", "find_by_name", "get_by_name", "project_id_for_lookup"]

R = TypeVar("R", bound=EntityRecord)


def exactly_one(kind: str, by_id: object, name: str | None) -> None:
    """Raise `ConfigError` unless either an id or a name is given."""
    if (by_id is None) == (name is None):
        raise ConfigError(f"give either the id of the {kind} or name=...")


async def find_by_name(session: Session, kind: str, listed: ListMessage[R], name: str) -> R | None:
    """Return the record named *name* among those *listed*, or None.

    Raises:
        Conflict: Several have the name; ``ids`` says which.
    """
    page = await session.send(listed.model_copy(update={"filter": Condition("name", "eq", name), "limit": 100}))
    if len(page.entries) > 1:
        ids = tuple(entry.id for entry in page.entries)
        raise Conflict(f"{len(ids)} {kind}s are named {name!r}; get one by its id: {', '.join(ids)}", ids=ids)
    return page.entries[0] if page.entries else None


async def get_by_name(session: Session, kind: str, listed: ListMessage[R], name: str) -> R:
    """Return the record named *name* among those *listed*.

    Raises:
        NotFound: There is none.
        Conflict: Several have the name; ``ids`` says which.
    """
    record = await find_by_name(session, kind, listed, name)
    if record is None:
        raise NotFound(f"there is no {kind} named {name!r} there")
    return record


async def project_id_for_lookup(session: Session, project: ProjectRecord | str | None, wanted: str) -> str:
    """Return the id of the project to look for *wanted* in: the one given, else the default project.

    Raises:
        NotFound: None is given, and nothing was ever put into the default project.
    """
    if project is not None:
        return entity_id(project, "project")
    default = await find_by_name(session, "project", ListProjects(), DEFAULT_PROJECT_NAME)
    if default is None:
        raise NotFound(f"there is no {wanted}: the default project is empty; say where to look with project=...")
    return default.id
