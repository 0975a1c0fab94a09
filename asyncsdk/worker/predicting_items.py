"""The batch form of ``predict``: items of a dataset in, prediction rows of one of its tasks out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio

from asyncsdk.domain.predicting import PredictConfig
from asyncsdk.entities.datasets import AsyncDatasets
from asyncsdk.entities.items import AsyncItem
from asyncsdk.errors import BadRequest, InvalidImage, NotFound
from asyncsdk.protocol.model_work import DatasetPrediction, ItemProblem, PredictedItems
from asyncsdk.worker.pacing import in_turn
from asyncsdk.worker.predicting import LoadedModel
from asyncsdk.worker.runners import Work

__all__ = ["predict_items"]

_PROBLEMS_KEPT = 100
_BATCH = 32
"""Items looked at before their rows are handed on; as many images lie in the scratch folder at most."""


class _Tally:
    """What became of the items so far."""

    def __init__(self) -> None:
        self.items = self.rows = self.failed = 0
        self.problems: list[ItemProblem] = []

    def fail(self, path: str, code: str, message: str) -> None:
        self.failed += 1
        if len(self.problems) < _PROBLEMS_KEPT:
            self.problems.append(ItemProblem(path=path, code=code, message=message))


async def predict_items(
    work: Work, model: LoadedModel, wanted: DatasetPrediction, config: PredictConfig
) -> PredictedItems:
    """Predict items and store one row for each; an item that is no image is told, and stops nothing.

    Memory and disk: 32 items at a time, however many there are. Run again, it replaces its rows.

    Raises:
        NotFound: The dataset or the task is gone.
        BadRequest: The task does not know the model's classes.
    """
    dataset = await AsyncDatasets(work.session).get(wanted.dataset_id)
    task = await dataset.prediction_tasks.get(name=wanted.task)
    unknown = sorted(set(model.facts.names.values()) - set(task.categories))
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise BadRequest(f"the task {task.name!r} has no category {', '.join(map(repr, unknown[:3]))}{more}")
    total = max(1, dataset.item_count)
    tally = _Tally()

    async def rows() -> AsyncIterator[dict[str, Any]]:
        batch: list[AsyncItem] = []
        async for item in dataset.items.list(filter=wanted.filter):
            batch.append(item)
            if len(batch) == _BATCH:
                for row in await _rows_of(work, model, batch, config, tally):
                    yield row
                batch = []
                await work.report(stage="predicting", progress=min(1.0, tally.items / total))
        for row in await _rows_of(work, model, batch, config, tally):
            yield row

    report = await dataset.upload_predictions(task, rows())
    for failure in report.failures:
        tally.fail("", getattr(failure.error, "code", "invalid_row"), str(failure.error))
    tally.failed += report.failed - len(report.failures)
    return PredictedItems(items=tally.items, rows=report.done, failed=tally.failed, problems=tuple(tally.problems))


async def _rows_of(
    work: Work, model: LoadedModel, items: list[AsyncItem], config: PredictConfig, tally: _Tally
) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}

    async def predict(item: AsyncItem) -> None:
        path = anyio.Path(work.folder / f"item-{item.id}")
        try:
            await item.download(path)
            result = await model.predict(work, work.folder / path.name, config, item.path)
            rows[item.id] = result.to_row(item.path)
        except (InvalidImage, NotFound) as error:  # no image, or deleted meanwhile
            tally.fail(item.path, error.code, str(error))
        finally:
            with anyio.CancelScope(shield=True):
                await path.unlink(missing_ok=True)

    await in_turn(items, predict, at_once=model.at_once)
    tally.items += len(items)
    return [rows[item.id] for item in items if item.id in rows]
