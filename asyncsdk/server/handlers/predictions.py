"""Prediction rows: list, store inline, prepare and commit parts."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from io import SEEK_END
from typing import Any, BinaryIO

from sqlalchemy import Row, insert, select

from asyncsdk.errors import NotFound
from asyncsdk.protocol.base import Page, Problem
from asyncsdk.protocol.predictions import (
    MAX_ROW_PROBLEMS,
    CommitPredictionParts,
    IngestedRows,
    ListPredictions,
    PredictionRow,
    PreparedRowParts,
    PrepareRowParts,
    SentRowPart,
    UploadPredictionRows,
)
from asyncsdk.server.handlers.blobs import condemn, new_blob
from asyncsdk.server.handlers.datasets import fetch_dataset, fetch_writable_dataset
from asyncsdk.server.handlers.keys import check_key, is_too_old, never_arrived
from asyncsdk.server.handlers.prediction_tasks import fetch_task_named
from asyncsdk.server.handlers.registry import Arrivals, Context, StagedObject, handles
from asyncsdk.server.handlers.rows import RowIngest, numbered_lines, numbered_values
from asyncsdk.server.handlers.uploads import prepare_object
from asyncsdk.server.listing import Field, Listing, list_page
from asyncsdk.server.schema import ingested_parts, items, predictions

__all__: list[str] = []

_LISTING = Listing(
    fields={
        "item_id": Field(predictions.c.item_id, is_unique=True),
        "position": Field(predictions.c.position, "number", is_unique=True),
        "path": Field(items.c.path, is_unique=True),
        "updated_at": Field(predictions.c.updated_at, "number"),
    },
    default_sort=("position",),
    tie=("position",),
)


def _record(row: Row[Any]) -> PredictionRow:
    return PredictionRow.model_validate(row._mapping)


@handles(ListPredictions, role="viewer")
def list_predictions(context: Context, message: ListPredictions) -> Page[PredictionRow]:
    dataset = fetch_dataset(context, message.dataset_id)
    task = fetch_task_named(context, dataset.id, message.task)
    statement = (
        select(predictions, items.c.path)
        .join_from(predictions, items, predictions.c.item_id == items.c.id)
        .where(predictions.c.task_id == task.id)
    )
    return list_page(context.connection, _LISTING, statement, message, _record)


@handles(UploadPredictionRows, role="editor", writes=True)
def upload_rows(context: Context, message: UploadPredictionRows) -> IngestedRows:
    dataset = fetch_writable_dataset(context, message.dataset_id)
    ingest = RowIngest(context, fetch_task_named(context, dataset.id, message.task))
    ingest.take(numbered_values(message.rows, message.first_line))
    return ingest.result()


@handles(PrepareRowParts, role="editor", asks_store=True)
def prepare_row_parts(context: Context, message: PrepareRowParts) -> PreparedRowParts:
    dataset = fetch_writable_dataset(context, message.dataset_id)
    entries = [
        prepare_object(context, dataset.id, size_bytes=part.size_bytes, crc32c=part.crc32c) for part in message.parts
    ]
    return PreparedRowParts.model_construct(entries=tuple(entries))


def _arrivals(context: Context, message: CommitPredictionParts) -> Arrivals:
    """Open the parts that are not stored yet: from a bucket they are fetched before the write lock is taken."""
    dataset = fetch_writable_dataset(context, message.dataset_id)
    task = fetch_task_named(context, dataset.id, message.task)
    object_ids = [check_key(context, part.key, dataset.id) for part in message.parts]
    before = _ingested_before(context, task, object_ids)
    context.end_reading()
    files: dict[StagedObject, BinaryIO] = {}
    with ExitStack() as opened:
        for object_id, part in zip(object_ids, message.parts, strict=True):
            staged = object_id, part.crc32c
            if object_id in before or staged in files or is_too_old(context, object_id):
                continue
            with suppress(NotFound):  # told by the handler, unless another call stored it meanwhile
                files[staged] = opened.enter_context(context.objects.open_staged(*staged))
        opened.pop_all()  # closed by whoever has the message handled
    sizes = {staged: file.seek(0, SEEK_END) for staged, file in files.items()}
    return Arrivals(sizes, files=files)


@handles(CommitPredictionParts, role="editor", writes=True, arrivals=_arrivals)
def commit_parts(context: Context, message: CommitPredictionParts) -> IngestedRows:
    dataset = fetch_writable_dataset(context, message.dataset_id)
    task = fetch_task_named(context, dataset.id, message.task)
    object_ids = [check_key(context, part.key, dataset.id) for part in message.parts]
    before = _ingested_before(context, task, object_ids)
    results = []
    for object_id, part in zip(object_ids, message.parts, strict=True):
        if object_id not in before:
            before[object_id] = _ingest(context, task, object_id, part)
            # The rows are stored: the part itself is to go. One that was stored before went: it gets no second row.
            condemn(context, new_blob(context, object_id, part.size_bytes, part.crc32c))
        results.append(before[object_id])
    problems = tuple(problem for result in results for problem in result.problems)
    return IngestedRows(
        accepted=sum(result.accepted for result in results),
        refused=sum(result.refused for result in results),
        problems=problems[:MAX_ROW_PROBLEMS],
    )


def _ingested_before(context: Context, task: Row[Any], object_ids: list[str]) -> dict[str, IngestedRows]:
    """Return what became of parts that a call whose reply was lost stored already."""
    statement = select(ingested_parts).where(
        ingested_parts.c.object_id.in_(object_ids), ingested_parts.c.task_id == task.id
    )
    return {
        row.object_id: IngestedRows(
            accepted=row.accepted,
            refused=row.refused,
            problems=tuple(Problem.model_validate(problem) for problem in row.problems),
        )
        for row in context.connection.execute(statement)
    }


def _ingest(context: Context, task: Row[Any], object_id: str, part: SentRowPart) -> IngestedRows:
    staged = object_id, part.crc32c
    if context.published.get(staged) != part.size_bytes:
        raise _part_gone()
    file = context.arrivals.files[staged]
    file.seek(0)
    ingest = RowIngest(context, task)
    ingest.take(numbered_lines(file, part.first_line))
    result = ingest.result()
    context.connection.execute(
        insert(ingested_parts).values(
            object_id=object_id,
            task_id=task.id,
            accepted=result.accepted,
            refused=result.refused,
            problems=[problem.model_dump() for problem in result.problems],
            created_at=context.now_ms,
        )
    )
    return result


def _part_gone() -> NotFound:
    error = never_arrived()
    return NotFound(f"a part of the rows is not there: {error.args[0]}")
