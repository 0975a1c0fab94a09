"""Taking up an earlier run: what was written page by page is put in order, once, so that it can be looked up.

It takes some seconds for a million objects, most of them SQLite's sort on the disk, and memory for a few pages only. It
can be ended at any moment: everything then stays as it was.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator

from asyncsdk.engine.journal.entries import is_final_page, rows_of_page, unpack_keys

__all__ = ["TakingUp", "count_unsorted", "sort_pages"]

_PAGES_AT_ONCE = 16

_STEPS = 100_000
"""Of SQLite's machine between two looks whether to go on: some milliseconds."""

_COLLECT = "CREATE TEMP TABLE unsorted (key INTEGER, entry BLOB, is_final INTEGER)"
"""Objects that arrived, and without an entry: objects that became final later."""

_IS_SORTED = "SELECT EXISTS (SELECT 1 FROM entries)"
_SETTLE = "UPDATE entries SET is_settled = 1 WHERE key IN (SELECT key FROM unsorted WHERE is_final)"
"""What an earlier session brought and a later one made final. As slow as the sort, so not done for nothing."""

_MERGE = """
    INSERT OR REPLACE INTO entries SELECT key, entry, is_settled FROM (
        SELECT key, entry, sum(is_final) > 0 AS is_settled, max(iif(entry IS NULL, 0, rowid)) AS latest
            FROM unsorted GROUP BY key
    ) WHERE latest > 0
"""
"""Of a key that arrived twice, the later one: its `entry` is that of the row where the maximum is found."""


class TakingUp:
    """How whoever waits for a journal watches it being taken up, and ends that; safe to be used by two threads.

    Args:
        on_begin: Called in the journal's thread with the number of objects that are put in order.

    Attributes:
        is_cancelled: Whether to stop at the next look.
    """

    def __init__(self, on_begin: Callable[[int], object] | None = None) -> None:
        self.on_begin = on_begin
        self.is_cancelled = False

    def look(self) -> int:
        """Return what SQLite's progress handler has to: anything but 0 ends the statement."""
        return int(self.is_cancelled)

    def begin(self, count: int) -> None:
        """Tell how many objects are put in order."""
        if self.on_begin is not None:
            self.on_begin(count)


def count_unsorted(connection: sqlite3.Connection) -> int:
    """Return how many objects were written since the journal was taken up last; twice, if they were moved twice."""
    found = connection.execute("SELECT sum(count) FROM pages").fetchone()[0]
    return found if isinstance(found, int) else 0


def sort_pages(connection: sqlite3.Connection, taking_up: TakingUp) -> None:
    """Turn pages into rows by key, the later one of a key counting. To be called within a transaction.

    Memory: a few pages and SQLite's own.

    Raises:
        sqlite3.OperationalError: It was cancelled; the transaction has to be undone.
    """
    connection.set_progress_handler(taking_up.look, _STEPS)
    try:
        connection.execute(_COLLECT)
        for page in _each(connection, "SELECT number, entries FROM pages", taking_up):
            is_final = 1 if is_final_page(page) else 0
            connection.executemany(f"INSERT INTO unsorted VALUES (?, ?, {is_final})", rows_of_page(page))  # noqa: S608
        for keys in _each(connection, "SELECT number, keys FROM settled", taking_up):
            connection.executemany("INSERT INTO unsorted VALUES (?, NULL, 1)", ((key,) for key in unpack_keys(keys)))
        if connection.execute(_IS_SORTED).fetchone()[0]:
            connection.execute(_SETTLE)
        for statement in (_MERGE, "DELETE FROM pages", "DELETE FROM settled", "DROP TABLE unsorted"):
            connection.execute(statement)
    finally:
        connection.set_progress_handler(None, 0)


def _each(connection: sqlite3.Connection, statement: str, taking_up: TakingUp) -> Iterator[bytes]:
    """Yield the second column of *statement* by its first, a number, some rows at a time."""
    last = 0
    while rows := connection.execute(
        f"{statement} WHERE number > ? ORDER BY number LIMIT ?", (last, _PAGES_AT_ONCE)
    ).fetchall():
        if taking_up.is_cancelled:
            raise sqlite3.OperationalError("interrupted")
        yield from (data for _, data in rows if isinstance(data, bytes))
        last = rows[-1][0]
