# Generated from asyncsdk/entities/workers.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""Workers: the programs that do a platform's jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asyncsdk.domain.filters import Filter
from asyncsdk.entities.workers import AsyncWorker, AsyncWorkers
from asyncsdk.protocol.workers import WorkerRecord
from asyncsdk.sync.bridge import run
from asyncsdk.sync.pages import Pages
from asyncsdk.sync.twins import BlockingRecord, BlockingTwin

__all__ = ["Worker", "Workers"]


class Worker(BlockingRecord, WorkerRecord):
    """A worker as the platform knows it."""

    @property
    def _twin(self) -> AsyncWorker:
        return AsyncWorker._bind(self, self._client)

    def refresh(self) -> Worker:
        """Return the worker as it is now."""
        return Worker._of(run(self._twin.refresh))

    def delete(self) -> None:
        """Forget the worker; jobs that it has are queued again at once."""
        run(self._twin.delete)


class Workers(BlockingTwin[AsyncWorkers]):
    """The workers of a platform."""

    def create(self, name: str, *, labels: Sequence[str] = (), metadata: Mapping[str, Any] | None = None) -> Worker:
        """Make a worker known; the program comes later, with ``asyncsdk worker --name``.

        When there is one of that name, that one is returned, unchanged.

        Args:
            name: Unique, 1 to 255 characters.
            labels: Words that jobs may ask for.
            metadata: JSON object of your own.
        """
        return Worker._of(run(self._twin.create, name, labels=labels, metadata=metadata))

    def get(self, worker: WorkerRecord | str) -> Worker:
        """Return one worker by its id.

        Raises:
            NotFound: There is none.
        """
        return Worker._of(run(self._twin.get, worker))

    def list(
        self, *, filter: Filter | None = None, sort: Sequence[str] = (), limit: int | None = None
    ) -> Pages[Worker]:
        """List the workers, lazily, by name unless sorted otherwise.

        Args:
            filter: Which ones; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        return Pages(self._twin.list(filter=filter, sort=sort, limit=limit), Worker._of)

    def delete(self, worker: WorkerRecord | str) -> None:
        """Forget a worker; jobs that it has are queued again at once."""
        run(self._twin.delete, worker)
