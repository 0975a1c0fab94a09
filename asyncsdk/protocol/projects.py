"""Projects: what holds datasets and models."""

from __future__ import annotations

from typing import ClassVar

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
    "DEFAULT_PROJECT_NAME",
    "CreateProject",
    "DeleteProject",
    "GetProject",
    "ListProjects",
    "ProjectRecord",
    "UpdateProject",
]

DEFAULT_PROJECT_NAME = "default"
"""Where datasets and models go when no project is given; made when first needed."""


class ProjectRecord(EntityRecord):
    """A project.

    Attributes:
        name: Unique on the platform.
        description: Free text.
    """

    name: str
    description: str = ""


class CreateProject(Message[ProjectRecord]):
    """Create a project.

    Repeating the call with the same ``project_id`` gives the same project. A taken name is a conflict, unless
    ``exist_ok``: then the project of that name is the answer, unchanged.
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
    """List projects, by name unless sorted otherwise."""

    route: ClassVar = Get("/projects")


class UpdateProject(Message[ProjectRecord]):
    """Change the fields that are given; refused when the project changed since ``if_updated_at``."""

    route: ClassVar = Patch("/projects/{project_id}")
    project_id: Id
    if_updated_at: Timestamp | None = None
    name: Name | None = None
    description: str | None = None
    metadata: Metadata | None = None


class DeleteProject(Message[Empty]):
    """Delete a project with its datasets and models. Deleting what is gone is an error."""

    route: ClassVar = Delete("/projects/{project_id}")
    project_id: Id
