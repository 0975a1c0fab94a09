"""Projects, datasets and models: what creating and changing them sends, and what reading them answers.

A body has some fields of its own and takes any others; what has no field here is ``extra``, kept and given back as it
came. The configuration of a model goes by other names in the body (``imageSize``) than in the answer (``imgsz``); here
it has those of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from asyncsdk.errors import BadRequest

__all__ = ["EntityBody", "EntityData", "ObjectFacts"]

_CONFIG_NAMES = {
    "batchSize": "batch_size",
    "epochs": "epochs",
    "imageSize": "imgsz",
    "patience": "patience",
    "device": "device",
    "cache": "cache",
}
"""Names in a body, and in an answer."""

_BODY_NAMES = {name: body_name for body_name, name in _CONFIG_NAMES.items()}

_CRC32C = re.compile("[0-9a-f]{8}")
_LINEAGE = ("architecture", "parent")

_DATA_FIELDS = frozenset(
    {
        *_BODY_NAMES,
        "id", "meta", "createdAt", "updatedAt", "createdBy", "image", "project", "projectId", "dataset",
        "datasetId", "config", "lineage", "train_args", "status", "cfg", "data", "weights", "resume", "url",
        "has_last_weights", "has_best_weights", "is_pretrained", "is_custom",
        "weightsObject", "resumeObject", "urlObject",
    }
)  # fmt: skip
"""Fields of answers that are no ``extra``."""


@dataclass(frozen=True, slots=True)
class EntityBody:
    """What creating or changing one says. None: not said.

    Attributes:
        name: Its name (``meta.name``).
        description: Free text (``meta.description``).
        project_id: The project it belongs to.
        dataset_id: The dataset that a model is trained on.
        config: Configuration of a model. ``architecture``, ``parent`` (what its weights began as) and ``dataset`` (the
            name of one) travel apart from the rest.
        extra: Fields that have no place here.
    """

    name: str | None = None
    description: str | None = None
    project_id: str | None = None
    dataset_id: str | None = None
    config: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def reserved() -> frozenset[str]:
        """Return the names that no field of ``extra`` can have."""
        return _DATA_FIELDS

    def to_json(self) -> dict[str, Any]:
        """Return the body of the request."""
        body: dict[str, Any] = dict(self.extra)
        meta = {"name": self.name, "description": self.description}
        if any(value is not None for value in meta.values()):
            body["meta"] = {name: value for name, value in meta.items() if value is not None}
        if self.project_id is not None:
            body["projectId"] = self.project_id
        if self.dataset_id is not None:
            body["datasetId"] = self.dataset_id
        if self.config is not None:
            config = dict(self.config)
            lineage = {name: {"name": config.pop(name)} for name in _LINEAGE if name in config}
            if lineage:
                body["lineage"] = lineage
            if "dataset" in config:
                body["dataset"] = {"name": config.pop("dataset")}
            body["config"] = {_BODY_NAMES.get(name, name): value for name, value in config.items()}
        return body

    @classmethod
    def from_json(cls, body: Any) -> EntityBody:
        """Return what the body of a request says.

        Raises:
            BadRequest: It is no JSON object, or a field of it is none that should be.
        """
        if not isinstance(body, dict):
            raise BadRequest("the body must be a JSON object")
        rest = dict(body)
        meta = _mapping(rest.pop("meta", None), "meta")
        config = _config(rest)
        known = {
            "name": _text(meta.pop("name", None), "meta.name"),
            "description": _text(meta.pop("description", None), "meta.description"),
            "project_id": _text(rest.pop("projectId", None), "projectId"),
            "dataset_id": _text(rest.pop("datasetId", None), "datasetId"),
        }
        rest.pop("id", None)  # the server's to give
        if taken := sorted(rest.keys() & _DATA_FIELDS):
            raise BadRequest(f"{', '.join(taken)}: told by the server, not to be set")
        if meta:
            raise BadRequest(f"meta has a name and a description, not {', '.join(sorted(meta))}")
        return cls(**known, config=config, extra=rest)


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What is told of an object beside its URL, so that nobody has to ask for it. Ours.

    Attributes:
        size_bytes: Its size.
        crc32c: Its checksum, eight hexadecimal digits.
    """

    size_bytes: int
    crc32c: str

    def to_json(self) -> dict[str, Any]:
        """Return the field."""
        return {"size": self.size_bytes, "crc32c": self.crc32c}

    @classmethod
    def from_json(cls, value: Any) -> ObjectFacts | None:
        """Return what a field says; None when it says nothing, or no sense."""
        if not isinstance(value, dict):
            return None
        size, crc32c = value.get("size"), value.get("crc32c")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            return None
        if not isinstance(crc32c, str) or _CRC32C.fullmatch(crc32c) is None:
            return None
        return cls(size, crc32c)


@dataclass(frozen=True, slots=True)
class EntityData:
    """What reading one answers.

    Attributes:
        id: Its id.
        name: Its name.
        description: Free text.
        created_ms: When it was made, milliseconds since 1970 UTC; None when not told. Ours.
        updated_ms: When it last changed; None when not told. Ours.
        created_by: Id of the user who made it. Ours.
        project_id: The project it belongs to.
        dataset_id: The dataset that a model is trained on.
        config: Configuration of a model; None for others.
        status: Of a model: ``trained`` when its final weights are there.
        has_last: Whether a model has weights of an epoch.
        has_best: Whether it has weights that are its best.
        weights_url: Where its best weights can be read for a while.
        resume_url: Where its last weights can be read for a while.
        image: Name of the file that a project's image came from. Ours.
        url: Where the archive of a dataset, or of a model's dataset, can be read for a while.
        weights_object: What is behind ``weights_url``; None when not told.
        resume_object: What is behind ``resume_url``.
        url_object: What is behind ``url``.
        extra: Fields that have no place here.
    """

    id: str
    name: str
    description: str = ""
    created_ms: int | None = None
    updated_ms: int | None = None
    created_by: str | None = None
    project_id: str | None = None
    dataset_id: str | None = None
    config: Mapping[str, Any] | None = None
    status: str = ""
    has_last: bool = False
    has_best: bool = False
    weights_url: str | None = None
    resume_url: str | None = None
    image: str | None = None
    url: str | None = None
    weights_object: ObjectFacts | None = None
    resume_object: ObjectFacts | None = None
    url_object: ObjectFacts | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        """Return the ``data`` of the answer."""
        data = {
            **self.extra,
            "id": self.id,
            "meta": {"name": self.name, "description": self.description},
            "createdAt": self.created_ms,
            "updatedAt": self.updated_ms,
            "createdBy": self.created_by,
        }
        told = {"weightsObject": self.weights_object, "resumeObject": self.resume_object, "urlObject": self.url_object}
        data |= {name: facts.to_json() for name, facts in told.items() if facts is not None}
        if self.image is not None:
            data["image"] = self.image
        if self.project_id is not None:
            data["project"] = self.project_id
        if self.config is None:
            return data if self.url is None else {**data, "url": self.url}
        config = dict(self.config)
        architecture, parent, dataset = (config.pop(name, None) for name in (*_LINEAGE, "dataset"))
        data |= {name: config.pop(name) for name in _BODY_NAMES if name in config}
        lineage = {"architecture": architecture, "parent": parent}
        return {
            **data,
            "dataset": self.dataset_id,
            "train_args": config,
            "lineage": {name: {"name": value} for name, value in lineage.items() if value is not None},
            "cfg": architecture,
            "data": dataset if self.url is None else self.url,
            "status": self.status,
            "is_pretrained": parent is not None,
            "is_custom": architecture is not None and parent is None,
            "has_last_weights": self.has_last,
            "has_best_weights": self.has_best,
            "weights": self.weights_url,
            "resume": self.resume_url,
        }

    @classmethod
    def from_data(cls, data: Any, *, is_model: bool = False) -> EntityData:
        """Return what the ``data`` of an answer says.

        Raises:
            ValueError: It is no entity's.
        """
        if not isinstance(data, dict) or not isinstance(data.get("id"), str):
            raise ValueError("data is no object with an id")
        meta = data.get("meta")
        name = meta.get("name") if isinstance(meta, dict) else None
        description = meta.get("description") if isinstance(meta, dict) else None
        return cls(
            id=data["id"],
            name=name if isinstance(name, str) else "",
            description=description if isinstance(description, str) else "",
            created_ms=_milliseconds(data.get("createdAt")),
            updated_ms=_milliseconds(data.get("updatedAt")),
            created_by=_reference(data, "createdBy"),
            image=_reference(data, "image"),
            project_id=_reference(data, "project"),
            dataset_id=_reference(data, "dataset"),
            config=_config_of(data) if is_model else None,
            status=str(data.get("status") or ""),
            has_last=data.get("has_last_weights") is True,
            has_best=data.get("has_best_weights") is True,
            weights_url=_url(data.get("weights")),
            resume_url=_url(data.get("resume")),
            url=_url(data.get("data" if is_model else "url")),
            weights_object=ObjectFacts.from_json(data.get("weightsObject")),
            resume_object=ObjectFacts.from_json(data.get("resumeObject")),
            url_object=ObjectFacts.from_json(data.get("urlObject")),
            extra={name: value for name, value in data.items() if name not in _DATA_FIELDS},
        )


def _config(rest: dict[str, Any]) -> dict[str, Any] | None:
    """Take out of a body what makes up the configuration of a model; None when nothing of it is there."""
    if not rest.keys() & {"config", "lineage", "dataset"}:
        return None
    given = _mapping(rest.pop("config", None), "config")
    lineage = _mapping(rest.pop("lineage", None), "lineage")
    named = {name: _mapping(lineage.get(name), f"lineage.{name}") for name in _LINEAGE}
    named["dataset"] = _mapping(rest.pop("dataset", None), "dataset")
    config = {_CONFIG_NAMES.get(name, name): value for name, value in given.items()}
    return config | {name: part["name"] for name, part in named.items() if "name" in part}


def _config_of(data: Mapping[str, Any]) -> dict[str, Any]:
    arguments = data.get("train_args")
    config = dict(arguments) if isinstance(arguments, dict) else {}
    config |= {name: data[name] for name in _BODY_NAMES if data.get(name) is not None}
    lineage = data.get("lineage")
    for name in _LINEAGE:
        part = lineage.get(name) if isinstance(lineage, dict) else None
        if isinstance(part, dict) and part.get("name") is not None:
            config[name] = part["name"]
    dataset = data.get("data")
    if isinstance(dataset, str) and dataset and _url(dataset) is None:
        config["dataset"] = dataset
    return config


def _reference(data: Mapping[str, Any], name: str) -> str | None:
    value = data.get(name, data.get(f"{name}Id"))
    if isinstance(value, dict):
        value = value.get("id")
    return value if isinstance(value, str) and value else None


def _url(value: Any) -> str | None:
    return value if isinstance(value, str) and value.startswith(("http://", "https://")) else None


def _milliseconds(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _mapping(value: Any, name: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest(f"{name} must be a JSON object")
    return dict(value)


def _text(value: Any, name: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"{name} must be text")
    return value
