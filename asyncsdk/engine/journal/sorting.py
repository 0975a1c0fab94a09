"""Taking up an earlier run: what was written page by page is put in order, once, so that it can be looked up.

Everything is dealt into heaps (`heaps`), each of which is small enough to be sorted in memory. SQLite's own sort would
put its files where its temporary files go, which in a container is often memory, or a small disk. It can be ended at
any moment: everything then stays as it was.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from asyncsdk.engine.journal.entries import is_final_page, key_of_digest, records_of_page, row_of_record, unpack_digests
from asyncsdk.engine.journal.heaps import Heaps

__all__ = ["TakingUp", "count_unsorted", "sort_pages"]

_PAGES_AT_ONCE = 16

_STEPS = 100_000
"""Of SQLite's machine between two looks whether to go on: some milliseconds."""

_DIGEST_BYTES = 8

_IS_SORTED = "SELECT EXISTS (SELECT 1 FROM entries)"


class TakingUp:
    """How whoever waits for a journal watches it being taken up, and ends that; safe to be used by two threads.

    Args:
        on_begin: Called in the journal's thread with the number of objects that are put in order.

    Attributes:
        is_cancelled: Whether to stop at the next look.
        connection: What is at work; None: nothing that could be interrupted.
    """

    def __init__(self, on_begin: Callable[[int], object] | None = None) -> None:
        self.on_begin = on_begin
        self.is_cancelled = False
        self.connection: sqlite3.Connection | None = None

    def cancel(self) -> None:
        """End it soon. To be called again until it has: what has not begun yet is not interrupted."""
        self.is_cancelled = True
        connection = self.connection
        if connection is not None:
            # A check of the whole file is one step of SQLite's machine: its progress handler is not asked meanwhile.
            with suppress(sqlite3.ProgrammingError):  # closed this moment
                connection.interrupt()

    def look(self) -> int:
        """Return what SQLite's progress handler has to: anything but 0 ends the statement."""
        return int(self.is_cancelled)

    def begin(self, count: int) -> None:
        """Tell how many objects are put in order."""
        if self.on_begin is not None:
            self.on_begin(count)


def count_unsorted(connection: sqlite3.Connection) -> int:
    """Return how many objects there are to be put in order: those that arrived since the run was taken up last."""
    return int(connection.execute("SELECT coalesce(sum(count), 0) FROM pages").fetchone()[0])


def sort_pages(connection: sqlite3.Connection, taking_up: TakingUp, folder: Path) -> None:
    """Turn pages into rows by key, the later one of a key counting. To be called within a transaction.

    Takes memory for some ten thousand objects, and room in *folder*.

    Raises:
        sqlite3.OperationalError: It was cancelled; the transaction has to be undone.
        OSError: There is no room.
    """
    connection.set_progress_handler(taking_up.look, _STEPS)
    try:
        with Heaps(folder, count_unsorted(connection)) as heaps:
            for page in _each(connection, "SELECT number, entries FROM pages", taking_up):
                heaps.add(records_of_page(page), is_marked=is_final_page(page))
            for keys in _each(connection, "SELECT number, keys FROM settled", taking_up):
                heaps.add(unpack_digests(keys), is_marked=True)
            was_sorted = bool(connection.execute(_IS_SORTED).fetchone()[0])
            for number in range(heaps.count):
                if taking_up.is_cancelled:
                    raise sqlite3.OperationalError("interrupted")
                _merge(connection, heaps.take(number), was_sorted)
        for statement in ("DELETE FROM pages", "DELETE FROM settled"):
            connection.execute(statement)
    finally:
        connection.set_progress_handler(None, 0)


def _merge(connection: sqlite3.Connection, heap: Iterator[tuple[bytes, bool]], was_sorted: bool) -> None:
    """Put one heap into the table: records that arrived, and digests alone of what became final later."""
    latest: dict[bytes, bytes] = {}
    final: set[bytes] = set()
    for record, is_final in heap:
        digest = record[:_DIGEST_BYTES]
        if is_final:
            final.add(digest)
        if len(record) > _DIGEST_BYTES:
            latest[digest] = record
    rows = sorted((key_of_digest(digest), row_of_record(record), digest in final) for digest, record in latest.items())
    connection.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", rows)
    if was_sorted:  # what an earlier session brought, and a later one made final
        keys = sorted((key_of_digest(digest),) for digest in final - latest.keys())
        connection.executemany("UPDATE entries SET is_settled = 1 WHERE key = ?", keys)


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
