"""Models: what checkpoints belong to."""

from __future__ import annotations

from typing import ClassVar

from pydantic import JsonValue

from asyncsdk.domain.ids import Id
from asyncsdk.domain.paths import Name
from asyncsdk.protocol.base import (
    Delete,
    Empty,
    EntityRecord,
    Get,
    ListMessage,
    Message,
    Metadata,
    Patch,
    Post,
    Timestamp,
)

__all__ = ["CreateModel", "DeleteModel", "GetModel", "ListModels", "ModelRecord", "UpdateModel"]


class ModelRecord(EntityRecord):
    """A model.

    Attributes:
        project_id: The project it belongs to.
        name: Need not be unique.
        description: Free text.
        framework: What the weights were made with; free text.
        labels: Class names and their numbers.
        config: Configuration it was made with.
    """

    project_id: Id
    name: str
    description: str = ""
    framework: str = ""
    labels: dict[str, int] = {}
    config: dict[str, JsonValue] = {}


class CreateModel(Message[ModelRecord]):
    """Create a model in a project; without ``project_id``, in the default project.

    Names may repeat. With ``exist_ok`` and one model of that name in the project, that one is the answer, unchanged;
    with several, a conflict that gives their ids. Repeating the call with the same ``model_id`` gives the same model.
    """

    route: ClassVar = Post("/models")
    repeatable_by: ClassVar = "model_id"
    name: Name
    model_id: Id | None = None
    project_id: Id | None = None
    description: str = ""
    framework: str = ""
    labels: dict[str, int] = {}
    config: Metadata = {}
    metadata: Metadata = {}
    exist_ok: bool = False


class GetModel(Message[ModelRecord]):
    """Return one model."""

    route: ClassVar = Get("/models/{model_id}")
    model_id: Id


class ListModels(ListMessage[ModelRecord]):
    """List models of one project or of all, newest first unless sorted otherwise."""

    route: ClassVar = Get("/models")
    project_id: Id | None = None


class UpdateModel(Message[ModelRecord]):
    """Change the fields that are given; refused when the model changed since ``if_updated_at``."""

    route: ClassVar = Patch("/models/{model_id}")
    model_id: Id
    if_updated_at: Timestamp | None = None
    name: Name | None = None
    description: str | None = None
    framework: str | None = None
    labels: dict[str, int] | None = None
    config: Metadata | None = None
    metadata: Metadata | None = None


class DeleteModel(Message[Empty]):
    """Delete a model with its checkpoints."""

    route: ClassVar = Delete("/models/{model_id}")
    model_id: Id
