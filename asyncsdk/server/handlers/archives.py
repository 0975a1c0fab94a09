"""Archives of datasets: prepare, commit, and where they can be read."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, select, update

from asyncsdk.domain.archives import HEAD_BYTES, is_zip
from asyncsdk.errors import BadRequest, NotFound
from asyncsdk.protocol.archives import (
    ArchiveRecord,
    CommitArchive,
    PrepareArchive,
    PrepareArchiveDownload,
    PreparedArchiveDownload,
)
from asyncsdk.protocol.uploads import PreparedUpload
from asyncsdk.server.handlers.blobs import StoredBlobs, add_blobs, arrived, drop_references, new_blob
from asyncsdk.server.handlers.datasets import fetch_dataset, fetch_writable_dataset
from asyncsdk.server.handlers.keys import check_key, never_arrived
from asyncsdk.server.handlers.registry import Arrivals, Context, handles
from asyncsdk.server.handlers.uploads import prepare_object
from asyncsdk.server.schema import blobs, datasets

__all__: list[str] = []


@handles(PrepareArchive, role="editor", asks_store=True)
def prepare_archive(context: Context, message: PrepareArchive) -> PreparedUpload:
    dataset = fetch_writable_dataset(context, message.dataset_id)
    if dataset.archive_blob_id is not None:
        blob = _blob_of(context, dataset)
        # Another name for the same bytes is said by a commit alone: that there is nothing to send, it cannot know.
        if blob.size_bytes == message.size_bytes and message.filename in {None, dataset.archive_filename}:
            if message.crc32c is None:
                return PreparedUpload(verdict="compare")
            if message.crc32c == blob.crc32c:
                return PreparedUpload(verdict="skip")
    return prepare_object(context, dataset.id, size_bytes=message.size_bytes, crc32c=message.crc32c)


def _arrivals(context: Context, message: CommitArchive) -> Arrivals:
    object_id = check_key(context, message.key, message.dataset_id)
    found = arrived(context, (object_id, message.size_bytes, message.crc32c))
    if found.objects and not is_zip(context.objects.head(object_id, message.crc32c, HEAD_BYTES)):
        raise BadRequest("these bytes are no zip archive")
    return found


@handles(CommitArchive, role="editor", writes=True, arrivals=_arrivals)
def commit_archive(context: Context, message: CommitArchive) -> ArchiveRecord:
    dataset = fetch_writable_dataset(context, message.dataset_id)
    object_id = check_key(context, message.key, dataset.id)
    if dataset.archive_blob_id == object_id:  # an earlier call, whose reply was lost
        return _record(context, dataset)
    if (object_id, message.crc32c) not in context.published:  # nobody looked what it is
        raise never_arrived()
    StoredBlobs(context, [object_id]).require(object_id, message.size_bytes, message.crc32c)
    add_blobs(context, new_blob(context, object_id, message.size_bytes, message.crc32c))
    if dataset.archive_blob_id is not None:
        drop_references(context.connection, [dataset.archive_blob_id])
    changes = {
        "archive_blob_id": object_id,
        "archive_filename": message.filename,
        "updated_at": max(context.now_ms, dataset.updated_at + 1),
    }
    context.connection.execute(update(datasets).where(datasets.c.id == dataset.id).values(changes))
    return _record(context, fetch_dataset(context, dataset.id))


@handles(PrepareArchiveDownload, role="viewer")
def prepare_archive_download(context: Context, message: PrepareArchiveDownload) -> PreparedArchiveDownload:
    dataset = fetch_dataset(context, message.dataset_id)
    if dataset.archive_blob_id is None:
        raise NotFound(f"dataset {dataset.name!r} has no archive; give it one with upload_archive")
    blob = _blob_of(context, dataset)
    context.end_reading()
    origin = context.minter.origin(blob.id, size_bytes=blob.size_bytes, crc32c=blob.crc32c, etag=blob.etag)
    return PreparedArchiveDownload(origin=origin, filename=dataset.archive_filename or "")


def _blob_of(context: Context, dataset: Row[Any]) -> Row[Any]:
    return context.connection.execute(select(blobs).where(blobs.c.id == dataset.archive_blob_id)).one()


def _record(context: Context, dataset: Row[Any]) -> ArchiveRecord:
    blob = _blob_of(context, dataset)
    return ArchiveRecord(
        dataset_id=dataset.id,
        filename=dataset.archive_filename,
        size_bytes=blob.size_bytes,
        crc32c=blob.crc32c,
        etag=blob.etag,
    )
