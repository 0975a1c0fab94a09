"""Weights, dataset archives and project images: forms streamed into the object store, then one record.

Refused before a byte is kept where that can be known: fields come before the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from asyncsdk.domain.ids import make_id
from asyncsdk.domain.images import MAX_IMAGE_BYTES
from asyncsdk.domain.paths import check_item_path, check_name
from asyncsdk.errors import NoWorker
from asyncsdk.protocol.archives import UNPACK_KIND, ArchiveRecord, CommitArchive, PrepareArchive, UnpackPayload
from asyncsdk.protocol.base import Message
from asyncsdk.protocol.checkpoints import CheckpointRecord, CommitCheckpoint, PrepareCheckpoint
from asyncsdk.protocol.jobs import CreateJob
from asyncsdk.protocol.projects import CommitProjectImage, PrepareProjectImage, ProjectRecord
from asyncsdk.protocol.uploads import PreparedUpload
from asyncsdk.server.doors.forms import FileHead, read_form
from asyncsdk.server.doors.host import Answer, Visit
from asyncsdk.server.doors.routes import Routes
from asyncsdk.server.doors.staging import StagedFile
from asyncsdk.server.doors.ultralytics.entities import known_id
from asyncsdk.server.http.front.objects import identity_headers
from asyncsdk.server.objects.signing import object_etag
from asyncsdk.wires.ultralytics import paths
from asyncsdk.wires.ultralytics.forms import WeightsForm

__all__ = ["Received", "add_routes", "receive_file"]


@dataclass(frozen=True, slots=True)
class Received:
    """A file that arrived with its form.

    Attributes:
        staged: Commits it.
        head: What the form said of the file.
        fields: The text fields.
        size_bytes: Bytes that came.
        crc32c: Their checksum, eight hexadecimal digits.
    """

    staged: StagedFile
    head: FileHead
    fields: Mapping[str, str]
    size_bytes: int
    crc32c: str

    @property
    def facts(self) -> dict[str, Any]:
        """What every commit is told of the bytes."""
        return {"key": self.staged.key, "size_bytes": self.size_bytes, "crc32c": self.crc32c}


def add_routes(routes: Routes) -> None:
    """Add what answers for files."""
    routes.add("POST", paths.upload_path("models", "{model_id}"), _upload_weights)
    routes.add("POST", paths.upload_path("datasets", "{dataset_id}"), _upload_archive)
    routes.add("POST", paths.upload_path("projects", "{project_id}"), _upload_image)


async def receive_file(
    visit: Visit,
    stack: AsyncExitStack,
    prepare: Callable[[FileHead, Mapping[str, str]], Message[PreparedUpload]],
    *,
    max_bytes: int | None = None,
) -> Received:
    """Read the form of a request, its file into the object store, in constant memory.

    Args:
        visit: The request.
        stack: At its end the file is removed unless it was committed.
        prepare: Called when the file begins, with the fields before it; returns the message that says where it goes.
        max_bytes: Bytes the file may have; None: any number.

    Raises:
        BadRequest: The form is broken.
        ResponseError: *prepare* or its message is refused; nothing is kept then.
    """
    taken: list[tuple[StagedFile, FileHead]] = []

    async def take(head: FileHead, fields: Mapping[str, str]) -> StagedFile:
        prepared = await visit.send(prepare(head, fields), to_files=True)
        staged = await stack.enter_async_context(StagedFile(visit.host, prepared, max_bytes=max_bytes))
        taken.append((staged, head))
        return staged

    fields = await read_form(visit.scope, visit.receive, take)
    ((staged, head),) = taken
    return Received(staged, head, fields, staged.size_bytes, await staged.finish())


async def _upload_weights(visit: Visit, model_id: str) -> Answer:
    model_id = known_id(model_id, "model")

    def prepare(head: FileHead, fields: Mapping[str, str]) -> PrepareCheckpoint:
        if "type" in fields:  # whoever sends the file first learns of wrong fields after it
            WeightsForm.from_fields(fields)
        return PrepareCheckpoint(model_id=model_id)

    async with AsyncExitStack() as stack:
        received = await receive_file(visit, stack, prepare)
        form = WeightsForm.from_fields(received.fields)
        message = CommitCheckpoint(
            model_id=model_id,
            checkpoint_id=make_id(),
            filename=form.file_name,
            epoch=form.epoch,
            is_best=form.is_best,
            is_final=form.is_final,
            metrics={"map": form.map} if form.is_final else {},
            **received.facts,
        )
        record: CheckpointRecord = await received.staged.commit(visit, message)
    data = {"id": record.id, "size": record.size_bytes, "crc32c": record.crc32c}
    return Answer(paths.answer(data, "weights are stored"), 200, _identity(received))


async def _upload_archive(visit: Visit, dataset_id: str) -> Answer:
    """Keep an archive and have it unpacked; where nobody does that it is kept all the same, and the answer says so."""
    dataset_id = known_id(dataset_id, "dataset")

    def prepare(head: FileHead, fields: Mapping[str, str]) -> PrepareArchive:
        return PrepareArchive(dataset_id=dataset_id, filename=_name_of(head))

    async with AsyncExitStack() as stack:
        received = await receive_file(visit, stack, prepare)
        message = CommitArchive(dataset_id=dataset_id, filename=_name_of(received.head), **received.facts)
        archive: ArchiveRecord = await received.staged.commit(visit, message)
    payload = UnpackPayload.of(archive).model_dump(mode="json")
    try:
        job = await visit.send(CreateJob(job_id=make_id(), kind=UNPACK_KIND, payload=payload, subject_id=dataset_id))
    except NoWorker as error:
        said, job_id = f"the archive is stored and not unpacked: {error.args[0]}", None
    else:
        said, job_id = "the archive is stored and is being unpacked", job.id
    data = {"id": dataset_id, "size": archive.size_bytes, "crc32c": archive.crc32c, "job": job_id}
    return Answer(paths.answer(data, said), 200, _identity(received))


async def _upload_image(visit: Visit, project_id: str) -> Answer:
    project_id = known_id(project_id, "project")

    def prepare(head: FileHead, fields: Mapping[str, str]) -> PrepareProjectImage:
        _name_of(head)
        # Its size is not known yet: prepared for the least there is, told when it is committed.
        return PrepareProjectImage(project_id=project_id, size_bytes=1)

    async with AsyncExitStack() as stack:
        received = await receive_file(visit, stack, prepare, max_bytes=MAX_IMAGE_BYTES)
        name = _name_of(received.head)
        message = CommitProjectImage(project_id=project_id, filename=name, **received.facts)
        record: ProjectRecord = await received.staged.commit(visit, message)
    return Answer(paths.answer({"id": record.id, "image": name}, "the image is stored"), 200, _identity(received))


def _name_of(head: FileHead) -> str:
    """Return the name of a file without the folders that it may be told with.

    Raises:
        InvalidName: No file can come back under that name.
    """
    return check_item_path(check_name(head.file_name.replace("\\", "/").rpartition("/")[2] or head.field))


def _identity(received: Received) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that tell which bytes arrived, so that a client can compare them with what it sent."""
    object_id = received.staged.key[:24]
    return tuple(identity_headers(object_etag(object_id, received.crc32c), received.crc32c))
