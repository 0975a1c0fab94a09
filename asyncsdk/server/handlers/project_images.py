"""Images of projects: prepare, commit, and where they can be read."""

from __future__ import annotations

from functools import partial

from sqlalchemy import select, update

from asyncsdk.domain.images import HEAD_BYTES, image_type
from asyncsdk.errors import BadRequest, NotFound
from asyncsdk.protocol.projects import (
    CommitProjectImage,
    PreparedProjectImageDownload,
    PrepareProjectImage,
    PrepareProjectImageDownload,
    ProjectRecord,
)
from asyncsdk.protocol.uploads import PreparedUpload
from asyncsdk.server.handlers.blobs import StoredBlobs, add_blobs, arrived, drop_references, new_blob
from asyncsdk.server.handlers.entities import fetch, to_record
from asyncsdk.server.handlers.keys import check_key, never_arrived
from asyncsdk.server.handlers.registry import Arrivals, Context, handles
from asyncsdk.server.handlers.uploads import prepare_object
from asyncsdk.server.schema import blobs, projects

__all__: list[str] = []

_record = partial(to_record, ProjectRecord)


@handles(PrepareProjectImage, role="editor", asks_store=True)
def prepare_image(context: Context, message: PrepareProjectImage) -> PreparedUpload:
    project = fetch(context, projects, message.project_id, "project")
    return prepare_object(context, project.id, size_bytes=message.size_bytes, crc32c=message.crc32c)


def _arrivals(context: Context, message: CommitProjectImage) -> Arrivals:
    object_id = check_key(context, message.key, message.project_id)
    found = arrived(context, (object_id, message.size_bytes, message.crc32c))
    if found.objects and image_type(context.objects.head(object_id, message.crc32c, HEAD_BYTES)) is None:
        raise BadRequest("these bytes are no PNG, JPEG, GIF, WebP or BMP image")
    return found


@handles(CommitProjectImage, role="editor", writes=True, arrivals=_arrivals)
def commit_image(context: Context, message: CommitProjectImage) -> ProjectRecord:
    project = fetch(context, projects, message.project_id, "project")
    object_id = check_key(context, message.key, project.id)
    if project.image_blob_id == object_id:  # an earlier call, whose reply was lost
        return _record(project)
    if (object_id, message.crc32c) not in context.published:  # nobody looked what it is
        raise never_arrived()
    StoredBlobs(context, [object_id]).require(object_id, message.size_bytes, message.crc32c)
    add_blobs(context, new_blob(context, object_id, message.size_bytes, message.crc32c))
    if project.image_blob_id is not None:
        drop_references(context.connection, [project.image_blob_id])
    changes = {
        "image_blob_id": object_id,
        "image_filename": message.filename,
        "updated_at": max(context.now_ms, project.updated_at + 1),
    }
    context.connection.execute(update(projects).where(projects.c.id == project.id).values(changes))
    return _record(fetch(context, projects, project.id, "project"))


@handles(PrepareProjectImageDownload, role="viewer")
def prepare_image_download(context: Context, message: PrepareProjectImageDownload) -> PreparedProjectImageDownload:
    project = fetch(context, projects, message.project_id, "project")
    if project.image_blob_id is None:
        raise NotFound(f"project {project.name!r} has no image; give it one with upload_image")
    blob = context.connection.execute(select(blobs).where(blobs.c.id == project.image_blob_id)).one()
    context.end_reading()
    origin = context.minter.origin(blob.id, size_bytes=blob.size_bytes, crc32c=blob.crc32c, etag=blob.etag)
    return PreparedProjectImageDownload(origin=origin, filename=project.image_filename)
