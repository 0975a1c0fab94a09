"""Checkpoints: the saved weights of a model."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike

from asyncsdk.domain.filters import Filter
from asyncsdk.engine import EventCallback, ProgressCallback
from asyncsdk.entities.base import BoundRecord, entity_id
from asyncsdk.entities.checkpoint_transfers import download_checkpoint
from asyncsdk.entities.pages import AsyncPages, listing
from asyncsdk.entities.session import Session
from asyncsdk.errors import ConfigError, NotFound
from asyncsdk.protocol.checkpoints import (
    MAX_EPOCH,
    CheckpointRecord,
    DeleteCheckpoint,
    FindCheckpoint,
    GetCheckpoint,
    ListCheckpoints,
    PruneCheckpoints,
    WhichCheckpoint,
)

__all__ = ["AsyncCheckpoint", "AsyncCheckpoints"]


class AsyncCheckpoint(BoundRecord, CheckpointRecord):
    """Saved weights: their record, and what can be done with them."""

    async def download(
        self,
        destination: str | PathLike[str],
        *,
        resume: bool | str = True,
        on_progress: ProgressCallback | None = None,
        on_event: EventCallback | None = None,
    ) -> AsyncCheckpoint:
        """Download the weights into a file; as `AsyncModel.download_checkpoint`."""
        await download_checkpoint(
            self._client, self, destination, resume=resume, on_progress=on_progress, on_event=on_event
        )
        return self

    async def refresh(self) -> AsyncCheckpoint:
        """Return the checkpoint's record as it is now."""
        message = GetCheckpoint(model_id=self.model_id, checkpoint_id=self.id)
        return self._bind(await self._client.send(message), self._client)

    async def delete(self) -> None:
        """Delete the checkpoint."""
        await self._client.send(DeleteCheckpoint(model_id=self.model_id, checkpoint_id=self.id))


class AsyncCheckpoints:
    """The checkpoints of one model."""

    def __init__(self, session: Session, model_id: str) -> None:
        self._session = session
        self._model_id = model_id

    def _bind(self, record: CheckpointRecord) -> AsyncCheckpoint:
        return AsyncCheckpoint._bind(record, self._session)

    async def get(
        self, checkpoint: CheckpointRecord | str | None = None, *, which: WhichCheckpoint | int | None = None
    ) -> AsyncCheckpoint:
        """Return one checkpoint, by id or by what it is.

        Args:
            checkpoint: The checkpoint or its id.
            which: ``best``, ``last`` (committed last), ``final``, or the number of an epoch.

        Raises:
            NotFound: There is no such checkpoint.
        """
        if (checkpoint is None) == (which is None):
            raise ConfigError("give either the id of the checkpoint or which=...")
        if checkpoint is not None:
            checkpoint_id = entity_id(checkpoint, "checkpoint")
            return self._bind(
                await self._session.send(GetCheckpoint(model_id=self._model_id, checkpoint_id=checkpoint_id))
            )
        if isinstance(which, int) and not isinstance(which, bool):
            if not 0 <= which <= MAX_EPOCH:
                raise NotFound(f"there is no epoch {which}; epochs are numbered from 0 to {MAX_EPOCH}")
            message = FindCheckpoint(model_id=self._model_id, epoch=which)
        elif which in {"best", "last", "final"}:
            message = FindCheckpoint(model_id=self._model_id, which=which)
        else:
            raise ConfigError(f"which is 'best', 'last', 'final' or the number of an epoch, not {which!r}")
        return self._bind(await self._session.send(message))

    def list(
        self, *, filter: Filter | None = None, sort: Sequence[str] = (), limit: int | None = None
    ) -> AsyncPages[AsyncCheckpoint]:
        """List the checkpoints, lazily, in order of commit unless sorted otherwise.

        Args:
            filter: Which ones; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        message = ListCheckpoints(model_id=self._model_id, filter=filter, sort=tuple(sort))
        return listing(self._session, message, self._bind, limit=limit)

    async def delete(self, checkpoint: CheckpointRecord | str) -> None:
        """Delete a checkpoint."""
        checkpoint_id = entity_id(checkpoint, "checkpoint")
        await self._session.send(DeleteCheckpoint(model_id=self._model_id, checkpoint_id=checkpoint_id))

    async def prune(
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
        message = PruneCheckpoints(model_id=self._model_id, keep_last=keep_last, keep_every=keep_every, dry_run=dry_run)
        return (await self._session.send(message)).entries
