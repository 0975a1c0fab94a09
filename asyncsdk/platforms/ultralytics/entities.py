"""Projects, datasets, models and users: create, get, list, change, delete.

The service gives the ids: one that a message proposes is passed over, so that creating is not repeated when it may
have been heard. Lists are filtered here, page by page; of names a part travels. A condition on the time of the last
change is looked at just before the change, not together with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from asyncsdk.errors import Conflict, UnsupportedOperation
from asyncsdk.platforms.ultralytics.calls import Calls
from asyncsdk.platforms.ultralytics.records import (
    NAME,
    body_of,
    check_expressible,
    dataset_record,
    id_of,
    model_record,
    project_record,
    time_of,
)
from asyncsdk.platforms.ultralytics.selecting import matches, narrowing
from asyncsdk.protocol.base import Empty, Message, Page
from asyncsdk.protocol.projects import DEFAULT_PROJECT_NAME
from asyncsdk.protocol.users import GetUser, ListUsers, UserRecord, WhoAmI
from asyncsdk.wires.ultralytics import paths

__all__ = ["Entities", "People"]

_READ: Mapping[paths.Resource, Callable[[Any], Any]] = {
    "projects": project_record,
    "datasets": dataset_record,
    "models": model_record,
}
_CREATED = frozenset({"name", "description", "project_id", "metadata", "exist_ok"})
_CHANGED = frozenset({"name", "description", "metadata", "if_updated_at"})
_OF_MODELS = frozenset({"config", "dataset_id"})


class Entities:
    """The operations of one resource.

    Args:
        calls: Sends the requests.
        resource: Which.
    """

    def __init__(self, calls: Calls, resource: paths.Resource) -> None:
        self._calls = calls
        self._resource: paths.Resource = resource
        self._kind = resource.removesuffix("s")
        self._id_field = f"{self._kind}_id"
        self._read = _READ[resource]
        self._extra = _OF_MODELS if resource == "models" else frozenset()

    def _path(self, message: Message[Any]) -> str:
        return paths.entity_path(self._resource, getattr(message, self._id_field))

    async def create(self, message: Any) -> Any:
        """Create one; with ``exist_ok``, return the one of that name when it is there."""
        check_expressible(message, _CREATED | self._extra | {self._id_field})
        if message.exist_ok and (found := await self._named(message)) is not None:
            return found
        body = body_of(message)
        path = paths.collection_path(self._resource)
        return await self._calls.call("POST", path, self._read, json=body, is_repeatable=False)

    async def _named(self, message: Any) -> Any:
        found: list[Any] = []
        cursor = None
        project_id = None
        if self._resource != "projects":
            project_id = message.project_id or await self._default_project()
            if project_id is None:
                return None
        while True:
            query = paths.ListQuery(limit=paths.MAX_PAGE, last_doc_id=cursor, query=message.name)
            page = await self._page(query)
            found += [
                record
                for record in map(self._read, page.results)
                if record.name == message.name and (project_id is None or record.project_id == project_id)
            ]
            cursor = page.last_record_id
            if cursor is None:
                break
        if len(found) > 1:
            ids = tuple(record.id for record in found)
            raise Conflict(f"several {self._resource} of this project are named {message.name!r}", ids=ids)
        return found[0] if found else None

    async def _default_project(self) -> str | None:
        query = paths.ListQuery(limit=paths.MAX_PAGE, query=DEFAULT_PROJECT_NAME)
        path = paths.collection_path("projects")
        page = await self._calls.call("GET", path, paths.ListAnswer.from_data, params=query.to_params())
        named = [record.id for record in map(project_record, page.results) if record.name == DEFAULT_PROJECT_NAME]
        return named[0] if named else None

    async def get(self, message: Message[Any]) -> Any:
        """Return one."""
        return await self._calls.call("GET", self._path(message), self._read)

    async def update(self, message: Any) -> Any:
        """Change what is given, provided it is as old as the message thinks."""
        check_expressible(message, _CHANGED | self._extra | {self._id_field})
        record = await self._calls.call("GET", self._path(message), self._read)
        names = (message.model_fields_set & (_CHANGED | self._extra)) - {"if_updated_at"}
        changes = {name: getattr(message, name) for name in names}
        if all(value is None or value == getattr(record, name) for name, value in changes.items()):
            return record
        if message.if_updated_at is not None and message.if_updated_at != record.updated_at:
            raise Conflict(
                "it was changed meanwhile; refresh it, then change it again",
                status=412,
                code="precondition_failed",
                ids=(record.id,),
            )
        body = body_of(message, record)
        return await self._calls.call("PATCH", self._path(message), self._read, json=body)

    async def delete(self, message: Any) -> Empty:
        """Delete one, softly or for good."""
        await self._calls.body("DELETE", self._path(message), params={"hard": str(message.hard)})
        return Empty()

    async def list(self, message: Any) -> Page[Any]:
        """List a page in the order of the service, filtered here."""
        check_expressible(message, {"filter", "limit", "cursor", "total", "project_id"})
        project_id = getattr(message, "project_id", None)
        if project_id is not None:
            await self._calls.body("GET", paths.entity_path("projects", project_id))  # there must be one
        entries: list[Any] = []
        cursor = message.cursor
        total: int | None = None
        while True:
            # Never more than are still wanted: a cursor says where a page of the service ends.
            query = paths.ListQuery(message.limit - len(entries), cursor, narrowing(message.filter))
            page = await self._page(query)
            entries += [
                record
                for record in map(self._read, page.results)
                if (project_id is None or record.project_id == project_id) and matches(record, message.filter)
            ]
            cursor, total = page.last_record_id, page.total
            if cursor is None or len(entries) >= message.limit:
                break
        if message.total and (message.filter is not None or project_id is not None):
            raise UnsupportedOperation(NAME, f"{type(message).__name__} with a filter and total")
        return Page(entries=tuple(entries), cursor=cursor, total=total if message.total else None)

    async def _page(self, query: paths.ListQuery) -> paths.ListAnswer:
        path = paths.collection_path(self._resource)
        return await self._calls.call("GET", path, paths.ListAnswer.from_data, params=query.to_params())


class People:
    """Who is speaking, and who else is there.

    Args:
        calls: Sends the requests.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def who_am_i(self, message: WhoAmI) -> UserRecord:
        """Check the key, and return whose it is.

        Raises:
            UnsupportedOperation: The key is good, and the service does not tell whose it is.
        """
        body = await self._calls.body("POST", paths.AUTH_PATH)
        if isinstance(body, dict) and isinstance(body.get("data"), dict):
            return _user(body["data"])
        raise UnsupportedOperation(NAME, "WhoAmI (the key is good; whose it is, the service does not tell)")

    async def get(self, message: GetUser) -> UserRecord:
        """Return one user."""
        return await self._calls.call("GET", paths.entity_path("users", message.user_id), _user)

    async def list(self, message: ListUsers) -> Page[UserRecord]:
        """List a page of users."""
        check_expressible(message, {"limit", "cursor", "total"})
        query = paths.ListQuery(message.limit, message.cursor)
        path = paths.collection_path("users")
        page = await self._calls.call("GET", path, paths.ListAnswer.from_data, params=query.to_params())
        return Page(
            entries=tuple(_user(data) for data in page.results),
            cursor=page.last_record_id,
            total=page.total if message.total else None,
        )


def _user(data: Any) -> UserRecord:
    told = data.get("meta") if isinstance(data, dict) else None
    if not isinstance(told, dict) or not isinstance(data.get("id"), str):
        raise ValueError("data is no user's")
    role = data.get("role")
    return UserRecord(
        id=id_of(data["id"]),
        name=str(told.get("name", "")),
        role=role if role in {"viewer", "editor", "owner"} else "viewer",
        created_at=time_of(data["createdAt"]) if isinstance(data.get("createdAt"), int) else None,
    )
