"""Prediction tasks, and the prediction rows of a dataset's items.

Rows in bulk are packed into NDJSON parts of about 4 MiB, sent through signed URLs like files, then committed; few
rows go inline. Annotations, embeddings and metadata are to take the same path.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from asyncsdk.domain.ids import Id
from asyncsdk.domain.paths import Name
from asyncsdk.domain.predictions import PredictionKind
from asyncsdk.protocol.base import (
    Crc32cHex,
    Delete,
    Empty,
    EntityRecord,
    Get,
    ListMessage,
    Message,
    Metadata,
    Patch,
    Post,
    Problem,
    Record,
    Timestamp,
    Value,
)
from asyncsdk.protocol.uploads import PreparedUpload, UploadKey

__all__ = [
    "CommitPredictionParts",
    "CreatePredictionTask",
    "DeletePredictionTask",
    "GetPredictionTask",
    "IngestedRows",
    "ListPredictionTasks",
    "ListPredictions",
    "PredictionRow",
    "PredictionTaskRecord",
    "PrepareRowParts",
    "PreparedRowParts",
    "RowPart",
    "SentRowPart",
    "UpdatePredictionTask",
    "UploadPredictionRows",
]

MAX_INLINE_BYTES = 256 * 1024
"""Rows whose NDJSON is smaller go inside the message."""

MAX_ROW_PART_BYTES = 64 * 1024 * 1024
MAX_ROW_PROBLEMS = 1000
"""Bad rows described in full by one reply; the rest are counted."""

Categories = Annotated[tuple[Annotated[str, Field(min_length=1, max_length=255)], ...], Field(max_length=100_000)]


class PredictionTaskRecord(EntityRecord):
    """The schema of predictions.

    Attributes:
        dataset_id: The dataset it belongs to.
        name: Unique within the dataset.
        kind: What a prediction is.
        categories: Names that predictions may use.
        version: Counts its changes, from 1.
    """

    dataset_id: Id
    name: str
    kind: PredictionKind
    categories: tuple[str, ...]
    version: int = 1


class CreatePredictionTask(Message[PredictionTaskRecord]):
    """Create a prediction task on a dataset.

    A taken name is a conflict, unless ``exist_ok``: then the task of that name is the answer, unchanged. Repeating the
    call with the same ``task_id`` gives the same task.
    """

    route: ClassVar = Post("/datasets/{dataset_id}/prediction-tasks")
    repeatable_by: ClassVar = "task_id"
    dataset_id: Id
    name: Name
    kind: PredictionKind
    categories: Categories
    task_id: Id | None = None
    metadata: Metadata = {}
    exist_ok: bool = False


class GetPredictionTask(Message[PredictionTaskRecord]):
    """Return one prediction task."""

    route: ClassVar = Get("/datasets/{dataset_id}/prediction-tasks/{task_id}")
    dataset_id: Id
    task_id: Id


class ListPredictionTasks(ListMessage[PredictionTaskRecord]):
    """List the prediction tasks of a dataset, by name unless sorted otherwise."""

    route: ClassVar = Get("/datasets/{dataset_id}/prediction-tasks")
    dataset_id: Id


class UpdatePredictionTask(Message[PredictionTaskRecord]):
    """Change the fields that are given and count the version up; stored predictions stay as they are."""

    route: ClassVar = Patch("/datasets/{dataset_id}/prediction-tasks/{task_id}")
    dataset_id: Id
    task_id: Id
    if_updated_at: Timestamp | None = None
    categories: Categories | None = None
    metadata: Metadata | None = None


class DeletePredictionTask(Message[Empty]):
    """Delete a prediction task with its predictions."""

    route: ClassVar = Delete("/datasets/{dataset_id}/prediction-tasks/{task_id}")
    dataset_id: Id
    task_id: Id


class PredictionRow(Record):
    """The predictions of one task for one item.

    Attributes:
        item_id: The item.
        path: Its path.
        predictions: As given: ``category``, ``score``, ``bbox`` [x, y, w, h] in pixels and whatever else was there.
        updated_at: When they were stored.
    """

    item_id: Id
    path: str
    predictions: tuple[dict[str, Any], ...]
    updated_at: Timestamp


class ListPredictions(ListMessage[PredictionRow]):
    """List the prediction rows of one task, by position of the item."""

    route: ClassVar = Get("/datasets/{dataset_id}/predictions")
    dataset_id: Id
    task: str
    """Name of the prediction task."""


class PreparedRowParts(Record):
    """One target per part, in order."""

    entries: tuple[PreparedUpload, ...]


class RowPart(Value):
    """A part to prepare for: its size and checksum."""

    size_bytes: Annotated[int, Field(ge=1, le=MAX_ROW_PART_BYTES)]
    crc32c: Crc32cHex


class PrepareRowParts(Message[PreparedRowParts]):
    """Mint targets for parts of packed rows (NDJSON). Writes nothing."""

    route: ClassVar = Post("/datasets/{dataset_id}/row-parts/prepare")
    dataset_id: Id
    parts: Annotated[tuple[RowPart, ...], Field(min_length=1, max_length=100)]


class SentRowPart(Value):
    """A part that was sent.

    Attributes:
        key: As prepared.
        size_bytes: Bytes sent.
        crc32c: Checksum of the bytes sent.
        first_line: What its first line counts as when a bad row is reported.
    """

    key: UploadKey
    size_bytes: Annotated[int, Field(ge=1, le=MAX_ROW_PART_BYTES)]
    crc32c: Crc32cHex
    first_line: Annotated[int, Field(ge=1)] = 1


class IngestedRows(Record):
    """What became of rows.

    Attributes:
        accepted: Rows stored; a row for an item that had one replaces it.
        refused: Rows not stored.
        problems: Why, with the line, for the first 1,000 of them.
    """

    accepted: int
    refused: int = 0
    problems: tuple[Problem, ...] = ()


class CommitPredictionParts(Message[IngestedRows]):
    """Store the prediction rows of sent parts. Durable when it answers; repeating it stores the same rows again.

    Bad rows are reported by line and do not stop the others. The parts are removed.
    """

    route: ClassVar = Post("/datasets/{dataset_id}/predictions/commit")
    dataset_id: Id
    task: str
    parts: Annotated[tuple[SentRowPart, ...], Field(min_length=1, max_length=100)]


class UploadPredictionRows(Message[IngestedRows]):
    """Store a few prediction rows (below 256 KiB) that come inside the message.

    A row that is null stands for a blank line: counted as a line, passed over.
    """

    route: ClassVar = Post("/datasets/{dataset_id}/predictions")
    dataset_id: Id
    task: str
    rows: Annotated[tuple[Any, ...], Field(min_length=1, max_length=100_000)]
    first_line: Annotated[int, Field(ge=1)] = 1
