# Generated from asyncsdk/entities/predictions.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""Prediction tasks of a dataset, and the predictions stored under them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asyncsdk.domain.filters import Filter
from asyncsdk.domain.predictions import PredictionKind
from asyncsdk.entities.predictions import AsyncPredictions, AsyncPredictionTask, AsyncPredictionTasks
from asyncsdk.protocol.predictions import PredictionRow, PredictionTaskRecord
from asyncsdk.sync.bridge import run
from asyncsdk.sync.pages import Pages
from asyncsdk.sync.twins import BlockingRecord, BlockingTwin, unchanged

__all__ = ["PredictionTask", "PredictionTasks", "Predictions"]


class PredictionTask(BlockingRecord, PredictionTaskRecord):
    """The schema of predictions: its fields, and what can be done with it."""

    @property
    def _twin(self) -> AsyncPredictionTask:
        return AsyncPredictionTask._bind(self, self._client)

    def refresh(self) -> PredictionTask:
        """Return the task as it is now."""
        return PredictionTask._of(run(self._twin.refresh))

    def update(
        self, *, categories: Sequence[str] | None = None, metadata: Mapping[str, Any] | None = None
    ) -> PredictionTask:
        """Change the fields that are given, count the version up, and return the task as it is then.

        Stored predictions stay as they are.

        Raises:
            Conflict: The task changed since it was read; ``refresh()`` and try again.
        """
        return PredictionTask._of(run(self._twin.update, categories=categories, metadata=metadata))

    def delete(self) -> None:
        """Delete the task with its predictions."""
        run(self._twin.delete)


class PredictionTasks(BlockingTwin[AsyncPredictionTasks]):
    """The prediction tasks of one dataset."""

    def create(
        self,
        name: str,
        *,
        kind: PredictionKind,
        categories: Sequence[str],
        metadata: Mapping[str, Any] | None = None,
        exist_ok: bool = False,
    ) -> PredictionTask:
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
        return PredictionTask._of(
            run(self._twin.create, name, kind=kind, categories=categories, metadata=metadata, exist_ok=exist_ok)
        )

    def get(self, task: PredictionTaskRecord | str | None = None, *, name: str | None = None) -> PredictionTask:
        """Return one prediction task, by id or by name.

        Raises:
            NotFound: There is none.
        """
        return PredictionTask._of(run(self._twin.get, task, name=name))

    def exists(self, name: str) -> bool:
        """Whether the dataset has a prediction task of that name."""
        return run(self._twin.exists, name)

    def list(
        self, *, filter: Filter | None = None, sort: Sequence[str] = (), limit: int | None = None
    ) -> Pages[PredictionTask]:
        """List the prediction tasks, lazily, by name unless sorted otherwise.

        Args:
            filter: Which ones; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        return Pages(self._twin.list(filter=filter, sort=sort, limit=limit), PredictionTask._of)

    def delete(self, task: PredictionTaskRecord | str) -> None:
        """Delete a prediction task with its predictions."""
        run(self._twin.delete, task)


class Predictions(BlockingTwin[AsyncPredictions]):
    """The predictions stored for the items of one dataset."""

    def list(
        self,
        task: PredictionTaskRecord | str,
        *,
        filter: Filter | None = None,
        sort: Sequence[str] = (),
        limit: int | None = None,
    ) -> Pages[PredictionRow]:
        """List the prediction rows of a task, lazily, by position of the item unless sorted otherwise.

        Args:
            task: The task or its name.
            filter: Which ones, by ``path``, ``item_id`` or ``updated_at``; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        return Pages(self._twin.list(task, filter=filter, sort=sort, limit=limit), unchanged)

    def get(self, task: PredictionTaskRecord | str, path: str) -> PredictionRow:
        """Return the prediction row of one item.

        Raises:
            NotFound: There is no such task, or no row for that path.
        """
        return run(self._twin.get, task, path)
