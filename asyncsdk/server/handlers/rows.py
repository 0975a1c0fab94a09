"""Prediction rows on their way into the store: checked, matched with items, written in batches.

Memory is one batch of rows, however many there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, BinaryIO

import orjson
from sqlalchemy import Row, select
from sqlalchemy.dialects.sqlite import insert

from asyncsdk.domain.predictions import check_prediction_row
from asyncsdk.errors import InvalidRow
from asyncsdk.protocol.base import Problem
from asyncsdk.protocol.predictions import MAX_ROW_PROBLEMS, IngestedRows
from asyncsdk.server.handlers.registry import Context
from asyncsdk.server.schema import items, predictions

__all__ = ["RowIngest", "numbered_lines", "numbered_values"]

ROWS_PER_BATCH = 5_000

Numbered = tuple[int, Any]
"""A line and its row; an `InvalidRow` stands for one that could not be read."""


def numbered_lines(file: BinaryIO, first_line: int) -> Iterator[Numbered]:
    """Yield the rows of NDJSON; blank lines count and are passed over."""
    for line, text in enumerate(file, start=first_line):
        if not text.strip():
            continue
        try:
            row = orjson.loads(text)
            orjson.dumps(row)  # what is nested deeper than it can be written again must not fail when it is stored
        except orjson.JSONDecodeError as error:
            yield line, InvalidRow(f"is no JSON: {error.msg} at character {error.colno}", line=line)
        except TypeError as error:  # orjson's encoding error is one
            yield line, InvalidRow(f"cannot be stored: {error}", line=line)
        else:
            yield line, row


def numbered_values(rows: Iterable[Any], first_line: int) -> Iterator[Numbered]:
    """Yield rows that came inside a message, refusing what JSON has no form for; None stands for a blank line."""
    for line, row in enumerate(rows, start=first_line):
        if row is None:
            continue
        try:
            _check_finite(row)
            yield line, orjson.loads(orjson.dumps(row))
        except (ValueError, TypeError) as error:  # orjson's encoding error is a TypeError
            yield line, InvalidRow(f"is no JSON: {error}", line=line)


class RowIngest:
    """Stores the rows of one prediction task and counts what became of them.

    Args:
        context: Of the message.
        task: The task's row.
    """

    def __init__(self, context: Context, task: Row[Any]) -> None:
        self._context = context
        self._task = task
        self._categories = frozenset(task.categories)
        self._accepted = 0
        self._refused = 0
        self._problems: list[Problem] = []

    def take(self, rows: Iterable[Numbered]) -> None:
        """Store *rows*. A row for an item that has one replaces it; of two for one item the later stands."""
        rows = iter(rows)
        while batch := list(islice(rows, ROWS_PER_BATCH)):
            self._store(batch)

    def result(self) -> IngestedRows:
        """Return what became of the rows so far."""
        return IngestedRows(accepted=self._accepted, refused=self._refused, problems=tuple(self._problems))

    def _store(self, batch: list[Numbered]) -> None:
        good: list[tuple[int, str, Any]] = []
        bad: list[tuple[int, str]] = []
        for line, row in batch:
            reason = (
                row.reason
                if isinstance(row, InvalidRow)
                else check_prediction_row(row, kind=self._task.kind, categories=self._categories)
            )
            if reason is None:
                good.append((line, row["path"], row["predictions"]))
            else:
                bad.append((line, reason))
        found = self._find_items({path for _, path, _ in good})
        values = []
        for line, path, given in good:
            item = found.get(path)
            if item is None:
                bad.append((line, f"the dataset has no item {path!r:.300}"))
                continue
            item_id, position = item
            values.append(
                {
                    "task_id": self._task.id,
                    "position": position,
                    "item_id": item_id,
                    "predictions": given,
                    "updated_at": self._context.now_ms,
                    "created_by": self._context.principal.user_id,
                }
            )
        if values:
            statement = insert(predictions)
            changed = {name: statement.excluded[name] for name in ("predictions", "updated_at", "created_by")}
            self._context.connection.execute(
                statement.on_conflict_do_update(index_elements=["task_id", "position"], set_=changed), values
            )
        self._accepted += len(values)
        for line, reason in sorted(bad):
            self._refuse(line, reason)

    def _find_items(self, paths: set[str]) -> dict[str, tuple[str, int]]:
        if not paths:
            return {}
        statement = select(items.c.path, items.c.id, items.c.position).where(
            items.c.dataset_id == self._task.dataset_id, items.c.path.in_(paths)
        )
        return {path: (item_id, position) for path, item_id, position in self._context.connection.execute(statement)}

    def _refuse(self, line: int, reason: str) -> None:
        self._refused += 1
        if len(self._problems) < MAX_ROW_PROBLEMS:
            self._problems.append(Problem(code=InvalidRow.code, message=reason, line=line))


def _check_finite(value: Any) -> None:
    """Refuse NaN and infinity, which would be stored as null."""
    stack = [value]
    while stack:
        part = stack.pop()
        if isinstance(part, float) and not math.isfinite(part):
            raise ValueError("it has no number for NaN or infinity; use null or text")
        if isinstance(part, dict):
            stack.extend(part.values())
        elif isinstance(part, (list, tuple)):
            stack.extend(part)
