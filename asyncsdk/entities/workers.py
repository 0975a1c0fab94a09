"""Workers: the programs that do a platform's jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asyncsdk.domain.filters import Filter
from asyncsdk.domain.ids import make_id
from asyncsdk.entities.base import BoundRecord, entity_id
from asyncsdk.entities.pages import AsyncPages, listing
from asyncsdk.entities.session import Session
from asyncsdk.protocol.workers import CreateWorker, DeleteWorker, GetWorker, ListWorkers, WorkerRecord

__all__ = ["AsyncWorker", "AsyncWorkers"]


class AsyncWorker(BoundRecord, WorkerRecord):
    """A worker as the platform knows it."""

    async def refresh(self) -> AsyncWorker:
        """Return the worker as it is now."""
        return self._bind(await self._client.send(GetWorker(worker_id=self.id)), self._client)

    async def delete(self) -> None:
        """Forget the worker; jobs that it has are queued again at once."""
        await self._client.send(DeleteWorker(worker_id=self.id))


class AsyncWorkers:
    """The workers of a platform."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def _bind(self, record: WorkerRecord) -> AsyncWorker:
        return AsyncWorker._bind(record, self._session)

    async def create(
        self, name: str, *, labels: Sequence[str] = (), metadata: Mapping[str, Any] | None = None
    ) -> AsyncWorker:
        """Make a worker known; the program comes later, with ``asyncsdk worker --name``.

        When there is one of that name, that one is returned, unchanged.

        Args:
            name: Unique, 1 to 255 characters.
            labels: Words that jobs may ask for.
            metadata: JSON object of your own.
        """
        message = CreateWorker(name=name, worker_id=make_id(), labels=tuple(labels), metadata=dict(metadata or {}))
        return self._bind(await self._session.send(message))

    async def get(self, worker: WorkerRecord | str) -> AsyncWorker:
        """Return one worker by its id.

        Raises:
            NotFound: There is none.
        """
        return self._bind(await self._session.send(GetWorker(worker_id=entity_id(worker, "worker"))))

    def list(
        self, *, filter: Filter | None = None, sort: Sequence[str] = (), limit: int | None = None
    ) -> AsyncPages[AsyncWorker]:
        """List the workers, lazily, by name unless sorted otherwise.

        Args:
            filter: Which ones; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        return listing(self._session, ListWorkers(filter=filter, sort=tuple(sort)), self._bind, limit=limit)

    async def delete(self, worker: WorkerRecord | str) -> None:
        """Forget a worker; jobs that it has are queued again at once."""
        await self._session.send(DeleteWorker(worker_id=entity_id(worker, "worker")))
