"""Projects: what holds datasets and models."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from asyncsdk.domain.ids import Id
from asyncsdk.domain.images import MAX_IMAGE_BYTES
from asyncsdk.domain.paths import Name
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
    Record,
    Timestamp,
)
from asyncsdk.protocol.uploads import OriginField, PreparedUpload, UploadKey

__all__ = [
    "DEFAULT_PROJECT_NAME",
    "CommitProjectImage",
    "CreateProject",
    "DeleteProject",
    "GetProject",
    "ListProjects",
    "PrepareProjectImage",
    "PrepareProjectImageDownload",
    "PreparedProjectImageDownload",
    "ProjectRecord",
    "RestoreProject",
    "UpdateProject",
]

DEFAULT_PROJECT_NAME = "default"
"""Where datasets and models go when no project is given; made when first needed."""


class ProjectRecord(EntityRecord):
    """A project.

    Attributes:
        name: Unique on the platform.
        description: Free text.
        image_filename: Name of the file its image came from; None: it has no image.
        deleted_at: When it was deleted softly; None: it was not.
    """

    name: str
    description: str = ""
    image_filename: str | None = None
    deleted_at: Timestamp | None = None


class CreateProject(Message[ProjectRecord]):
    """Create a project.

    Repeating the call with the same ``project_id`` gives the same project. A taken name is a conflict, unless
    ``exist_ok``: then the project of that name is the answer, unchanged. A project that was deleted softly keeps its
    name: a conflict either way.
    """

    route: ClassVar = Post("/projects")
    repeatable_by: ClassVar = "project_id"
    name: Name
    project_id: Id | None = None
    description: str = ""
    metadata: Metadata = {}
    exist_ok: bool = False


class GetProject(Message[ProjectRecord]):
    """Return one project."""

    route: ClassVar = Get("/projects/{project_id}")
    project_id: Id


class ListProjects(ListMessage[ProjectRecord]):
    """List projects, by name unless sorted otherwise.

    With ``deleted`` only those that were deleted softly, else only the others.
    """

    route: ClassVar = Get("/projects")
    deleted: bool = False


class UpdateProject(Message[ProjectRecord]):
    """Change the fields that are given; refused when the project changed since ``if_updated_at``."""

    route: ClassVar = Patch("/projects/{project_id}")
    project_id: Id
    if_updated_at: Timestamp | None = None
    name: Name | None = None
    description: str | None = None
    metadata: Metadata | None = None


class DeleteProject(Message[Empty]):
    """Delete a project with its datasets and models; without ``hard``, put all of it out of reach until it is restored.

    ``hard`` takes one that was deleted softly, too. Deleting what is gone is an error.
    """

    route: ClassVar = Delete("/projects/{project_id}")
    project_id: Id
    hard: bool = True


class RestoreProject(Message[ProjectRecord]):
    """Bring back a project that was deleted softly, with the datasets and models that went with it.

    Those that were deleted before it stay deleted. A project that is not deleted is the answer, unchanged.
    """

    route: ClassVar = Post("/projects/{project_id}/restore")
    project_id: Id


ImageSize = Annotated[int, Field(ge=1, le=MAX_IMAGE_BYTES)]


class PrepareProjectImage(Message[PreparedUpload]):
    """Mint a target for the image of a project. Writes nothing; its verdict is always ``upload``."""

    route: ClassVar = Post("/projects/{project_id}/image/prepare")
    project_id: Id
    size_bytes: ImageSize
    crc32c: Crc32cHex | None = None


class CommitProjectImage(Message[ProjectRecord]):
    """Make sent bytes the image of a project, in place of the one before.

    Durable when it answers; idempotent by ``key``. A bad request when they are no PNG, JPEG, GIF, WebP or BMP image,
    told by their first bytes.
    """

    route: ClassVar = Post("/projects/{project_id}/image/commit")
    project_id: Id
    key: UploadKey
    size_bytes: ImageSize
    crc32c: Crc32cHex
    filename: Annotated[str, Field(min_length=1, max_length=255)]


class PreparedProjectImageDownload(Record):
    """Where the image can be read for a while, and the name it has."""

    origin: OriginField
    filename: str


class PrepareProjectImageDownload(Message[PreparedProjectImageDownload]):
    """Return where the image of a project can be read for a while."""

    route: ClassVar = Post("/projects/{project_id}/image/prepare-download")
    project_id: Id
