"""Many rows into a table by few statements."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import Connection

__all__ = ["insert_rows"]

_ROWS_OF_STATEMENT = (100, 10, 1)
"""A statement for each row costs 7.5 us an entry in the two tables of a commit, one for a hundred 5.0, one for 250
as much (SQLite 3.40). A hundred rows stay far below the 32,766 parameters that SQLite takes."""


def insert_rows(connection: Connection, head: str, row: str, values: Sequence[Any], *, ending: str = "") -> None:
    """Insert rows; what one of them breaks takes back those of its statement, and the caller's transaction the others.

    Args:
        connection: In a transaction.
        head: The statement up to the first row: ``INSERT INTO things (id, kind) VALUES``.
        row: One row: ``(?, 'plain')``.
        values: For the parameters of all rows, one row after the other: a thousand tuples would be a thousand objects
            for the garbage collector to look at.
        ending: What follows the last row, as ``ON CONFLICT (id) DO NOTHING``.

    Raises:
        ValueError: The values make no whole rows.
    """
    width = row.count("?")
    if len(values) % width:
        raise ValueError(f"{len(values)} values make no whole rows of {width}")
    start = 0
    for rows in _ROWS_OF_STATEMENT:
        step = rows * width
        while len(values) - start >= step:
            connection.exec_driver_sql(_statement(head, row, ending, rows), tuple(values[start : start + step]))
            start += step


@cache
def _statement(head: str, row: str, ending: str, rows: int) -> str:
    """Return the text; always the same object, by which the driver finds what it prepared."""
    return f"{head} {', '.join([row] * rows)} {ending}"
