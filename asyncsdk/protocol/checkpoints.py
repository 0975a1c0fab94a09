"""Checkpoints: saved weights of a model."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from asyncsdk.domain.ids import Id
from asyncsdk.protocol.base import (
    Crc32cHex,
    Delete,
    Empty,
    EntityRecord,
    Get,
    ListMessage,
    Message,
    Metadata,
    Post,
    Record,
    Value,
)
from asyncsdk.protocol.uploads import OriginField, PreparedUpload, UploadKey

__all__ = [
    "CheckpointRecord",
    "CommitCheckpoint",
    "DeleteCheckpoint",
    "FindCheckpoint",
    "GetCheckpoint",
    "ListCheckpoints",
    "PrepareCheckpoint",
    "PrepareCheckpointDownload",
    "PreparedCheckpointDownload",
    "PruneCheckpoints",
    "PrunedCheckpoints",
    "Retention",
    "WhichCheckpoint",
]

WhichCheckpoint = Literal["best", "last", "final"]
"""``last``: the one committed last. ``best``, ``final``: the last one committed as such."""

MAX_EPOCH = 2**31 - 1

Metrics = Annotated[dict[str, Annotated[float, Field(allow_inf_nan=False)]], Field(max_length=10_000)]
"""Finite numbers by name."""


class Retention(Value):
    """Which checkpoints of older epochs stay.

    Whatever it says, the best, the last and the final checkpoint of a model stay, and those that belong to no epoch.
    Of the others one stays when it is among the ``keep_last`` newest, or its epoch is a multiple of ``keep_every``.
    With neither, all stay.

    Attributes:
        keep_last: How many of the newest stay, by order of commit; best and final ones count, if they have an epoch.
        keep_every: Every epoch that this number divides stays, 0 too.
    """

    keep_last: Annotated[int, Field(ge=1, le=MAX_EPOCH)] | None = None
    keep_every: Annotated[int, Field(ge=1, le=MAX_EPOCH)] | None = None


class CheckpointRecord(EntityRecord):
    """Saved weights.

    Attributes:
        model_id: The model they belong to.
        filename: Name of the file they came from; empty when they came from memory.
        epoch: Epoch they were saved after; None when not told. One checkpoint per epoch: a new one replaces it.
        is_best: Whether they are the model's best so far; at most one checkpoint of a model is.
        is_final: Whether they are the model's result; at most one checkpoint of a model is.
        metrics: Numbers by name.
        size_bytes: Size of the object.
        crc32c: Checksum of the object, eight hexadecimal digits.
        etag: Validator of the object.
    """

    model_id: Id
    filename: str = ""
    epoch: int | None = None
    is_best: bool = False
    is_final: bool = False
    metrics: dict[str, float] = {}
    size_bytes: int
    crc32c: Crc32cHex
    etag: str


class PrepareCheckpoint(Message[PreparedUpload]):
    """Mint a target for weights of a model. Writes nothing; its verdict is always ``upload``.

    What the commit will say of them may be told here already: there are services that must be told with the bytes.
    Others pass over it.
    """

    route: ClassVar = Post("/models/{model_id}/checkpoints/prepare")
    model_id: Id
    size_bytes: Annotated[int, Field(ge=0)] | None = None
    crc32c: Crc32cHex | None = None
    epoch: Annotated[int, Field(ge=0, le=MAX_EPOCH)] | None = None
    is_best: bool = False
    is_final: bool = False
    metrics: Metrics = {}
    metadata: Metadata = {}


class CommitCheckpoint(Message[CheckpointRecord]):
    """Make sent weights a checkpoint. Durable when it answers; idempotent by ``checkpoint_id``.

    With ``is_best`` (``is_final``) no other checkpoint of the model is best (final) any more. A checkpoint of the same
    epoch is replaced. Those of older epochs that the model's ``retention`` does not keep are deleted with it.
    """

    route: ClassVar = Post("/models/{model_id}/checkpoints/commit")
    model_id: Id
    checkpoint_id: Id
    key: UploadKey
    size_bytes: Annotated[int, Field(ge=0)]
    crc32c: Crc32cHex
    filename: Annotated[str, Field(max_length=1024)] = ""
    epoch: Annotated[int, Field(ge=0, le=MAX_EPOCH)] | None = None
    is_best: bool = False
    is_final: bool = False
    metrics: Metrics = {}
    metadata: Metadata = {}


class ListCheckpoints(ListMessage[CheckpointRecord]):
    """List the checkpoints of a model, in order of commit unless sorted otherwise."""

    route: ClassVar = Get("/models/{model_id}/checkpoints")
    model_id: Id


class GetCheckpoint(Message[CheckpointRecord]):
    """Return one checkpoint."""

    route: ClassVar = Get("/models/{model_id}/checkpoints/{checkpoint_id}")
    model_id: Id
    checkpoint_id: Id


class FindCheckpoint(Message[CheckpointRecord]):
    """Return the best, last or final checkpoint of a model, or that of an epoch; exactly one of the two is given."""

    route: ClassVar = Get("/models/{model_id}/find-checkpoint")
    model_id: Id
    which: WhichCheckpoint | None = None
    epoch: int | None = None


class DeleteCheckpoint(Message[Empty]):
    """Delete one checkpoint."""

    route: ClassVar = Delete("/models/{model_id}/checkpoints/{checkpoint_id}")
    model_id: Id
    checkpoint_id: Id


class PrunedCheckpoints(Record):
    """The checkpoints that were deleted, or would be, in order of commit."""

    entries: tuple[CheckpointRecord, ...]


class PruneCheckpoints(Message[PrunedCheckpoints]):
    """Delete checkpoints of older epochs, all but those that `Retention` with these numbers keeps.

    Without numbers the model's own ``retention`` is applied. Repeating it deletes nothing more: the repetition of a
    call whose reply was lost therefore names fewer than the two together deleted.
    """

    route: ClassVar = Post("/models/{model_id}/checkpoints/prune")
    model_id: Id
    keep_last: Annotated[int, Field(ge=1, le=MAX_EPOCH)] | None = None
    keep_every: Annotated[int, Field(ge=1, le=MAX_EPOCH)] | None = None
    dry_run: bool = False


class PreparedCheckpointDownload(Record):
    """Where the weights can be read for a while."""

    origin: OriginField


class PrepareCheckpointDownload(Message[PreparedCheckpointDownload]):
    """Return where the weights of a checkpoint can be read for a while."""

    route: ClassVar = Post("/models/{model_id}/checkpoints/{checkpoint_id}/prepare-download")
    model_id: Id
    checkpoint_id: Id
