"""Models, and the verbs that move their checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from asyncsdk.domain.filters import Filter
from asyncsdk.domain.ids import make_id
from asyncsdk.engine import EventCallback, ProgressCallback, Source
from asyncsdk.entities.base import BoundRecord, entity_id, given, optional_id
from asyncsdk.entities.checkpoint_transfers import download_checkpoint, upload_checkpoint, verify_checkpoint
from asyncsdk.entities.checkpoints import AsyncCheckpoint, AsyncCheckpoints
from asyncsdk.entities.lookup import exactly_one, get_by_name, project_id_for_lookup
from asyncsdk.entities.pages import AsyncPages, listing
from asyncsdk.entities.session import Session
from asyncsdk.entities.verifying import ComparisonCallback, Verification
from asyncsdk.errors import Conflict, NotFound
from asyncsdk.protocol.checkpoints import WhichCheckpoint
from asyncsdk.protocol.models import CreateModel, DeleteModel, GetModel, ListModels, ModelRecord, UpdateModel
from asyncsdk.protocol.projects import ProjectRecord

__all__ = ["AsyncModel", "AsyncModels"]


class AsyncModel(BoundRecord, ModelRecord):
    """A model: its fields, and what can be done with it."""

    @property
    def checkpoints(self) -> AsyncCheckpoints:
        """The checkpoints of this model."""
        return AsyncCheckpoints(self._client, self.id)

    async def upload_checkpoint(
        self,
        source: Source,
        *,
        epoch: int | None = None,
        is_best: bool = False,
        is_final: bool = False,
        metrics: Mapping[str, float] | None = None,
        metadata: Mapping[str, Any] | None = None,
        resume: bool | str = True,
        on_progress: ProgressCallback | None = None,
        on_event: EventCallback | None = None,
    ) -> AsyncCheckpoint:
        """Upload weights and make them a checkpoint of this model.

        Streamed in bounded memory, large ones in several parts at once; the checksum of what was sent is compared with
        what the platform stored. Nothing is visible before all of it arrived. Durable when it returns.

        Args:
            source: A path, bytes, an open binary file or an asynchronous iterable of bytes.
            epoch: Epoch they were saved after, from 0. A checkpoint of the same epoch is replaced.
            is_best: Whether they are the best so far; no other checkpoint is best any more.
            is_final: Whether they are the result; no other checkpoint is final any more.
            metrics: Finite numbers by name.
            metadata: JSON object of your own.
            resume: Keep a journal below ``ASYNCSDK_HOME``: the same call after a kill sends the parts that are missing,
                and makes no second checkpoint when only the reply was lost. For a path; for other sources nothing is
                kept. False: keep none.
            on_progress: Told how far it is, at most every 0.1 s.
            on_event: Told everything that happens: retries, renewals... (see `Event`).

        Raises:
            SourceNotFound, SourceUnreadable, SourceChanged: The file is not there, is a folder, changed meanwhile.
            NotFound: The model is gone.
        """
        record = await upload_checkpoint(
            self._client,
            self.id,
            source,
            given(epoch=epoch, is_best=is_best, is_final=is_final, metrics=metrics, metadata=metadata),
            resume=resume,
            on_progress=on_progress,
            on_event=on_event,
        )
        return AsyncCheckpoint._bind(record, self._client)

    async def download_checkpoint(
        self,
        destination: str | PathLike[str],
        *,
        which: WhichCheckpoint | int = "best",
        resume: bool | str = True,
        on_progress: ProgressCallback | None = None,
        on_event: EventCallback | None = None,
    ) -> AsyncCheckpoint:
        """Download weights into a file, large ones in several ranges at once.

        The file appears under its name only when all bytes are there and their checksum is right. A file that stands
        there is replaced.

        Args:
            destination: The file; in a folder that exists, the file takes the name it was uploaded under.
            which: ``best``, ``last`` (committed last), ``final``, or the number of an epoch.
            resume: Keep a journal below ``ASYNCSDK_HOME``, and the half-received file, when it is stopped: the same
                call fetches the ranges that are missing. False: keep none, and nothing of a failed download.
            on_progress: Told how far it is, at most every 0.1 s.
            on_event: Told everything that happens: retries, renewals... (see `Event`).

        Returns:
            The checkpoint that was downloaded.

        Raises:
            NotFound: There is no such checkpoint.
            DestinationFull, DestinationUnwritable: It cannot be written there.
        """
        record = await self.checkpoints.get(which=which)
        await download_checkpoint(
            self._client, record, destination, resume=resume, on_progress=on_progress, on_event=on_event
        )
        return record

    async def verify_checkpoint(
        self,
        file: str | PathLike[str],
        *,
        which: WhichCheckpoint | int = "best",
        on_progress: ProgressCallback | None = None,
        on_comparison: ComparisonCallback | None = None,
    ) -> Verification:
        """Compare a file with a checkpoint by size and crc32c, without moving or changing anything.

        Args:
            file: The file; in a folder that exists, the one with the name the checkpoint was uploaded under.
            which: ``best``, ``last`` (committed last), ``final``, or the number of an epoch.
            on_progress: Told how far it is, at most every 0.1 s.
            on_comparison: Told what was found.

        Returns:
            One object: the same, or the difference; ``ok``, ``raise_for_differences()``.

        Raises:
            NotFound: There is no such checkpoint.
        """
        record = await self.checkpoints.get(which=which)
        return await verify_checkpoint(record, file, on_progress=on_progress, on_comparison=on_comparison)

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
        metadata: Mapping[str, Any] | None = None,
    ) -> AsyncModel:
        """Change the fields that are given and return the model as it is then.

        Raises:
            Conflict: The model changed since it was read; ``refresh()`` and try again.
        """
        changes = given(
            name=name, description=description, framework=framework, labels=labels, config=config, metadata=metadata
        )
        message = UpdateModel(model_id=self.id, if_updated_at=self.updated_at, **changes)
        return self._bind(await self._client.send(message), self._client)

    async def delete(self) -> None:
        """Delete the model with its checkpoints."""
        await self._client.send(DeleteModel(model_id=self.id))


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
        description: str = "",
        framework: str = "",
        labels: Mapping[str, int] | None = None,
        config: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
        exist_ok: bool = False,
    ) -> AsyncModel:
        """Create a model.

        Args:
            name: Need not be unique, 1 to 255 characters.
            project: The project or its id; None: the default project.
            description: Free text.
            framework: What the weights are made with; free text.
            labels: Class names and their numbers.
            config: Configuration it is made with.
            metadata: JSON object of your own.
            exist_ok: Return the model of that name in the project, unchanged, when there is one.

        Raises:
            Conflict: ``exist_ok``, and several models of the project have the name; ``ids`` says which.
        """
        message = CreateModel(
            name=name,
            model_id=make_id(),
            project_id=optional_id(project, "project"),
            description=description,
            framework=framework,
            labels=dict(labels or {}),
            config=dict(config or {}),
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
    ) -> AsyncPages[AsyncModel]:
        """List models, lazily, newest first unless sorted otherwise.

        Args:
            project: Only those of a project; None for all.
            filter: Which ones; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        message = ListModels(project_id=optional_id(project, "project"), filter=filter, sort=tuple(sort))
        return listing(self._session, message, self._bind, limit=limit)

    async def delete(self, model: ModelRecord | str) -> None:
        """Delete a model with its checkpoints."""
        await self._session.send(DeleteModel(model_id=entity_id(model, "model")))

    def from_json(self, data: Mapping[str, Any]) -> AsyncModel:
        """Return the model that ``to_json`` wrote, without a request."""
        return self._bind(ModelRecord.model_validate(data))
