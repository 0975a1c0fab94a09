"""What the wire tells as records of ours, and what messages say as bodies of the wire.

Ids of the service must have the form of ours, 24 hexadecimal digits, as those of an asyncsdk server behind the wire
have: an id is all that leads back to a thing, and there is no room in ours for one of another form. Times that the
service does not tell are 1970-01-01.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from asyncsdk.domain.ids import is_id
from asyncsdk.errors import BadRequest, UnsupportedOperation
from asyncsdk.protocol.base import Message
from asyncsdk.protocol.datasets import DatasetRecord
from asyncsdk.protocol.models import ModelRecord, ModelStatus
from asyncsdk.protocol.projects import ProjectRecord
from asyncsdk.wires.ultralytics.entities import EntityBody, EntityData

__all__ = [
    "NAME",
    "body_of",
    "check_expressible",
    "dataset_record",
    "id_of",
    "model_record",
    "project_record",
    "time_of",
]

NAME = "ultralytics"
"""What the platform is called in errors."""

_STATUSES: Mapping[str, ModelStatus] = {
    "created": "created",
    "training": "training",
    "lost": "lost",
    "trained": "trained",
}


def id_of(text: str) -> str:
    """Return an id that the service told.

    Raises:
        ValueError: It has another form than ours.
    """
    if not is_id(text):
        raise ValueError(f"the id {text[:40]!r} does not have 24 hexadecimal digits, as those of this client have")
    return text


def time_of(milliseconds: int | None) -> datetime:
    """Return a time that the service told; 1970-01-01 for None."""
    return datetime.fromtimestamp((milliseconds or 0) / 1000, tz=UTC)


def project_record(data: Any) -> ProjectRecord:
    """Return the record of a project; `ValueError` when *data* is none's."""
    told = EntityData.from_data(data)
    return ProjectRecord(**_common(told), image_filename=told.image)


def dataset_record(data: Any) -> DatasetRecord:
    """Return the record of a dataset; `ValueError` when *data* is none's. Its items are not told."""
    told = EntityData.from_data(data)
    return DatasetRecord(**_common(told), project_id=_project(told))


def model_record(data: Any) -> ModelRecord:
    """Return the record of a model; `ValueError` when *data* is none's."""
    told = EntityData.from_data(data, is_model=True)
    is_trained = told.status == "trained"
    begun: ModelStatus = "training" if told.has_last or told.has_best else "created"
    return ModelRecord(
        **_common(told),
        project_id=_project(told),
        dataset_id=None if told.dataset_id is None else id_of(told.dataset_id),
        config=dict(told.config or {}),
        status=_STATUSES.get(told.status, begun),
        is_resumable=told.has_last and not is_trained,
        has_best=told.has_best,
        has_last=told.has_last,
        has_final=is_trained,
    )


def _common(told: EntityData) -> dict[str, Any]:
    return {
        "id": id_of(told.id),
        "name": told.name,
        "description": told.description,
        "created_at": time_of(told.created_ms),
        "updated_at": time_of(told.updated_ms),
        "created_by": told.created_by,
        "metadata": dict(told.extra),
    }


def _project(told: EntityData) -> str:
    if told.project_id is None:
        raise ValueError("data does not tell the project")
    return id_of(told.project_id)


def check_expressible(message: Message[Any], fields: Collection[str]) -> None:
    """Do nothing when the wire can say all that *message* says.

    Args:
        message: Fields that have their default say nothing.
        fields: Those that the wire has a place for.

    Raises:
        UnsupportedOperation: A field is given that it has no place for; nothing is left out silently.
    """
    operation = type(message).__name__
    for name in sorted(message.model_fields_set - set(fields)):
        if getattr(message, name) != type(message).model_fields[name].get_default(call_default_factory=True):
            raise UnsupportedOperation(NAME, f"{operation} with {name}")


def body_of(message: Message[Any], before: Any = None) -> dict[str, Any]:
    """Return the body that creates or changes what a message says.

    Args:
        message: Its metadata become fields of the body's own.
        before: The record as it is now, when something is changed: of metadata and configuration, which messages
            replace as a whole, what is not among the new ones goes.

    Raises:
        BadRequest: A key of the metadata means something on the wire, or its value is null.
    """
    given = {name: getattr(message, name) for name in message.model_fields_set}
    metadata: Mapping[str, Any] = given.get("metadata") or {}
    if taken := sorted(metadata.keys() & EntityBody.reserved()):
        raise BadRequest(f"metadata cannot have {', '.join(taken)} on this platform: the service means something by it")
    if any(value is None for value in metadata.values()):
        raise BadRequest("metadata cannot be null on this platform: to the service that means not there")
    config: Mapping[str, Any] | None = given.get("config")
    gone: dict[str, Any] = {}
    if before is not None:
        gone = dict.fromkeys(before.metadata.keys() - metadata.keys()) if given.get("metadata") is not None else {}
        config = None if config is None else {**dict.fromkeys(before.config.keys() - config.keys()), **config}
    return EntityBody(
        name=given.get("name"),
        description=given.get("description"),
        project_id=given.get("project_id") if before is None and message.repeatable_by != "project_id" else None,
        dataset_id=given.get("dataset_id") if "config" in type(message).model_fields else None,
        config=config,
        extra={**metadata, **gone},
    ).to_json()
