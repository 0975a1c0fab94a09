# Generated from asyncsdk/entities/projects.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""Projects: what holds datasets and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from asyncsdk.domain.filters import Filter
from asyncsdk.entities.project_images import ImageSource
from asyncsdk.entities.projects import AsyncProject, AsyncProjects
from asyncsdk.protocol.projects import ProjectRecord
from asyncsdk.sync.bridge import run
from asyncsdk.sync.pages import Pages
from asyncsdk.sync.twins import BlockingRecord, BlockingTwin

__all__ = ["Project", "Projects"]


class Project(BlockingRecord, ProjectRecord):
    """A project: its fields, and what can be done with it."""

    @property
    def _twin(self) -> AsyncProject:
        return AsyncProject._bind(self, self._client)

    def upload_image(self, source: ImageSource) -> Project:
        """Upload the picture that stands for this project, in place of the one before, and return the project.

        It shows only when all of it arrived; durable when this returns.

        Args:
            source: A file, or its bytes: PNG, JPEG, GIF, WebP or BMP, told by the first bytes; at most 32 MiB.

        Raises:
            ConfigError: It is no such picture, or too large.
            SourceNotFound, SourceUnreadable: The file is not there or cannot be read.
        """
        return Project._of(run(self._twin.upload_image, source))

    def download_image(self, destination: str | PathLike[str]) -> Path:
        """Download the picture of this project, verified; returns the file.

        Args:
            destination: The file; in a folder that exists, it takes the name it was uploaded under.

        Raises:
            NotFound: The project has no picture.
            DestinationFull, DestinationUnwritable: It cannot be written there.
        """
        return run(self._twin.download_image, destination)

    def refresh(self) -> Project:
        """Return the project as it is now."""
        return Project._of(run(self._twin.refresh))

    def update(
        self, *, name: str | None = None, description: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> Project:
        """Change the fields that are given and return the project as it is then.

        Raises:
            Conflict: The name is taken, or the project changed since it was read; ``refresh()`` and try again.
        """
        return Project._of(run(self._twin.update, name=name, description=description, metadata=metadata))

    def delete(self, *, hard: bool = True) -> None:
        """Delete the project with its datasets and models; with ``hard=False`` put it out of reach until `restore`.

        Out of reach its name is still taken, and nothing in it can be read or changed.
        """
        run(self._twin.delete, hard=hard)

    def restore(self) -> Project:
        """Bring the project back after ``delete(hard=False)`` and return it.

        What was deleted with it comes back, too; what was deleted before it does not.

        Raises:
            NotFound: It was deleted for good.
        """
        return Project._of(run(self._twin.restore))


class Projects(BlockingTwin[AsyncProjects]):
    """The projects of a platform."""

    def create(
        self, name: str, *, description: str = "", metadata: Mapping[str, Any] | None = None, exist_ok: bool = False
    ) -> Project:
        """Create a project.

        Args:
            name: Unique on the platform, 1 to 255 characters.
            description: Free text.
            metadata: JSON object of your own.
            exist_ok: Return the project of that name, unchanged, when there is one.

        Raises:
            Conflict: The name is taken.
        """
        return Project._of(run(self._twin.create, name, description=description, metadata=metadata, exist_ok=exist_ok))

    def get(self, project: ProjectRecord | str | None = None, *, name: str | None = None) -> Project:
        """Return one project, by id or by name.

        Raises:
            NotFound: There is none.
        """
        return Project._of(run(self._twin.get, project, name=name))

    def exists(self, name: str) -> bool:
        """Whether there is a project of that name."""
        return run(self._twin.exists, name)

    def list(
        self, *, filter: Filter | None = None, sort: Sequence[str] = (), limit: int | None = None, deleted: bool = False
    ) -> Pages[Project]:
        """List projects, lazily, by name unless sorted otherwise.

        Args:
            filter: Which ones; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
            deleted: List those that were deleted with ``hard=False`` instead.
        """
        return Pages(self._twin.list(filter=filter, sort=sort, limit=limit, deleted=deleted), Project._of)

    def delete(self, project: ProjectRecord | str, *, hard: bool = True) -> None:
        """Delete a project with its datasets and models; with ``hard=False`` put it out of reach until `restore`."""
        run(self._twin.delete, project, hard=hard)

    def restore(self, project: ProjectRecord | str) -> Project:
        """Bring a project back after ``delete(hard=False)``; as `Project.restore`."""
        return Project._of(run(self._twin.restore, project))

    def from_json(self, data: Mapping[str, Any]) -> Project:
        """Return the project that ``to_json`` wrote, without a request."""
        return Project._of(self._twin.from_json(data))
