"""Prediction tasks of a dataset, and the predictions stored under them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asyncsdk.domain.filters import Condition, Filter
from asyncsdk.domain.ids import make_id
from asyncsdk.domain.predictions import PredictionKind
from asyncsdk.entities.base import BoundRecord, entity_id, given
from asyncsdk.entities.lookup import exactly_one, get_by_name
from asyncsdk.entities.pages import AsyncPages, listing
from asyncsdk.entities.session import Session
from asyncsdk.errors import ConfigError, NotFound
from asyncsdk.protocol.predictions import (
    CreatePredictionTask,
    DeletePredictionTask,
    GetPredictionTask,
    ListPredictions,
    ListPredictionTasks,
    PredictionRow,
    PredictionTaskRecord,
    UpdatePredictionTask,
)

__all__ = ["AsyncPredictionTask", "AsyncPredictionTasks", "AsyncPredictions", "task_name"]


class AsyncPredictionTask(BoundRecord, PredictionTaskRecord):
    """The schema of predictions: its fields, and what can be done with it."""

    async def refresh(self) -> AsyncPredictionTask:
        """Return the task as it is now."""
        message = GetPredictionTask(dataset_id=self.dataset_id, task_id=self.id)
        return self._bind(await self._client.send(message), self._client)

    async def update(
        self, *, categories: Sequence[str] | None = None, metadata: Mapping[str, Any] | None = None
    ) -> AsyncPredictionTask:
        """Change the fields that are given, count the version up, and return the task as it is then.

        Stored predictions stay as they are.

        Raises:
            Conflict: The task changed since it was read; ``refresh()`` and try again.
        """
        changes = given(categories=None if categories is None else _names(categories), metadata=metadata)
        message = UpdatePredictionTask(
            dataset_id=self.dataset_id, task_id=self.id, if_updated_at=self.updated_at, **changes
        )
        return self._bind(await self._client.send(message), self._client)

    async def delete(self) -> None:
        """Delete the task with its predictions."""
        await self._client.send(DeletePredictionTask(dataset_id=self.dataset_id, task_id=self.id))


class AsyncPredictionTasks:
    """The prediction tasks of one dataset."""

    def __init__(self, session: Session, dataset_id: str) -> None:
        self._session = session
        self._dataset_id = dataset_id

    def _bind(self, record: PredictionTaskRecord) -> AsyncPredictionTask:
        return AsyncPredictionTask._bind(record, self._session)

    async def create(
        self,
        name: str,
        *,
        kind: PredictionKind,
        categories: Sequence[str],
        metadata: Mapping[str, Any] | None = None,
        exist_ok: bool = False,
    ) -> AsyncPredictionTask:
        """Create a prediction task.

        Args:
            name: Unique within the dataset.
            kind: What a prediction is; ``object-detection`` requires a ``bbox`` in every one.
            categories: Names that predictions may use.
            metadata: JSON object of your own.
            exist_ok: Return the task of that name, unchanged, when there is one.

        Raises:
            Conflict: The name is taken.
        """
        message = CreatePredictionTask(
            dataset_id=self._dataset_id,
            name=name,
            kind=kind,
            categories=_names(categories),
            task_id=make_id(),
            metadata=dict(metadata or {}),
            exist_ok=exist_ok,
        )
        return self._bind(await self._session.send(message))

    async def get(
        self, task: PredictionTaskRecord | str | None = None, *, name: str | None = None
    ) -> AsyncPredictionTask:
        """Return one prediction task, by id or by name.

        Raises:
            NotFound: There is none.
        """
        exactly_one("prediction task", task, name)
        if name is not None:
            listed = ListPredictionTasks(dataset_id=self._dataset_id)
            return self._bind(await get_by_name(self._session, "prediction task", listed, name))
        assert task is not None
        message = GetPredictionTask(dataset_id=self._dataset_id, task_id=entity_id(task, "prediction task"))
        return self._bind(await self._session.send(message))

    async def exists(self, name: str) -> bool:
        """Whether the dataset has a prediction task of that name."""
        try:
            await self.get(name=name)
        except NotFound:
            return False
        return True

    def list(
        self, *, filter: Filter | None = None, sort: Sequence[str] = (), limit: int | None = None
    ) -> AsyncPages[AsyncPredictionTask]:
        """List the prediction tasks, lazily, by name unless sorted otherwise.

        Args:
            filter: Which ones; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        message = ListPredictionTasks(dataset_id=self._dataset_id, filter=filter, sort=tuple(sort))
        return listing(self._session, message, self._bind, limit=limit)

    async def delete(self, task: PredictionTaskRecord | str) -> None:
        """Delete a prediction task with its predictions."""
        task_id = entity_id(task, "prediction task")
        await self._session.send(DeletePredictionTask(dataset_id=self._dataset_id, task_id=task_id))


class AsyncPredictions:
    """The predictions stored for the items of one dataset."""

    def __init__(self, session: Session, dataset_id: str) -> None:
        self._session = session
        self._dataset_id = dataset_id

    def list(
        self,
        task: PredictionTaskRecord | str,
        *,
        filter: Filter | None = None,
        sort: Sequence[str] = (),
        limit: int | None = None,
    ) -> AsyncPages[PredictionRow]:
        """List the prediction rows of a task, lazily, by position of the item unless sorted otherwise.

        Args:
            task: The task or its name.
            filter: Which ones, by ``path``, ``item_id`` or ``updated_at``; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        message = ListPredictions(dataset_id=self._dataset_id, task=task_name(task), filter=filter, sort=tuple(sort))
        return listing(self._session, message, lambda row: row, limit=limit)

    async def get(self, task: PredictionTaskRecord | str, path: str) -> PredictionRow:
        """Return the prediction row of one item.

        Raises:
            NotFound: There is no such task, or no row for that path.
        """
        async for row in self.list(task, filter=Condition("path", "eq", path), limit=1):
            return row
        raise NotFound(f"the task {task_name(task)!r} has no predictions for {path!r}")


def _names(categories: Sequence[str]) -> tuple[str, ...]:
    if isinstance(categories, str):
        raise ConfigError(f"categories takes a list of names, not one text: [{categories!r}]")
    return tuple(categories)


def task_name(task: PredictionTaskRecord | str) -> str:
    """Return the name of a prediction task given as itself or by name."""
    return task.name if isinstance(task, PredictionTaskRecord) else task
