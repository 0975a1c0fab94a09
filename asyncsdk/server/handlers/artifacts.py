"""Files of jobs: prepare, commit, get, list, and where they can be read; and what the queue does with them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, insert, select

from asyncsdk.domain.ids import make_id
from asyncsdk.errors import BadRequest, Conflict, NotFound
from asyncsdk.protocol.artifacts import (
    ArtifactRecord,
    CommitArtifact,
    GetArtifact,
    ListArtifacts,
    PrepareArtifact,
    PrepareArtifactDownload,
    PreparedArtifactDownload,
)
from asyncsdk.protocol.base import Page, Problem
from asyncsdk.protocol.jobs import (
    JobInput,
    PrepareJobInputs,
)
from asyncsdk.protocol.uploads import PreparedUpload, PreparedUploads
from asyncsdk.server.handlers.blobs import StoredBlobs, add_blobs, arrived, drop_references, new_blob
from asyncsdk.server.handlers.entities import add, history_fields, to_record
from asyncsdk.server.handlers.job_queue import fetch_held, fetch_row, require_offer
from asyncsdk.server.handlers.keys import check_key, new_key
from asyncsdk.server.handlers.making import to_upload
from asyncsdk.server.handlers.registry import Arrivals, Context, handles
from asyncsdk.server.handlers.uploads import prepare_object
from asyncsdk.server.listing import Field, Listing, list_page
from asyncsdk.server.objects.minting import Wanted
from asyncsdk.server.schema import artifacts, blobs

__all__ = ["add_inputs", "arrivals_of", "drop_outputs", "inputs_of", "remove_all"]

_record = partial(to_record, ArtifactRecord)

_LISTING = Listing(
    fields={
        "id": Field(artifacts.c.id, is_unique=True),
        "name": Field(artifacts.c.name),
        "direction": Field(artifacts.c.direction),
        "size_bytes": Field(blobs.c.size_bytes, "number"),
        "crc32c": Field(blobs.c.crc32c),
        "created_at": Field(artifacts.c.created_at, "number"),
        "updated_at": Field(artifacts.c.updated_at, "number"),
        "created_by": Field(artifacts.c.created_by, is_nullable=True),
    },
    metadata=artifacts.c.metadata,
    default_sort=("direction", "name"),
)


def _of_job(job_id: str) -> Select[Any]:
    return (
        select(artifacts, blobs.c.size_bytes, blobs.c.crc32c, blobs.c.etag)
        .join_from(artifacts, blobs, artifacts.c.blob_id == blobs.c.id)
        .where(artifacts.c.job_id == job_id)
    )


def _fetch(context: Context, job_id: str, artifact_id: str) -> Row[Any]:
    row = context.connection.execute(_of_job(job_id).where(artifacts.c.id == artifact_id)).first()
    if row is None:
        fetch_row(context, job_id)
        raise NotFound(f"job {job_id} has no file {artifact_id}")
    return row


# --- inputs --------------------------------------------------------------------------------------------------


@handles(PrepareJobInputs, role="editor", asks_store=True)
def prepare_job_inputs(context: Context, message: PrepareJobInputs) -> PreparedUploads:
    if message.kind is not None:
        require_offer(context, message.kind, {"format": message.format})
    context.end_reading()
    keys: list[str] = []
    wanted: list[Wanted] = []
    for entry in message.entries:
        object_id, key = new_key(context, message.job_id)
        keys.append(key)
        wanted.append((object_id, entry.size_bytes, entry.crc32c))
    replies = [
        PreparedUpload(verdict="refused", problem=Problem.of(target))
        if isinstance(target, BadRequest)  # a size that no target can take
        else to_upload(key, target)
        for key, target in zip(keys, context.minter.targets(wanted), strict=True)
    ]
    return PreparedUploads.model_construct(entries=tuple(replies))


def arrivals_of(context: Context, job_id: str, inputs: Sequence[JobInput]) -> Arrivals:
    """Return which inputs of a job that is to be created are there."""
    sent = [(check_key(context, entry.key, job_id), entry.size_bytes, entry.crc32c) for entry in inputs]
    return arrived(context, *sent)


def add_inputs(context: Context, job_id: str, inputs: Sequence[JobInput]) -> None:
    """Make sent bytes inputs of a job.

    Raises:
        BadRequest: Two inputs have one name.
        NotFound: One of them never arrived.
    """
    if not inputs:
        return
    if len({entry.name for entry in inputs}) < len(inputs):
        raise BadRequest("two inputs have the same name")
    object_ids = [check_key(context, entry.key, job_id) for entry in inputs]
    stored = StoredBlobs(context, object_ids)
    rows: list[str | int] = []
    for object_id, entry in zip(object_ids, inputs, strict=True):
        stored.require(object_id, entry.size_bytes, entry.crc32c)
        rows += new_blob(context, object_id, entry.size_bytes, entry.crc32c)
    add_blobs(context, rows)
    history = history_fields(context)
    made = [
        {"id": make_id(), "job_id": job_id, "direction": "input", "name": entry.name, "blob_id": object_id, **history}
        for object_id, entry in zip(object_ids, inputs, strict=True)
    ]
    context.connection.execute(insert(artifacts), made)


def inputs_of(context: Context, job_id: str) -> tuple[ArtifactRecord, ...]:
    """Return the inputs of a job, by name."""
    statement = _of_job(job_id).where(artifacts.c.direction == "input").order_by(artifacts.c.name)
    return tuple(_record(row) for row in context.connection.execute(statement))


# --- outputs -------------------------------------------------------------------------------------------------


@handles(PrepareArtifact, role="editor", asks_store=True)
def prepare_artifact(context: Context, message: PrepareArtifact) -> PreparedUpload:
    fetch_held(context, message.job_id, message.worker_id, message.attempt)
    return prepare_object(context, message.job_id, size_bytes=message.size_bytes, crc32c=message.crc32c)


def _committed_before(context: Context, message: CommitArtifact, object_id: str) -> bool:
    """Whether an earlier call with the same id and bytes made the output.

    Raises:
        Conflict: The id belongs to another file.
    """
    statement = select(artifacts.c.job_id, artifacts.c.blob_id).where(artifacts.c.id == message.artifact_id)
    row = context.connection.execute(statement).first()
    if row is None:
        return False
    if (row.job_id, row.blob_id) != (message.job_id, object_id):
        raise Conflict(f"the id {message.artifact_id} belongs to another file", ids=(message.artifact_id,))
    return True


def _arrivals(context: Context, message: CommitArtifact) -> Arrivals:
    object_id = check_key(context, message.key, message.job_id)
    if _committed_before(context, message, object_id):
        return Arrivals({})
    return arrived(context, (object_id, message.size_bytes, message.crc32c))


@handles(CommitArtifact, role="editor", writes=True, arrivals=_arrivals)
def commit_artifact(context: Context, message: CommitArtifact) -> ArtifactRecord:
    object_id = check_key(context, message.key, message.job_id)
    if not _committed_before(context, message, object_id):
        fetch_held(context, message.job_id, message.worker_id, message.attempt)
        StoredBlobs(context, [object_id]).require(object_id, message.size_bytes, message.crc32c)
        _drop(
            context.connection,
            (artifacts.c.job_id == message.job_id)
            & (artifacts.c.direction == "output")
            & (artifacts.c.name == message.name),
        )
        add_blobs(context, new_blob(context, object_id, message.size_bytes, message.crc32c))
        values = {
            "id": message.artifact_id,
            "job_id": message.job_id,
            "direction": "output",
            "name": message.name,
            "blob_id": object_id,
            "metadata": message.metadata,
        }
        add(context, artifacts, values)
    return _record(_fetch(context, message.job_id, message.artifact_id))


def _drop(connection: Connection, condition: Any) -> None:
    found = connection.execute(select(artifacts.c.id, artifacts.c.blob_id).where(condition)).all()
    if found:
        connection.execute(delete(artifacts).where(condition))
        drop_references(connection, [row.blob_id for row in found])


def drop_outputs(context: Context, job_id: str) -> None:
    """Remove the outputs of a job."""
    _drop(context.connection, (artifacts.c.job_id == job_id) & (artifacts.c.direction == "output"))


def remove_all(connection: Connection, job_ids: Sequence[str]) -> None:
    """Remove all files of jobs."""
    _drop(connection, artifacts.c.job_id.in_(job_ids))


# --- both ----------------------------------------------------------------------------------------------------


@handles(ListArtifacts, role="viewer")
def list_artifacts(context: Context, message: ListArtifacts) -> Page[ArtifactRecord]:
    fetch_row(context, message.job_id)
    statement = _of_job(message.job_id)
    if message.direction is not None:
        statement = statement.where(artifacts.c.direction == message.direction)
    return list_page(context.connection, _LISTING, statement, message, _record)


@handles(GetArtifact, role="viewer")
def get_artifact(context: Context, message: GetArtifact) -> ArtifactRecord:
    return _record(_fetch(context, message.job_id, message.artifact_id))


@handles(PrepareArtifactDownload, role="viewer")
def prepare_artifact_download(context: Context, message: PrepareArtifactDownload) -> PreparedArtifactDownload:
    row = _fetch(context, message.job_id, message.artifact_id)
    context.end_reading()
    origin = context.minter.origin(row.blob_id, size_bytes=row.size_bytes, crc32c=row.crc32c, etag=row.etag)
    return PreparedArtifactDownload(origin=origin)
