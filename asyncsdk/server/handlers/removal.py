"""Deleting what other things belong to, and giving back their objects.

Whatever the number of items, this is a fixed number of statements and no list in memory. A blob that nobody points to
any more stays as a row without references: the note that its file is to go, which `asyncsdk.server.sweep.reap` acts on
after the commit, and again later if this process dies before.
"""

from __future__ import annotations

from sqlalchemy import Column, ColumnElement, Table, delete, func, select, update

from asyncsdk.server.handlers.registry import Context
from asyncsdk.server.schema import (
    agents,
    blobs,
    checkpoints,
    datasets,
    ingested_parts,
    item_annotations,
    items,
    metrics,
    models,
    prediction_tasks,
    predictions,
    projects,
)

__all__ = ["delete_dataset", "delete_model", "delete_project", "delete_task", "release"]


def delete_dataset(context: Context, dataset_id: str) -> None:
    """Delete a dataset with all that is in it or said of it, its archive, and the links of models to it."""
    execute = context.connection.execute
    tasks = select(prediction_tasks.c.id).where(prediction_tasks.c.dataset_id == dataset_id)
    execute(delete(predictions).where(predictions.c.task_id.in_(tasks)))
    execute(delete(ingested_parts).where(ingested_parts.c.task_id.in_(tasks)))
    execute(delete(prediction_tasks).where(prediction_tasks.c.dataset_id == dataset_id))
    execute(delete(item_annotations).where(item_annotations.c.dataset_id == dataset_id))
    release(context, items, items.c.blob_id, items.c.dataset_id == dataset_id)
    execute(delete(items).where(items.c.dataset_id == dataset_id))
    release(context, datasets, datasets.c.archive_blob_id, datasets.c.id == dataset_id)
    moved = func.max(context.now_ms, models.c.updated_at + 1)
    execute(update(models).where(models.c.dataset_id == dataset_id).values(dataset_id=None, updated_at=moved))
    execute(delete(datasets).where(datasets.c.id == dataset_id))


def delete_model(context: Context, model_id: str) -> None:
    """Delete a model with its checkpoints, metrics and agents."""
    execute = context.connection.execute
    release(context, checkpoints, checkpoints.c.blob_id, checkpoints.c.model_id == model_id)
    execute(delete(checkpoints).where(checkpoints.c.model_id == model_id))
    execute(delete(metrics).where(metrics.c.model_id == model_id))
    execute(delete(agents).where(agents.c.model_id == model_id))
    execute(delete(models).where(models.c.id == model_id))


def delete_project(context: Context, project_id: str) -> None:
    """Delete a project with its image, its datasets and its models, those that were deleted softly too."""
    execute = context.connection.execute
    for (model_id,) in execute(select(models.c.id).where(models.c.project_id == project_id)).all():
        delete_model(context, model_id)
    for (dataset_id,) in execute(select(datasets.c.id).where(datasets.c.project_id == project_id)).all():
        delete_dataset(context, dataset_id)
    release(context, projects, projects.c.image_blob_id, projects.c.id == project_id)
    execute(delete(projects).where(projects.c.id == project_id))


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
