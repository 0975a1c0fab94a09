"""Models: what checkpoints belong to."""

from __future__ import annotations

from typing import ClassVar, Literal

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
from asyncsdk.protocol.checkpoints import Retention

__all__ = [
    "CreateModel",
    "DeleteModel",
    "GetModel",
    "ListModels",
    "ModelRecord",
    "ModelStatus",
    "RestoreModel",
    "UpdateModel",
]

ModelStatus = Literal["created", "training", "lost", "trained"]
"""``created``: nothing of it is there yet. ``training``: an agent beats, or there are checkpoints and none is final.
``lost``: the agent heard last fell silent for more than three of its intervals without saying goodbye, and no
checkpoint is final. ``trained``: a checkpoint is final."""


class ModelRecord(EntityRecord):
    """A model.

    Attributes:
        project_id: The project it belongs to.
        name: Need not be unique.
        description: Free text.
        framework: What the weights were made with; free text.
        labels: Class names and their numbers.
        config: Configuration it was made with.
        retention: Which checkpoints of older epochs stay when a new one is committed; None: all.
        dataset_id: The dataset it is trained on; None: not told, or that dataset was deleted for good.
        status: How far it is.
        is_resumable: Whether training can go on from its last checkpoint: there is one, and none is final.
        has_best: Whether one of its checkpoints is the best.
        has_last: Whether it has checkpoints at all.
        has_final: Whether one of its checkpoints is final.
        deleted_at: When it was deleted softly; None: it was not.
    """

    project_id: Id
    name: str
    description: str = ""
    framework: str = ""
    labels: dict[str, int] = {}
    config: dict[str, JsonValue] = {}
    retention: Retention | None = None
    dataset_id: Id | None = None
    status: ModelStatus = "created"
    is_resumable: bool = False
    has_best: bool = False
    has_last: bool = False
    has_final: bool = False
    deleted_at: Timestamp | None = None

    @property
    def architecture(self) -> str | None:
        """What it is built like: ``architecture`` of its configuration, else ``parent``, what it was begun from."""
        for name in ("architecture", "parent"):
            value = self.config.get(name)
            if isinstance(value, str) and value:
                return value
        return None


class CreateModel(Message[ModelRecord]):
    """Create a model in a project; without ``project_id``, in the default project. The dataset may be of any project.

    Names may repeat. With ``exist_ok`` and one model of that name in the project, that one is the answer, unchanged;
    with several, a conflict that gives their ids. Repeating the call with the same ``model_id`` gives the same model.
    """

    route: ClassVar = Post("/models")
    repeatable_by: ClassVar = "model_id"
    name: Name
    model_id: Id | None = None
    project_id: Id | None = None
    dataset_id: Id | None = None
    description: str = ""
    framework: str = ""
    labels: dict[str, int] = {}
    config: Metadata = {}
    retention: Retention | None = None
    metadata: Metadata = {}
    exist_ok: bool = False


class GetModel(Message[ModelRecord]):
    """Return one model."""

    route: ClassVar = Get("/models/{model_id}")
    model_id: Id


class ListModels(ListMessage[ModelRecord]):
    """List models of one project or of all, newest first unless sorted otherwise.

    With ``deleted`` only those that were deleted softly, else only the others.
    """

    route: ClassVar = Get("/models")
    project_id: Id | None = None
    deleted: bool = False


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
    retention: Retention | None = None
    dataset_id: Id | None = None
    metadata: Metadata | None = None


class DeleteModel(Message[Empty]):
    """Delete a model with its checkpoints; without ``hard``, put it out of reach until it is restored.

    ``hard`` takes one that was deleted softly, too.
    """

    route: ClassVar = Delete("/models/{model_id}")
    model_id: Id
    hard: bool = True


class RestoreModel(Message[ModelRecord]):
    """Bring back a model that was deleted softly. One that was not is the answer, unchanged.

    A conflict when its project is deleted, too: restore that first.
    """

    route: ClassVar = Post("/models/{model_id}/restore")
    model_id: Id
