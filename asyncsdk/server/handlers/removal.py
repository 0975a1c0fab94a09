"""Deleting what other things belong to, and giving back their objects.

Whatever the number of items, this is a fixed number of statements and no list in memory. A blob that nobody points to
any more stays as a row without references: the note that its file is to go, which `asyncsdk.server.sweep.reap` acts on
after the commit, and again later if this process dies before.
"""

from __future__ import annotations

from sqlalchemy import Column, ColumnElement, Table, delete, func, select, update

from asyncsdk.server.handlers.registry import Context
from asyncsdk.server.schema import (
    blobs,
    checkpoints,
    datasets,
    ingested_parts,
    items,
    models,
    prediction_tasks,
    predictions,
)

__all__ = ["delete_dataset", "delete_model", "delete_task", "release"]


def delete_dataset(context: Context, dataset_id: str) -> None:
    """Delete a dataset with its items, prediction tasks and predictions."""
    execute = context.connection.execute
    tasks = select(prediction_tasks.c.id).where(prediction_tasks.c.dataset_id == dataset_id)
    execute(delete(predictions).where(predictions.c.task_id.in_(tasks)))
    execute(delete(ingested_parts).where(ingested_parts.c.task_id.in_(tasks)))
    execute(delete(prediction_tasks).where(prediction_tasks.c.dataset_id == dataset_id))
    release(context, items, items.c.blob_id, items.c.dataset_id == dataset_id)
    execute(delete(items).where(items.c.dataset_id == dataset_id))
    execute(delete(datasets).where(datasets.c.id == dataset_id))


def delete_model(context: Context, model_id: str) -> None:
    """Delete a model with its checkpoints."""
    execute = context.connection.execute
    release(context, checkpoints, checkpoints.c.blob_id, checkpoints.c.model_id == model_id)
    execute(delete(checkpoints).where(checkpoints.c.model_id == model_id))
    execute(delete(models).where(models.c.id == model_id))


def delete_task(context: Context, task_id: str) -> None:
    """Delete a prediction task with its predictions."""
    execute = context.connection.execute
    execute(delete(predictions).where(predictions.c.task_id == task_id))
    execute(delete(ingested_parts).where(ingested_parts.c.task_id == task_id))
    execute(delete(prediction_tasks).where(prediction_tasks.c.id == task_id))


def release(context: Context, table: Table, blob_id: Column[str], condition: ColumnElement[bool]) -> None:
    """Take back the references that rows of *table* under *condition* hold; the rows are deleted by the caller."""
    counted = (
        select(blob_id.label("blob_id"), func.count().label("count"))
        .select_from(table)
        .where(condition)
        .group_by(blob_id)
    ).subquery()
    context.connection.execute(
        update(blobs)
        .where(blobs.c.id == counted.c.blob_id)
        .values(references_count=blobs.c.references_count - counted.c.count)
    )
