# Generated from asyncsdk/entities/models.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""Models, and the verbs that move their checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

from asyncsdk.domain.filters import Filter
from asyncsdk.engine import EventCallback, ProgressCallback, Source
from asyncsdk.entities.models import AsyncModel, AsyncModels
from asyncsdk.entities.verifying import ComparisonCallback, Verification
from asyncsdk.protocol.checkpoints import WhichCheckpoint
from asyncsdk.protocol.models import ModelRecord
from asyncsdk.protocol.projects import ProjectRecord
from asyncsdk.sync.bridge import on_caller, run
from asyncsdk.sync.entities.checkpoints import Checkpoint, Checkpoints
from asyncsdk.sync.iterables import caller_stream
from asyncsdk.sync.pages import Pages
from asyncsdk.sync.twins import BlockingRecord, BlockingTwin

__all__ = ["Model", "Models"]


class Model(BlockingRecord, ModelRecord):
    """A model: its fields, and what can be done with it."""

    @property
    def _twin(self) -> AsyncModel:
        return AsyncModel._bind(self, self._client)

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of this model."""
        return Checkpoints._of(self._twin.checkpoints)

    def upload_checkpoint(
        self,
        source: Source | Iterable[bytes],
        *,
        epoch: int | None = None,
        is_best: bool = False,
        is_final: bool = False,
        metrics: Mapping[str, float] | None = None,
        metadata: Mapping[str, Any] | None = None,
        resume: bool | str = True,
        on_progress: ProgressCallback | None = None,
        on_event: EventCallback | None = None,
    ) -> Checkpoint:
        """Upload weights and make them a checkpoint of this model.

        Streamed in bounded memory, large ones in several parts at once; the checksum of what was sent is compared with
        what the platform stored. Nothing is visible before all of it arrived. Durable when it returns.

        Args:
            source: A path, bytes, an open binary file or an iterable of bytes.
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
        return Checkpoint._of(
            run(
                self._twin.upload_checkpoint,
                caller_stream(source),
                epoch=epoch,
                is_best=is_best,
                is_final=is_final,
                metrics=metrics,
                metadata=metadata,
                resume=resume,
                on_progress=on_caller(on_progress),
                on_event=on_caller(on_event),
            )
        )

    def download_checkpoint(
        self,
        destination: str | PathLike[str],
        *,
        which: WhichCheckpoint | int = "best",
        resume: bool | str = True,
        on_progress: ProgressCallback | None = None,
        on_event: EventCallback | None = None,
    ) -> Checkpoint:
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
        return Checkpoint._of(
            run(
                self._twin.download_checkpoint,
                destination,
                which=which,
                resume=resume,
                on_progress=on_caller(on_progress),
                on_event=on_caller(on_event),
            )
        )

    def verify_checkpoint(
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
        return run(
            self._twin.verify_checkpoint,
            file,
            which=which,
            on_progress=on_caller(on_progress),
            on_comparison=on_caller(on_comparison),
        )

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
        metadata: Mapping[str, Any] | None = None,
    ) -> Model:
        """Change the fields that are given and return the model as it is then.

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
                metadata=metadata,
            )
        )

    def delete(self) -> None:
        """Delete the model with its checkpoints."""
        run(self._twin.delete)


class Models(BlockingTwin[AsyncModels]):
    """The models of a platform. Their names may repeat."""

    def create(
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
    ) -> Model:
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
        return Model._of(
            run(
                self._twin.create,
                name,
                project=project,
                description=description,
                framework=framework,
                labels=labels,
                config=config,
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
    ) -> Pages[Model]:
        """List models, lazily, newest first unless sorted otherwise.

        Args:
            project: Only those of a project; None for all.
            filter: Which ones; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        return Pages(self._twin.list(project=project, filter=filter, sort=sort, limit=limit), Model._of)

    def delete(self, model: ModelRecord | str) -> None:
        """Delete a model with its checkpoints."""
        run(self._twin.delete, model)

    def from_json(self, data: Mapping[str, Any]) -> Model:
        """Return the model that ``to_json`` wrote, without a request."""
        return Model._of(self._twin.from_json(data))
