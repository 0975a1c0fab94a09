"""Checkpoints: prepare, commit, get, find, list, delete, and where their weights can be read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import Row, Select, delete, func, select, update

from asyncsdk.errors import BadRequest, Conflict, NotFound
from asyncsdk.protocol.base import Empty, Page
from asyncsdk.protocol.checkpoints import (
    CheckpointRecord,
    CommitCheckpoint,
    DeleteCheckpoint,
    FindCheckpoint,
    GetCheckpoint,
    ListCheckpoints,
    PrepareCheckpoint,
    PrepareCheckpointDownload,
    PreparedCheckpointDownload,
    PruneCheckpoints,
    PrunedCheckpoints,
    Retention,
)
from asyncsdk.protocol.uploads import PreparedUpload
from asyncsdk.server.handlers.blobs import StoredBlobs, add_blobs, arrived, drop_references, new_blob
from asyncsdk.server.handlers.entities import add, fetch, to_record
from asyncsdk.server.handlers.keys import check_key
from asyncsdk.server.handlers.registry import Arrivals, Context, handles
from asyncsdk.server.handlers.uploads import prepare_object
from asyncsdk.server.listing import Field, Listing, list_page
from asyncsdk.server.schema import blobs, checkpoints, models

__all__: list[str] = []

_record = partial(to_record, CheckpointRecord)

_MAX_IDS = 1000
"""Rows named by one statement."""

_LISTING = Listing(
    fields={
        "id": Field(checkpoints.c.id, is_unique=True),
        "filename": Field(checkpoints.c.filename),
        "epoch": Field(checkpoints.c.epoch, "number", is_nullable=True),
        "is_best": Field(checkpoints.c.is_best, "boolean"),
        "is_final": Field(checkpoints.c.is_final, "boolean"),
        "size_bytes": Field(blobs.c.size_bytes, "number"),
        "crc32c": Field(blobs.c.crc32c),
        "created_at": Field(checkpoints.c.created_at, "number"),
        "updated_at": Field(checkpoints.c.updated_at, "number"),
        "created_by": Field(checkpoints.c.created_by, is_nullable=True),
    },
    hidden={"sequence": Field(checkpoints.c.sequence, "number", is_unique=True)},
    metadata=checkpoints.c.metadata,
    default_sort=("sequence",),
)


def _of_model(model_id: str) -> Select[Any]:
    return (
        select(checkpoints, blobs.c.size_bytes, blobs.c.crc32c, blobs.c.etag)
        .join_from(checkpoints, blobs, checkpoints.c.blob_id == blobs.c.id)
        .where(checkpoints.c.model_id == model_id)
    )


def _fetch(context: Context, model_id: str, checkpoint_id: str) -> Row[Any]:
    fetch(context, models, model_id, "model")
    row = context.connection.execute(_of_model(model_id).where(checkpoints.c.id == checkpoint_id)).first()
    if row is None:
        raise NotFound(f"model {model_id} has no checkpoint {checkpoint_id}")
    return row


@handles(PrepareCheckpoint, role="editor", asks_store=True)
def prepare_checkpoint(context: Context, message: PrepareCheckpoint) -> PreparedUpload:
    model = fetch(context, models, message.model_id, "model")
    return prepare_object(context, model.id, size_bytes=message.size_bytes, crc32c=message.crc32c)


def _committed_before(context: Context, message: CommitCheckpoint, object_id: str) -> bool:
    """Whether an earlier call with the same id and bytes made the checkpoint.

    Raises:
        Conflict: The id belongs to another checkpoint.
    """
    statement = select(checkpoints.c.model_id, checkpoints.c.blob_id).where(checkpoints.c.id == message.checkpoint_id)
    row = context.connection.execute(statement).first()
    if row is None:
        return False
    if (row.model_id, row.blob_id) != (message.model_id, object_id):
        raise Conflict(f"the id {message.checkpoint_id} belongs to another checkpoint", ids=(message.checkpoint_id,))
    return True


def _arrivals(context: Context, message: CommitCheckpoint) -> Arrivals:
    object_id = check_key(context, message.key, message.model_id)
    if _committed_before(context, message, object_id):
        return Arrivals({})
    return arrived(context, (object_id, message.size_bytes, message.crc32c))


@handles(CommitCheckpoint, role="editor", writes=True, arrivals=_arrivals)
def commit_checkpoint(context: Context, message: CommitCheckpoint) -> CheckpointRecord:
    model = fetch(context, models, message.model_id, "model")
    object_id = check_key(context, message.key, model.id)
    if not _committed_before(context, message, object_id):
        StoredBlobs(context, [object_id]).require(object_id, message.size_bytes, message.crc32c)
        if message.epoch is not None:
            _remove(context, (checkpoints.c.model_id == model.id) & (checkpoints.c.epoch == message.epoch))
        _insert(context, message, object_id)
        if model.retention is not None:
            _remove_rows(context, _not_kept(context, model.id, Retention.model_validate(model.retention)))
    return _record(_fetch(context, model.id, message.checkpoint_id))


def _insert(context: Context, message: CommitCheckpoint, object_id: str) -> None:
    mine = checkpoints.c.model_id == message.model_id
    for name in ("is_best", "is_final"):
        if getattr(message, name):
            before = mine & checkpoints.c[name].is_(True)
            # Never None for a time that did not move: max(now, old + 1), as everywhere.
            moved = func.max(context.now_ms, checkpoints.c.updated_at + 1)
            context.connection.execute(update(checkpoints).where(before).values({name: False, "updated_at": moved}))
    add_blobs(context, new_blob(context, object_id, message.size_bytes, message.crc32c))
    last = context.connection.execute(select(func.max(checkpoints.c.sequence)).where(mine)).scalar()
    values = {
        "id": message.checkpoint_id,
        "model_id": message.model_id,
        "blob_id": object_id,
        "filename": message.filename,
        "epoch": message.epoch,
        "is_best": message.is_best,
        "is_final": message.is_final,
        "metrics": message.metrics,
        "metadata": message.metadata,
        "sequence": (last or 0) + 1,
    }
    add(context, checkpoints, values)


def _remove(context: Context, condition: Any) -> None:
    found = context.connection.execute(select(checkpoints.c.id, checkpoints.c.blob_id).where(condition)).all()
    _remove_rows(context, found)


def _remove_rows(context: Context, rows: Sequence[Any]) -> None:
    for start in range(0, len(rows), _MAX_IDS):
        ids = [row.id for row in rows[start : start + _MAX_IDS]]
        context.connection.execute(delete(checkpoints).where(checkpoints.c.id.in_(ids)))
    drop_references(context.connection, [row.blob_id for row in rows])


def _not_kept(context: Context, model_id: str, retention: Retention) -> list[Row[Any]]:
    """Return id and blob of the checkpoints of older epochs that a policy lets go, in order of commit."""
    if retention.keep_last is None and retention.keep_every is None:
        return []
    # What is decided by and no more: this runs with every commit, and a row may hold ten thousand metrics.
    columns = (getattr(checkpoints.c, name) for name in ("id", "blob_id", "epoch", "is_best", "is_final"))
    newest = select(*columns).where(checkpoints.c.model_id == model_id).order_by(checkpoints.c.sequence.desc())
    found = context.connection.execute(newest).all()
    kept = {row.id for row in found[:1]}  # the last one, whether it has an epoch or not
    of_epochs = [row for row in found if row.epoch is not None]
    if retention.keep_last is not None:
        kept.update(row.id for row in of_epochs[: retention.keep_last])
    if retention.keep_every is not None:
        kept.update(row.id for row in of_epochs if row.epoch % retention.keep_every == 0)
    gone = [row for row in of_epochs if row.id not in kept and not row.is_best and not row.is_final]
    return gone[::-1]


def _records(context: Context, model_id: str, rows: Sequence[Any]) -> tuple[CheckpointRecord, ...]:
    found: dict[str, CheckpointRecord] = {}
    for start in range(0, len(rows), _MAX_IDS):
        ids = [row.id for row in rows[start : start + _MAX_IDS]]
        chosen = context.connection.execute(_of_model(model_id).where(checkpoints.c.id.in_(ids)))
        found.update((row.id, _record(row)) for row in chosen)
    return tuple(found[row.id] for row in rows)


@handles(ListCheckpoints, role="viewer")
def list_checkpoints(context: Context, message: ListCheckpoints) -> Page[CheckpointRecord]:
    fetch(context, models, message.model_id, "model")
    return list_page(context.connection, _LISTING, _of_model(message.model_id), message, _record)


@handles(GetCheckpoint, role="viewer")
def get_checkpoint(context: Context, message: GetCheckpoint) -> CheckpointRecord:
    return _record(_fetch(context, message.model_id, message.checkpoint_id))


@handles(FindCheckpoint, role="viewer")
def find_checkpoint(context: Context, message: FindCheckpoint) -> CheckpointRecord:
    if (message.which is None) == (message.epoch is None):
        raise BadRequest("give either which (best, last, final) or an epoch")
    fetch(context, models, message.model_id, "model")
    statement = _of_model(message.model_id)
    match message.which:
        case "best":
            statement = statement.where(checkpoints.c.is_best.is_(True))
        case "final":
            statement = statement.where(checkpoints.c.is_final.is_(True))
        case None:
            statement = statement.where(checkpoints.c.epoch == message.epoch)
        case "last":
            pass
    row = context.connection.execute(statement.order_by(checkpoints.c.sequence.desc()).limit(1)).first()
    if row is None:
        asked = f"of epoch {message.epoch}" if message.which is None else f"that is its {message.which}"
        raise NotFound(f"model {message.model_id} has no checkpoint {asked}")
    return _record(row)


@handles(DeleteCheckpoint, role="editor", writes=True)
def delete_checkpoint(context: Context, message: DeleteCheckpoint) -> Empty:
    row = _fetch(context, message.model_id, message.checkpoint_id)
    _remove(context, checkpoints.c.id == row.id)
    return Empty()


@handles(PruneCheckpoints, role="editor", writes=True)
def prune_checkpoints(context: Context, message: PruneCheckpoints) -> PrunedCheckpoints:
    model = fetch(context, models, message.model_id, "model")
    if message.keep_last is not None or message.keep_every is not None:
        retention = Retention(keep_last=message.keep_last, keep_every=message.keep_every)
    elif model.retention is not None:
        retention = Retention.model_validate(model.retention)
    else:
        raise BadRequest("the model has no retention of its own; say what stays by keep_last or keep_every")
    gone = _not_kept(context, model.id, retention)
    entries = _records(context, model.id, gone)
    if not message.dry_run:
        _remove_rows(context, gone)
    return PrunedCheckpoints(entries=entries)


@handles(PrepareCheckpointDownload, role="viewer")
def prepare_checkpoint_download(context: Context, message: PrepareCheckpointDownload) -> PreparedCheckpointDownload:
    row = _fetch(context, message.model_id, message.checkpoint_id)
    context.end_reading()
    origin = context.minter.origin(row.blob_id, size_bytes=row.size_bytes, crc32c=row.crc32c, etag=row.etag)
    return PreparedCheckpointDownload(origin=origin)
