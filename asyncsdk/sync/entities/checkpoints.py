# Generated from asyncsdk/entities/checkpoints.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""Checkpoints: the saved weights of a model."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

from asyncsdk.domain.filters import Filter
from asyncsdk.engine import EventCallback, ProgressCallback
from asyncsdk.entities.checkpoints import AsyncCheckpoint, AsyncCheckpoints
from asyncsdk.protocol.checkpoints import CheckpointRecord, WhichCheckpoint
from asyncsdk.sync.bridge import on_caller, run
from asyncsdk.sync.pages import Pages
from asyncsdk.sync.twins import BlockingRecord, BlockingTwin

__all__ = ["Checkpoint", "Checkpoints"]


class Checkpoint(BlockingRecord, CheckpointRecord):
    """Saved weights: their record, and what can be done with them."""

    @property
    def _twin(self) -> AsyncCheckpoint:
        return AsyncCheckpoint._bind(self, self._client)

    def download(
        self,
        destination: str | PathLike[str],
        *,
        resume: bool | str = True,
        on_progress: ProgressCallback | None = None,
        on_event: EventCallback | None = None,
    ) -> Checkpoint:
        """Download the weights into a file; as `Model.download_checkpoint`."""
        return Checkpoint._of(
            run(
                self._twin.download,
                destination,
                resume=resume,
                on_progress=on_caller(on_progress),
                on_event=on_caller(on_event),
            )
        )

    def refresh(self) -> Checkpoint:
        """Return the checkpoint's record as it is now."""
        return Checkpoint._of(run(self._twin.refresh))

    def delete(self) -> None:
        """Delete the checkpoint."""
        run(self._twin.delete)


class Checkpoints(BlockingTwin[AsyncCheckpoints]):
    """The checkpoints of one model."""

    def get(
        self, checkpoint: CheckpointRecord | str | None = None, *, which: WhichCheckpoint | int | None = None
    ) -> Checkpoint:
        """Return one checkpoint, by id or by what it is.

        Args:
            checkpoint: The checkpoint or its id.
            which: ``best``, ``last`` (committed last), ``final``, or the number of an epoch.

        Raises:
            NotFound: There is no such checkpoint.
        """
        return Checkpoint._of(run(self._twin.get, checkpoint, which=which))

    def list(
        self, *, filter: Filter | None = None, sort: Sequence[str] = (), limit: int | None = None
    ) -> Pages[Checkpoint]:
        """List the checkpoints, lazily, in order of commit unless sorted otherwise.

        Args:
            filter: Which ones; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        return Pages(self._twin.list(filter=filter, sort=sort, limit=limit), Checkpoint._of)

    def delete(self, checkpoint: CheckpointRecord | str) -> None:
        """Delete a checkpoint."""
        run(self._twin.delete, checkpoint)

    def prune(
        self, *, keep_last: int | None = None, keep_every: int | None = None, dry_run: bool = False
    ) -> tuple[CheckpointRecord, ...]:
        """Delete checkpoints of older epochs, in one transaction, and return those, in order of commit.

        The best, the last and the final one stay, and those that belong to no epoch. Of the others one stays when it is
        among the *keep_last* committed last, or *keep_every* divides its epoch. Without numbers the model's own
        ``retention`` decides.

        Args:
            keep_last: How many of the newest stay.
            keep_every: Epochs that this number divides stay.
            dry_run: Delete nothing, and return what would be deleted.

        Raises:
            BadRequest: No number is given, and the model has no retention; or a number is below 1.
        """
        return run(self._twin.prune, keep_last=keep_last, keep_every=keep_every, dry_run=dry_run)
