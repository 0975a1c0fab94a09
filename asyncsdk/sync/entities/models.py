# Generated from asyncsdk/entities/models.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""Models: their fields, who trains them, and how they are found, changed and deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asyncsdk.domain.filters import Filter
from asyncsdk.entities.models import AsyncModel, AsyncModels
from asyncsdk.protocol.checkpoints import Retention
from asyncsdk.protocol.datasets import DatasetRecord
from asyncsdk.protocol.models import ModelRecord
from asyncsdk.protocol.projects import ProjectRecord
from asyncsdk.sync.bridge import run
from asyncsdk.sync.entities.agents import Agents
from asyncsdk.sync.entities.metrics import Metrics
from asyncsdk.sync.entities.model_checkpoints import ModelCheckpoints
from asyncsdk.sync.entities.model_work import ModelWork
from asyncsdk.sync.heartbeats import Heartbeat
from asyncsdk.sync.pages import Pages
from asyncsdk.sync.twins import BlockingRecord, BlockingTwin

__all__ = ["Model", "Models"]


class Model(ModelCheckpoints, ModelWork, BlockingRecord, ModelRecord):
    """A model: its fields, and what can be done with it."""

    @property
    def _twin(self) -> AsyncModel:
        return AsyncModel._bind(self, self._client)

    @property
    def metrics(self) -> Metrics:
        """The metrics of this model."""
        return Metrics._of(self._twin.metrics)

    @property
    def agents(self) -> Agents:
        """The programs that train this model."""
        return Agents._of(self._twin.agents)

    def heartbeat(self, *, interval: float = 300.0, on_sigterm: bool = True, name: str | None = None) -> Heartbeat:
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
        return Heartbeat._of(self._twin.heartbeat(interval=interval, on_sigterm=on_sigterm, name=name))

    def dataset_url(self) -> str:
        """Return a URL under which anybody can read the archive of the model's dataset for a while; as `weights_url`.

        Raises:
            NotFound: The model is linked to no dataset, or that has no archive.
        """
        return run(self._twin.dataset_url)

    def refresh(self) -> Model:
        """Return the model as it is now."""
        return Model._of(run(self._twin.refresh))

    def update(
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
    ) -> Model:
        """Change the fields that are given and return the model as it is then.

        A *retention* is applied by the next commit of a checkpoint, or by ``checkpoints.prune()``; ``Retention()``
        keeps them all again.

        Raises:
            Conflict: The model changed since it was read; ``refresh()`` and try again.
        """
        return Model._of(
            run(
                self._twin.update,
                name=name,
                description=description,
                framework=framework,
                labels=labels,
                config=config,
                retention=retention,
                dataset=dataset,
                metadata=metadata,
            )
        )

    def delete(self, *, hard: bool = True) -> None:
        """Delete the model with its checkpoints; with ``hard=False`` put it out of reach until `restore`."""
        run(self._twin.delete, hard=hard)

    def restore(self) -> Model:
        """Bring the model back after ``delete(hard=False)`` and return it.

        Raises:
            NotFound: It was deleted for good.
            Conflict: Its project is deleted; ``ids`` says which: restore that first.
        """
        return Model._of(run(self._twin.restore))


class Models(BlockingTwin[AsyncModels]):
    """The models of a platform. Their names may repeat."""

    def create(
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
    ) -> Model:
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
        return Model._of(
            run(
                self._twin.create,
                name,
                project=project,
                dataset=dataset,
                description=description,
                framework=framework,
                labels=labels,
                config=config,
                retention=retention,
                metadata=metadata,
                exist_ok=exist_ok,
            )
        )

    def get(
        self,
        model: ModelRecord | str | None = None,
        *,
        name: str | None = None,
        project: ProjectRecord | str | None = None,
    ) -> Model:
        """Return one model, by id, or by name within a project (None: the default project).

        Raises:
            NotFound: There is none.
            Conflict: Several have the name; ``ids`` says which.
        """
        return Model._of(run(self._twin.get, model, name=name, project=project))

    def exists(self, name: str, *, project: ProjectRecord | str | None = None) -> bool:
        """Whether a project (None: the default project) has a model of that name."""
        return run(self._twin.exists, name, project=project)

    def list(
        self,
        *,
        project: ProjectRecord | str | None = None,
        filter: Filter | None = None,
        sort: Sequence[str] = (),
        limit: int | None = None,
        deleted: bool = False,
    ) -> Pages[Model]:
        """List models, lazily, newest first unless sorted otherwise.

        Args:
            project: Only those of a project; None for all.
            filter: Which ones; None for all. ``status`` and ``dataset_id`` are fields, too.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
            deleted: List those that were deleted with ``hard=False`` instead.
        """
        return Pages(
            self._twin.list(project=project, filter=filter, sort=sort, limit=limit, deleted=deleted), Model._of
        )

    def delete(self, model: ModelRecord | str, *, hard: bool = True) -> None:
        """Delete a model with its checkpoints; with ``hard=False`` put it out of reach until `restore`."""
        run(self._twin.delete, model, hard=hard)

    def restore(self, model: ModelRecord | str) -> Model:
        """Bring a model back after ``delete(hard=False)``; as `Model.restore`."""
        return Model._of(run(self._twin.restore, model))

    def from_json(self, data: Mapping[str, Any]) -> Model:
        """Return the model that ``to_json`` wrote, without a request."""
        return Model._of(self._twin.from_json(data))
