"""Artifacts: the files that go into a job and come out of it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from asyncsdk.domain.ids import Id
from asyncsdk.domain.paths import Name
from asyncsdk.protocol.base import Crc32cHex, EntityRecord, Get, ListMessage, Message, Metadata, Post, Record
from asyncsdk.protocol.uploads import OriginField, PreparedUpload, UploadKey

__all__ = [
    "ArtifactDirection",
    "ArtifactRecord",
    "Attempt",
    "CommitArtifact",
    "GetArtifact",
    "ListArtifacts",
    "PrepareArtifact",
    "PrepareArtifactDownload",
    "PreparedArtifactDownload",
]

ArtifactDirection = Literal["input", "output"]

Attempt = Annotated[int, Field(ge=1)]


class ArtifactRecord(EntityRecord):
    """A file that went into a job or came out of it.

    Attributes:
        job_id: The job.
        direction: ``input`` or ``output``.
        name: Unique among the files of its direction.
        size_bytes: Size of the object.
        crc32c: Checksum of the object, eight hexadecimal digits.
        etag: Validator of the object.
    """

    job_id: Id
    direction: ArtifactDirection
    name: str
    size_bytes: int
    crc32c: Crc32cHex
    etag: str


class PrepareArtifact(Message[PreparedUpload]):
    """Mint a target for an output of a running job. Writes nothing; its verdict is always ``upload``."""

    route: ClassVar = Post("/jobs/{job_id}/artifacts/prepare")
    job_id: Id
    worker_id: Id
    attempt: Attempt
    size_bytes: Annotated[int, Field(ge=0)] | None = None
    crc32c: Crc32cHex | None = None


class CommitArtifact(Message[ArtifactRecord]):
    """Make sent bytes an output of a running job. Durable when it answers; idempotent by ``artifact_id``.

    An output of the same name is replaced. Refused (``lease_lost``) when the attempt is over.
    """

    route: ClassVar = Post("/jobs/{job_id}/artifacts/commit")
    job_id: Id
    worker_id: Id
    attempt: Attempt
    artifact_id: Id
    name: Name
    key: UploadKey
    size_bytes: Annotated[int, Field(ge=0)]
    crc32c: Crc32cHex
    metadata: Metadata = {}


class ListArtifacts(ListMessage[ArtifactRecord]):
    """List the files of a job, inputs first, by name unless sorted otherwise."""

    route: ClassVar = Get("/jobs/{job_id}/artifacts")
    job_id: Id
    direction: ArtifactDirection | None = None


class GetArtifact(Message[ArtifactRecord]):
    """Return one file of a job."""

    route: ClassVar = Get("/jobs/{job_id}/artifacts/{artifact_id}")
    job_id: Id
    artifact_id: Id


class PreparedArtifactDownload(Record):
    """Where the file can be read for a while."""

    origin: OriginField


class PrepareArtifactDownload(Message[PreparedArtifactDownload]):
    """Return where a file of a job can be read for a while."""

    route: ClassVar = Post("/jobs/{job_id}/artifacts/{artifact_id}/prepare-download")
    job_id: Id
    artifact_id: Id
