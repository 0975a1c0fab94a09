"""Projects: what holds datasets and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from asyncsdk.domain.filters import Filter
from asyncsdk.domain.ids import make_id
from asyncsdk.entities.base import BoundRecord, entity_id, given
from asyncsdk.entities.lookup import exactly_one, find_by_name, get_by_name
from asyncsdk.entities.pages import AsyncPages, listing
from asyncsdk.entities.project_images import ImageSource, download_image, upload_image
from asyncsdk.entities.session import Session
from asyncsdk.protocol.projects import (
    CreateProject,
    DeleteProject,
    GetProject,
    ListProjects,
    ProjectRecord,
    RestoreProject,
    UpdateProject,
)

__all__ = ["AsyncProject", "AsyncProjects"]


class AsyncProject(BoundRecord, ProjectRecord):
    """A project: its fields, and what can be done with it."""

    async def upload_image(self, source: ImageSource) -> AsyncProject:
        """Upload the picture that stands for this project, in place of the one before, and return the project.

        It shows only when all of it arrived; durable when this returns.

        Args:
            source: A file, or its bytes: PNG, JPEG, GIF, WebP or BMP, told by the first bytes; at most 32 MiB.

        Raises:
            ConfigError: It is no such picture, or too large.
            SourceNotFound, SourceUnreadable: The file is not there or cannot be read.
        """
        return self._bind(await upload_image(self._client, self.id, source), self._client)

    async def download_image(self, destination: str | PathLike[str]) -> Path:
        """Download the picture of this project, verified; returns the file.

        Args:
            destination: The file; in a folder that exists, it takes the name it was uploaded under.

        Raises:
            NotFound: The project has no picture.
            DestinationFull, DestinationUnwritable: It cannot be written there.
        """
        return await download_image(self._client, self.id, destination)

    async def refresh(self) -> AsyncProject:
        """Return the project as it is now."""
        return self._bind(await self._client.send(GetProject(project_id=self.id)), self._client)

    async def update(
        self, *, name: str | None = None, description: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> AsyncProject:
        """Change the fields that are given and return the project as it is then.

        Raises:
            Conflict: The name is taken, or the project changed since it was read; ``refresh()`` and try again.
        """
        changes = given(name=name, description=description, metadata=metadata)
        message = UpdateProject(project_id=self.id, if_updated_at=self.updated_at, **changes)
        return self._bind(await self._client.send(message), self._client)

    async def delete(self, *, hard: bool = True) -> None:
        """Delete the project with its datasets and models; with ``hard=False`` put it out of reach until `restore`.

        Out of reach its name is still taken, and nothing in it can be read or changed.
        """
        await self._client.send(DeleteProject(project_id=self.id, hard=hard))

    async def restore(self) -> AsyncProject:
        """Bring the project back after ``delete(hard=False)`` and return it.

        What was deleted with it comes back, too; what was deleted before it does not.

        Raises:
            NotFound: It was deleted for good.
        """
        return self._bind(await self._client.send(RestoreProject(project_id=self.id)), self._client)


class AsyncProjects:
    """The projects of a platform."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def _bind(self, record: ProjectRecord) -> AsyncProject:
        return AsyncProject._bind(record, self._session)

    async def create(
        self, name: str, *, description: str = "", metadata: Mapping[str, Any] | None = None, exist_ok: bool = False
    ) -> AsyncProject:
        """Create a project.

        Args:
            name: Unique on the platform, 1 to 255 characters.
            description: Free text.
            metadata: JSON object of your own.
            exist_ok: Return the project of that name, unchanged, when there is one.

        Raises:
            Conflict: The name is taken.
        """
        message = CreateProject(
            name=name,
            project_id=make_id(),
            description=description,
            metadata=dict(metadata or {}),
            exist_ok=exist_ok,
        )
        return self._bind(await self._session.send(message))

    async def get(self, project: ProjectRecord | str | None = None, *, name: str | None = None) -> AsyncProject:
        """Return one project, by id or by name.

        Raises:
            NotFound: There is none.
        """
        exactly_one("project", project, name)
        if name is not None:
            return self._bind(await get_by_name(self._session, "project", ListProjects(), name))
        assert project is not None
        return self._bind(await self._session.send(GetProject(project_id=entity_id(project, "project"))))

    async def exists(self, name: str) -> bool:
        """Whether there is a project of that name."""
        return await find_by_name(self._session, "project", ListProjects(), name) is not None

    def list(
        self,
        *,
        filter: Filter | None = None,
        sort: Sequence[str] = (),
        limit: int | None = None,
        deleted: bool = False,
    ) -> AsyncPages[AsyncProject]:
        """List projects, lazily, by name unless sorted otherwise.

        Args:
            filter: Which ones; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
            deleted: List those that were deleted with ``hard=False`` instead.
        """
        message = ListProjects(filter=filter, sort=tuple(sort), deleted=deleted)
        return listing(self._session, message, self._bind, limit=limit)

    async def delete(self, project: ProjectRecord | str, *, hard: bool = True) -> None:
        """Delete a project with its datasets and models; with ``hard=False`` put it out of reach until `restore`."""
        await self._session.send(DeleteProject(project_id=entity_id(project, "project"), hard=hard))

    async def restore(self, project: ProjectRecord | str) -> AsyncProject:
        """Bring a project back after ``delete(hard=False)``; as `AsyncProject.restore`."""
        return self._bind(await self._session.send(RestoreProject(project_id=entity_id(project, "project"))))

    def from_json(self, data: Mapping[str, Any]) -> AsyncProject:
        """Return the project that ``to_json`` wrote, without a request."""
        return self._bind(ProjectRecord.model_validate(data))
