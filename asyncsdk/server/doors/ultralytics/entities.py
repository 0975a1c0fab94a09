"""Projects, datasets, models and users: create, read, list, change, delete.

A body's fields that have no place here are kept as metadata and given back as they came. Nothing here is public: a
list of what everybody may see is empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from asyncsdk.domain.filters import Condition
from asyncsdk.domain.ids import is_id
from asyncsdk.errors import BadRequest, NotFound
from asyncsdk.protocol.archives import PrepareArchiveDownload
from asyncsdk.protocol.base import ListMessage, Message, Page
from asyncsdk.protocol.checkpoints import CheckpointRecord, FindCheckpoint, PrepareCheckpointDownload
from asyncsdk.protocol.datasets import (
    CreateDataset,
    DatasetRecord,
    DeleteDataset,
    GetDataset,
    ListDatasets,
    UpdateDataset,
)
from asyncsdk.protocol.models import CreateModel, DeleteModel, GetModel, ListModels, ModelRecord, UpdateModel
from asyncsdk.protocol.projects import (
    CreateProject,
    DeleteProject,
    GetProject,
    ListProjects,
    ProjectRecord,
    UpdateProject,
)
from asyncsdk.protocol.users import GetUser, ListUsers, UserRecord
from asyncsdk.server.doors.host import Answer, Visit
from asyncsdk.server.doors.routes import Routes
from asyncsdk.targets import Origin, UrlOrigin
from asyncsdk.wires.ultralytics import paths
from asyncsdk.wires.ultralytics.entities import EntityBody, EntityData, ObjectFacts

__all__ = ["add_routes", "known_id", "user_data"]

_CREATE: Mapping[paths.Resource, type[Message[Any]]] = {
    "projects": CreateProject,
    "datasets": CreateDataset,
    "models": CreateModel,
}
_GET: Mapping[paths.Resource, type[Message[Any]]] = {"projects": GetProject, "datasets": GetDataset, "models": GetModel}
_LIST: Mapping[paths.Resource, type[ListMessage[Any]]] = {
    "projects": ListProjects,
    "datasets": ListDatasets,
    "models": ListModels,
}
_UPDATE: Mapping[paths.Resource, type[Message[Any]]] = {
    "projects": UpdateProject,
    "datasets": UpdateDataset,
    "models": UpdateModel,
}
_DELETE: Mapping[paths.Resource, type[Message[Any]]] = {
    "projects": DeleteProject,
    "datasets": DeleteDataset,
    "models": DeleteModel,
}
_ID_FIELD: Mapping[paths.Resource, str] = {"projects": "project_id", "datasets": "dataset_id", "models": "model_id"}


def add_routes(routes: Routes) -> None:
    """Add what answers for entities."""
    for resource in _GET:
        door = _Entities(resource)
        routes.add("POST", paths.collection_path(resource), door.create)
        routes.add("GET", paths.collection_path(resource), door.list)
        routes.add("GET", paths.entity_path(resource, "{entity_id}"), door.read)
        routes.add("PATCH", paths.entity_path(resource, "{entity_id}"), door.update)
        routes.add("DELETE", paths.entity_path(resource, "{entity_id}"), door.delete)
    routes.add("GET", paths.collection_path("users"), _list_users)
    routes.add("GET", paths.entity_path("users", "{entity_id}"), _read_user)
    routes.add("GET", paths.collection_path("teams"), _list_teams)
    routes.add("GET", paths.entity_path("teams", "{entity_id}"), _read_team)


def known_id(entity_id: str, kind: str) -> str:
    """Return *entity_id*.

    Raises:
        NotFound: It has not the form of an id, so that there is nothing of that id.
    """
    if not is_id(entity_id):
        raise NotFound(f"there is no {kind} {entity_id[:100]!r}")
    return entity_id


class _Entities:
    """The operations of one resource."""

    def __init__(self, resource: paths.Resource) -> None:
        self._resource: paths.Resource = resource
        self._kind = resource.removesuffix("s")
        self._id_field = _ID_FIELD[resource]

    def _id(self, entity_id: str) -> dict[str, str]:
        return {self._id_field: known_id(entity_id, self._kind)}

    async def create(self, visit: Visit) -> Answer:
        body = EntityBody.from_json(await visit.json())
        if body.name is None:
            raise BadRequest("give the name: meta.name")
        given = self._fields(body)
        for name in given.keys() & {"metadata", "config"}:
            given[name] = _without_null(given[name])
        record = await visit.send(_CREATE[self._resource](**given))
        return Answer(paths.answer(await _data(visit, record)), 201)

    async def read(self, visit: Visit, entity_id: str) -> Answer:
        record = await visit.send(_GET[self._resource](**self._id(entity_id)))
        return Answer(paths.answer(await _data(visit, record, with_urls=True)))

    async def update(self, visit: Visit, entity_id: str) -> Answer:
        body = EntityBody.from_json(await visit.json())
        changes = self._fields(body)
        if "project_id" in changes:
            raise BadRequest(f"a {self._kind} stays in its project")
        record = await visit.send(_GET[self._resource](**self._id(entity_id)))
        for name in ("metadata", "config"):  # what is not given stays, and null removes
            if name in changes:
                changes[name] = _without_null({**getattr(record, name), **changes[name]})
        if changes:
            changes["if_updated_at"] = record.updated_at
            record = await visit.send(_UPDATE[self._resource](**self._id(entity_id), **changes))
        return Answer(paths.answer(await _data(visit, record)))

    async def delete(self, visit: Visit, entity_id: str) -> Answer:
        hard = paths.flag(visit.params.get("hard", "False"))
        await visit.send(_DELETE[self._resource](**self._id(entity_id), hard=hard))
        return Answer(paths.answer({"id": entity_id}))

    async def list(self, visit: Visit) -> Answer:
        query = paths.ListQuery.from_params(visit.params)
        page: Page[Any] = Page(entries=(), total=0)
        if not query.public:
            page = await self._page(visit, query)
        results = [await _data(visit, record) for record in page.entries]
        return Answer(paths.answer(paths.ListAnswer(results, page.total or 0, page.cursor).to_data()))

    async def _page(self, visit: Visit, query: paths.ListQuery) -> Page[Any]:
        condition = None if query.query is None else Condition("name", "contains", query.query)
        cursor = query.last_doc_id
        for passed_over in range(query.page + 1):
            message = _LIST[self._resource](filter=condition, limit=query.limit, cursor=cursor, total=True)
            page: Page[Any] = await visit.send(message)
            if passed_over == query.page:
                return page
            if page.cursor is None:
                break
            cursor = page.cursor
        return Page(entries=(), total=page.total)

    def _fields(self, body: EntityBody) -> dict[str, Any]:
        """Return the fields of messages that a body gives."""
        given: dict[str, Any] = {"name": body.name, "description": body.description, "config": body.config}
        for name, value in (("project_id", body.project_id), ("dataset_id", body.dataset_id)):
            given[name] = None if not value else known_id(value, name.removesuffix("_id"))
        if body.extra:
            given["metadata"] = dict(body.extra)
        given = {name: value for name, value in given.items() if value is not None}
        allowed = _CREATE[self._resource].model_fields.keys() - {self._id_field}
        if strange := sorted(given.keys() - allowed):
            raise BadRequest(f"a {self._kind} has no {', '.join(strange)}")
        return given


def _without_null(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


async def _data(visit: Visit, record: Any, *, with_urls: bool = False) -> dict[str, Any]:
    match record:
        case ModelRecord():
            return (await _model_data(visit, record, with_urls=with_urls)).to_data()
        case DatasetRecord():
            archive = await _archive(visit, record.id) if with_urls else None
            url, facts = _url_of(archive), _facts_of(archive)
            return EntityData(**_common(record), project_id=record.project_id, url=url, url_object=facts).to_data()
        case ProjectRecord():
            return EntityData(**_common(record), image=record.image_filename).to_data()
    raise TypeError(f"{type(record).__name__} is no entity of this door")


def _common(record: ModelRecord | DatasetRecord | ProjectRecord) -> dict[str, Any]:
    reserved = EntityBody.reserved()
    return {
        "id": record.id,
        "name": record.name,
        "description": record.description,
        "created_ms": _milliseconds(record.created_at),
        "updated_ms": _milliseconds(record.updated_at),
        "created_by": record.created_by,
        # Metadata may have been set elsewhere, with names that mean something here.
        "extra": {name: value for name, value in record.metadata.items() if name not in reserved},
    }


async def _model_data(visit: Visit, model: ModelRecord, *, with_urls: bool) -> EntityData:
    best = last = archive = None
    if with_urls and model.dataset_id is not None:
        archive = await _archive(visit, model.dataset_id)
    if with_urls and model.has_last:
        last = await _weights(visit, model, "last")
        best = await _weights(visit, model, "best") if model.has_best else None
        if best is None and model.has_final:
            best = await _weights(visit, model, "final")
    return EntityData(
        **_common(model),
        project_id=model.project_id,
        dataset_id=model.dataset_id,
        config=model.config,
        status=model.status,
        has_last=model.has_last,
        has_best=model.has_best or model.has_final,
        weights_url=_url_of(best),
        weights_object=_facts_of(best),
        resume_url=_url_of(last),
        resume_object=_facts_of(last),
        url=_url_of(archive),
        url_object=_facts_of(archive),
    )


async def _archive(visit: Visit, dataset_id: str) -> Origin | None:
    try:
        prepared = await visit.send(PrepareArchiveDownload(dataset_id=dataset_id))
    except NotFound:  # it has none, or is deleted
        return None
    origin: Origin = prepared.origin
    return origin


async def _weights(visit: Visit, model: ModelRecord, which: str) -> Origin | None:
    try:
        found: CheckpointRecord = await visit.send(FindCheckpoint(model_id=model.id, which=which))
        prepared = await visit.send(PrepareCheckpointDownload(model_id=model.id, checkpoint_id=found.id))
    except NotFound:  # replaced or deleted this moment
        return None
    origin: Origin = prepared.origin
    return origin


def _url_of(origin: Origin | None) -> str | None:
    return origin.url if isinstance(origin, UrlOrigin) else None


def _facts_of(origin: Origin | None) -> ObjectFacts | None:
    if origin is None or origin.size_bytes is None or origin.crc32c is None:
        return None
    return ObjectFacts(origin.size_bytes, origin.crc32c)


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


# --- people ------------------------------------------------------------------------------------------------------


def user_data(user: UserRecord) -> dict[str, Any]:
    """Return what is told of a user."""
    created_ms = None if user.created_at is None else _milliseconds(user.created_at)
    return {"id": user.id, "meta": {"name": user.name}, "role": user.role, "createdAt": created_ms}


async def _list_users(visit: Visit) -> Answer:
    query = paths.ListQuery.from_params(visit.params)
    page = await visit.send(ListUsers(limit=query.limit, cursor=query.last_doc_id, total=True))
    results = [user_data(user) for user in page.entries]
    return Answer(paths.answer(paths.ListAnswer(results, page.total or 0, page.cursor).to_data()))


async def _read_user(visit: Visit, entity_id: str) -> Answer:
    return Answer(paths.answer(user_data(await visit.send(GetUser(user_id=known_id(entity_id, "user"))))))


async def _list_teams(visit: Visit) -> Answer:
    return Answer(paths.answer(paths.ListAnswer([], 0, None).to_data()))


async def _read_team(visit: Visit, entity_id: str) -> Answer:
    raise NotFound("this platform has no teams")
