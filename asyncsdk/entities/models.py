"""Models: their fields, who trains them, and how they are found, changed and deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asyncsdk.domain.filters import Filter
from asyncsdk.domain.ids import make_id
from asyncsdk.entities.agents import AsyncAgents
from asyncsdk.entities.base import BoundRecord, entity_id, given, optional_id
from asyncsdk.entities.heartbeat import AsyncHeartbeat
from asyncsdk.entities.lookup import exactly_one, get_by_name, project_id_for_lookup
from asyncsdk.entities.metrics import AsyncMetrics
from asyncsdk.entities.model_checkpoints import AsyncModelCheckpoints
from asyncsdk.entities.model_work import AsyncModelWork
from asyncsdk.entities.pages import AsyncPages, listing
from asyncsdk.entities.read_urls import archive_url
from asyncsdk.entities.session import Session
from asyncsdk.errors import Conflict, NotFound
from asyncsdk.protocol.checkpoints import Retention
from asyncsdk.protocol.datasets import DatasetRecord
from asyncsdk.protocol.models import (
    CreateModel,
    DeleteModel,
    GetModel,
    ListModels,
    ModelRecord,
    RestoreModel,
    UpdateModel,
)
from asyncsdk.protocol.projects import ProjectRecord

__all__ = ["AsyncModel", "AsyncModels"]


class AsyncModel(AsyncModelCheckpoints, AsyncModelWork, BoundRecord, ModelRecord):
    """A model: its fields, and what can be done with it."""

    @property
    def metrics(self) -> AsyncMetrics:
        """The metrics of this model."""
        return AsyncMetrics(self._client, self.id)

    @property
    def agents(self) -> AsyncAgents:
        """The programs that train this model."""
        return AsyncAgents(self._client, self.id)

    def heartbeat(self, *, interval: float = 300.0, on_sigterm: bool = True, name: str | None = None) -> AsyncHeartbeat:
        """Say to the platform that this program is at work on the model, for as long as the block lasts.

        The platform gives the agent its id, and says in ``status`` when it was silent for too long. A lost beat is
        tried again and never ends anything; a last one is sent at the end of the block.

        Args:
            interval: Seconds between two beats. The agent is lost after three of them without one.
            on_sigterm: Send a last beat on SIGTERM, too, within 2 s; then the signal takes its course as if it had come
                then: the program's own handler runs, or the process ends by it. For a block that is entered on the main
                thread; elsewhere, and with False, no signal is touched.
            name: What the agent is called; None: ``python-3.11.7-colab``, ``...-jupyter`` or ``...-local``.

        Returns:
            The block, which can be entered again after its end; ``start()`` and ``stop()`` do the same.

        Raises:
            BadRequest: The interval is not more than 0, or over a week.
        """
        return AsyncHeartbeat(self._client, self.id, interval=interval, on_sigterm=on_sigterm, name=name)

    async def dataset_url(self) -> str:
        """Return a URL under which anybody can read the archive of the model's dataset for a while; as `weights_url`.

        Raises:
            NotFound: The model is linked to no dataset, or that has no archive.
        """
        return await archive_url(self._client, self.dataset_id)

    async def refresh(self) -> AsyncModel:
        """Return the model as it is now."""
        return self._bind(await self._client.send(GetModel(model_id=self.id)), self._client)

    async def update(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        framework: str | None = None,
        labels: Mapping[str, int] | None = None,
        config: Mapping[str, Any] | None = None,
        retention: Retention | None = None,
        dataset: DatasetRecord | str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> AsyncModel:
        """Change the fields that are given and return the model as it is then.

        A *retention* is applied by the next commit of a checkpoint, or by ``checkpoints.prune()``; ``Retention()``
        keeps them all again.

        Raises:
            Conflict: The model changed since it was read; ``refresh()`` and try again.
        """
        changes = given(
            name=name,
            description=description,
            framework=framework,
            labels=labels,
            config=config,
            retention=retention,
            dataset_id=optional_id(dataset, "dataset"),
            metadata=metadata,
        )
        message = UpdateModel(model_id=self.id, if_updated_at=self.updated_at, **changes)
        return self._bind(await self._client.send(message), self._client)

    async def delete(self, *, hard: bool = True) -> None:
        """Delete the model with its checkpoints; with ``hard=False`` put it out of reach until `restore`."""
        await self._client.send(DeleteModel(model_id=self.id, hard=hard))

    async def restore(self) -> AsyncModel:
        """Bring the model back after ``delete(hard=False)`` and return it.

        Raises:
            NotFound: It was deleted for good.
            Conflict: Its project is deleted; ``ids`` says which: restore that first.
        """
        return self._bind(await self._client.send(RestoreModel(model_id=self.id)), self._client)


class AsyncModels:
    """The models of a platform. Their names may repeat."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def _bind(self, record: ModelRecord) -> AsyncModel:
        return AsyncModel._bind(record, self._session)

    async def create(
        self,
        name: str,
        *,
        project: ProjectRecord | str | None = None,
        dataset: DatasetRecord | str | None = None,
        description: str = "",
        framework: str = "",
        labels: Mapping[str, int] | None = None,
        config: Mapping[str, Any] | None = None,
        retention: Retention | None = None,
        metadata: Mapping[str, Any] | None = None,
        exist_ok: bool = False,
    ) -> AsyncModel:
        """Create a model.

        Args:
            name: Need not be unique, 1 to 255 characters.
            project: The project or its id; None: the default project.
            dataset: The dataset it is to be trained on, or its id; of any project.
            description: Free text.
            framework: What the weights are made with; free text.
            labels: Class names and their numbers.
            config: Configuration it is made with; ``architecture`` of it is what `ModelRecord.architecture` tells.
            retention: Which checkpoints of older epochs stay when a new one is committed; None: all.
            metadata: JSON object of your own.
            exist_ok: Return the model of that name in the project, unchanged, when there is one.

        Raises:
            Conflict: ``exist_ok``, and several models of the project have the name; ``ids`` says which.
        """
        message = CreateModel(
            name=name,
            model_id=make_id(),
            project_id=optional_id(project, "project"),
            dataset_id=optional_id(dataset, "dataset"),
            description=description,
            framework=framework,
            labels=dict(labels or {}),
            config=dict(config or {}),
            retention=retention,
            metadata=dict(metadata or {}),
            exist_ok=exist_ok,
        )
        return self._bind(await self._session.send(message))

    async def get(
        self,
        model: ModelRecord | str | None = None,
        *,
        name: str | None = None,
        project: ProjectRecord | str | None = None,
    ) -> AsyncModel:
        """Return one model, by id, or by name within a project (None: the default project).

        Raises:
            NotFound: There is none.
            Conflict: Several have the name; ``ids`` says which.
        """
        exactly_one("model", model, name)
        if name is not None:
            listed = ListModels(project_id=await project_id_for_lookup(self._session, project, f"model named {name!r}"))
            return self._bind(await get_by_name(self._session, "model", listed, name))
        assert model is not None
        return self._bind(await self._session.send(GetModel(model_id=entity_id(model, "model"))))

    async def exists(self, name: str, *, project: ProjectRecord | str | None = None) -> bool:
        """Whether a project (None: the default project) has a model of that name."""
        try:
            await self.get(name=name, project=project)
        except NotFound:
            return False
        except Conflict:  # several of them
            return True
        return True

    def list(
        self,
        *,
        project: ProjectRecord | str | None = None,
        filter: Filter | None = None,
        sort: Sequence[str] = (),
        limit: int | None = None,
        deleted: bool = False,
    ) -> AsyncPages[AsyncModel]:
        """List models, lazily, newest first unless sorted otherwise.

        Args:
            project: Only those of a project; None for all.
            filter: Which ones; None for all. ``status`` and ``dataset_id`` are fields, too.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
            deleted: List those that were deleted with ``hard=False`` instead.
        """
        of_project = optional_id(project, "project")
        message = ListModels(project_id=of_project, filter=filter, sort=tuple(sort), deleted=deleted)
        return listing(self._session, message, self._bind, limit=limit)

    async def delete(self, model: ModelRecord | str, *, hard: bool = True) -> None:
        """Delete a model with its checkpoints; with ``hard=False`` put it out of reach until `restore`."""
        await self._session.send(DeleteModel(model_id=entity_id(model, "model"), hard=hard))

    async def restore(self, model: ModelRecord | str) -> AsyncModel:
        """Bring a model back after ``delete(hard=False)``; as `AsyncModel.restore`."""
        return self._bind(await self._session.send(RestoreModel(model_id=entity_id(model, "model"))))

    def from_json(self, data: Mapping[str, Any]) -> AsyncModel:
        """Return the model that ``to_json`` wrote, without a request."""
        return self._bind(ModelRecord.model_validate(data))
