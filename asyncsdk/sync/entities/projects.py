# Generated from asyncsdk/entities/projects.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""Projects: what holds datasets and models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asyncsdk.domain.filters import Filter
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

    def delete(self) -> None:
        """Delete the project with its datasets and models."""
        run(self._twin.delete)


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
        self, *, filter: Filter | None = None, sort: Sequence[str] = (), limit: int | None = None
    ) -> Pages[Project]:
        """List projects, lazily, by name unless sorted otherwise.

        Args:
            filter: Which ones; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        return Pages(self._twin.list(filter=filter, sort=sort, limit=limit), Project._of)

    def delete(self, project: ProjectRecord | str) -> None:
        """Delete a project with its datasets and models."""
        run(self._twin.delete, project)

    def from_json(self, data: Mapping[str, Any]) -> Project:
        """Return the project that ``to_json`` wrote, without a request."""
        return Project._of(self._twin.from_json(data))
