"""Datasets: named collections of items."""

from __future__ import annotations

from typing import ClassVar, Literal

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

__all__ = [
    "CreateDataset",
    "DatasetKind",
    "DatasetRecord",
    "DeleteDataset",
    "GetDataset",
    "ListDatasets",
    "RestoreDataset",
    "UpdateDataset",
]

DatasetKind = Literal["files", "images", "videos"]


class DatasetRecord(EntityRecord):
    """A dataset.

    Attributes:
        project_id: The project it belongs to.
        name: Unique within the project.
        kind: What its items are.
        description: Free text.
        is_readonly: Whether items, predictions and metadata are refused.
        item_count: Items it has.
        size_bytes: Bytes of all its items.
        archive_filename: Name of the file that its archive came from; None: it has no archive.
        deleted_at: When it was deleted softly; None: it was not.
    """

    project_id: Id
    name: str
    kind: DatasetKind = "files"
    description: str = ""
    is_readonly: bool = False
    item_count: int = 0
    size_bytes: int = 0
    archive_filename: str | None = None
    deleted_at: Timestamp | None = None


class CreateDataset(Message[DatasetRecord]):
    """Create a dataset in a project; without ``project_id``, in the default project.

    Repeating the call with the same ``dataset_id`` gives the same dataset. A name taken in the project is a conflict,
    unless ``exist_ok``: then the dataset of that name is the answer, unchanged. One that was deleted softly
    keeps its name: a conflict either way.
    """

    route: ClassVar = Post("/datasets")
    repeatable_by: ClassVar = "dataset_id"
    name: Name
    dataset_id: Id | None = None
    project_id: Id | None = None
    kind: DatasetKind = "files"
    description: str = ""
    metadata: Metadata = {}
    exist_ok: bool = False


class GetDataset(Message[DatasetRecord]):
    """Return one dataset."""

    route: ClassVar = Get("/datasets/{dataset_id}")
    dataset_id: Id


class ListDatasets(ListMessage[DatasetRecord]):
    """List datasets of one project or of all, by name unless sorted otherwise.

    With ``deleted`` only those that were deleted softly, else only the others.
    """

    route: ClassVar = Get("/datasets")
    project_id: Id | None = None
    deleted: bool = False


class UpdateDataset(Message[DatasetRecord]):
    """Change the fields that are given; refused when the dataset changed since ``if_updated_at``.

    Metadata of a read-only dataset changes only together with ``is_readonly=False``.
    """

    route: ClassVar = Patch("/datasets/{dataset_id}")
    dataset_id: Id
    if_updated_at: Timestamp | None = None
    name: Name | None = None
    description: str | None = None
    is_readonly: bool | None = None
    metadata: Metadata | None = None


class DeleteDataset(Message[Empty]):
    """Delete a dataset with its items, prediction tasks and predictions.

    Without ``hard`` all of it is put out of reach until it is restored. ``hard`` takes one that was deleted softly,
    too; models that are trained on it lose that link.
    """

    route: ClassVar = Delete("/datasets/{dataset_id}")
    dataset_id: Id
    hard: bool = True


class RestoreDataset(Message[DatasetRecord]):
    """Bring back a dataset that was deleted softly. One that was not is the answer, unchanged.

    A conflict when its project is deleted, too: restore that first.
    """

    route: ClassVar = Post("/datasets/{dataset_id}/restore")
    dataset_id: Id
