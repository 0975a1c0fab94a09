"""What is done with the file of one run's journal, by the one process that owns it. Everything here blocks."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson

from asyncsdk.engine.journal.entries import (
    Entry,
    Finished,
    key_of,
    pack_digests,
    pack_page,
    read_row,
)
from asyncsdk.engine.journal.owners import Owner, boot_number
from asyncsdk.engine.journal.records import RunRecord
from asyncsdk.engine.journal.schema import (
    SCHEMA_VERSION,
    checksum_of,
    connect,
    is_damage,
    read_facts,
    remove,
    set_aside,
)
from asyncsdk.engine.journal.sorting import TakingUp, count_unsorted, sort_pages

__all__ = ["InUse", "KnownPart", "Store", "owner_of"]

_OVER = "over"

_IS_ANYTHING_THERE = """
    SELECT EXISTS (SELECT 1 FROM pages) OR EXISTS (SELECT 1 FROM settled) OR EXISTS (SELECT 1 FROM entries)
        OR EXISTS (SELECT 1 FROM large)
"""
_FIND = "SELECT key, entry, is_settled FROM entries WHERE key IN (SELECT value FROM json_each(?))"


class KnownPart(NamedTuple):
    """A part or range of a large object that is there.

    Attributes:
        number: From 1.
        size_bytes: Its size.
        crc32c: Of its bytes.
        etag: Validator that the server gave for it.
        is_verified: Whether the server named its checksum.
    """

    number: int
    size_bytes: int
    crc32c: int
    etag: str = ""
    is_verified: bool = False


class InUse(Exception):
    """Another process, or another run of this one, keeps this journal; its text says who."""


class Store:
    """An open journal that this process owns.

    Attributes:
        has_entries: Whether anything is known from before.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._boot = boot_number()
        self._touched = time.monotonic()
        self.has_entries = False

    @classmethod
    def open(cls, path: Path, record: RunRecord, taking_up: TakingUp | None = None) -> Self:
        """Open or make the journal of *record* and take it over; one that is damaged is set aside first.

        Args:
            taking_up: Who watches that, and may end it: then an error of SQLite's is raised, and nothing was changed.

        Raises:
            InUse: Its owner works on it.
            ConfigError: It is of a later release.
            sqlite3.Error, OSError: It cannot be written.
        """
        watched = taking_up or TakingUp()
        for is_last in (False, True):
            try:
                store = cls._open_once(path, record, watched)
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                if is_last or watched.is_cancelled or not is_damage(error):
                    raise
                set_aside(path, str(error))
                continue
            if store is not None:
                return store
        raise InUse(f"{path} keeps disappearing")

    @classmethod
    def _open_once(cls, path: Path, record: RunRecord, taking_up: TakingUp) -> Self | None:
        connection = connect(path)
        try:
            store = cls(path, connection)
            store._claim(record)
            if not _is_named(path, connection):  # removed meanwhile by a run that ended
                connection.close()
                return None
            try:
                store._look_back(taking_up)
            except sqlite3.OperationalError:
                if taking_up.is_cancelled:
                    store.release("stopped")
                raise
        except BaseException:  # closed whatever ended it, then raised again
            connection.close()
            raise
        return store

    # --- whose it is -----------------------------------------------------------------------------------------

    def _claim(self, record: RunRecord) -> None:
        with self._transaction() as connection:
            row = connection.execute("SELECT state, owner, updated_at FROM run").fetchone()
            now = _now_ms()
            if row is not None:
                state, owner, updated_at = row
                if not isinstance(updated_at, int) or not isinstance(owner, str):
                    raise sqlite3.DatabaseError("the row of its run cannot be read")
                if state == _OVER:
                    raise sqlite3.DatabaseError("of a run that ended, it should be gone")
                holder = owner_of(owner)
                if holder is not None and not holder.is_gone(silent_seconds=(now - updated_at) / 1000):
                    raise InUse(f"process {holder.pid} on {holder.host} keeps it")
            text = json.dumps(
                {
                    "verb": record.verb,
                    "identity": dict(record.identity),
                    "arguments": dict(record.arguments),
                    "is_rebuildable": record.is_rebuildable,
                    "schema": SCHEMA_VERSION,
                }
            )
            me = json.dumps(asdict(Owner.me()))
            connection.execute(
                "INSERT INTO run VALUES (1, ?, ?, 'running', ?, ?, ?) ON CONFLICT (one) DO UPDATE SET record = "
                "excluded.record, checksum = excluded.checksum, state = 'running', owner = excluded.owner, "
                "updated_at = excluded.updated_at",
                (text, checksum_of(text), me, now, now),
            )

    def _look_back(self, taking_up: TakingUp) -> None:
        """Check what an earlier process left, and put it in order for look-ups.

        Raises:
            sqlite3.DatabaseError: It is damaged.
        """
        if not self._connection.execute(_IS_ANYTHING_THERE).fetchone()[0]:
            return
        found = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        count = count_unsorted(self._connection)
        if count:
            taking_up.begin(count)
        with self._transaction() as connection:
            sort_pages(connection, taking_up)
        # Else the log stays as long as it became.
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.has_entries = True

    def touch(self) -> None:
        """Say that this process still works."""
        with self._transaction() as connection:
            connection.execute("UPDATE run SET updated_at = ?", (_now_ms(),))

    def release(self, state: str) -> None:
        """Give the journal up and close it; *state* says why."""
        try:
            with self._transaction() as connection:
                connection.execute("UPDATE run SET state = ?, owner = '', updated_at = ?", (state, _now_ms()))
        finally:
            self._connection.close()

    def remove(self) -> None:
        """Forget the run: everything of it is final."""
        try:
            # Somebody who opens it this moment must not go on with it.
            self._connection.execute("UPDATE run SET state = ?", (_OVER,))
            remove(self._path)
        finally:
            self._connection.close()

    def close(self) -> None:
        """Close the file and leave it as it is."""
        self._connection.close()

    # --- small objects ---------------------------------------------------------------------------------------

    def add(self, finished: Sequence[Finished], *, settled: Sequence[bytes] = (), are_final: bool = False) -> None:
        """Keep that the bytes of *finished* arrived, and that the objects of the digests *settled* are final: these, or
        any that arrived before; of *finished*, all if they *are_final*."""
        with self._transaction() as connection:
            if finished:
                page = pack_page(finished, self._boot, is_final=are_final)
                connection.execute("INSERT INTO pages (count, entries) VALUES (?, ?)", (len(finished), page))
            if settled:
                connection.execute("INSERT INTO settled (keys) VALUES (?)", (pack_digests(settled),))
            self._say_something(connection)

    def find(self, names: Sequence[str]) -> dict[str, Entry]:
        """Return what is known of *names* from before."""
        keys = {key_of(name): name for name in names}
        rows = self._connection.execute(_FIND, (orjson.dumps(list(keys)).decode(),))
        found = {}
        for key, row, is_settled in rows:
            entry = read_row(key, row, is_settled=is_settled == 1)
            if entry is not None:
                found[keys[key]] = entry
        return found

    # --- large objects ---------------------------------------------------------------------------------------

    def large(self, name: str) -> tuple[dict[str, Any], list[KnownPart]] | None:
        """Return what is known of a large object that was begun, and its parts by number."""
        key = key_of(name)
        row = self._connection.execute("SELECT facts, checksum FROM large WHERE key = ?", (key,)).fetchone()
        facts = None if row is None else read_facts(*row)
        if facts is None:
            return None
        rows = self._connection.execute(
            "SELECT number, size_bytes, crc32c, etag, is_verified FROM parts WHERE key = ? ORDER BY number", (key,)
        )
        # What damage made of a number is left out; a wrong one does not fit what the server or the file says.
        whole = (row for row in rows if [type(value) for value in row] == [int, int, int, str, int])
        return facts, [KnownPart(number, size, crc, etag, bool(ok)) for number, size, crc, etag, ok in whole]

    def begun(self, names: Sequence[str]) -> list[str]:
        """Return those of *names* that are large objects begun before."""
        keys = {key for (key,) in self._connection.execute("SELECT key FROM large")}
        return [name for name in names if key_of(name) in keys] if keys else []

    def begin_large(self, name: str, facts: Mapping[str, Any]) -> None:
        """Keep that a large object was begun; what was known of it before is forgotten."""
        key, text = key_of(name), json.dumps(dict(facts))
        with self._transaction() as connection:
            connection.execute("DELETE FROM parts WHERE key = ?", (key,))
            connection.execute("INSERT OR REPLACE INTO large VALUES (?, ?, ?)", (key, text, checksum_of(text)))

    def add_parts(self, name: str, parts: Sequence[KnownPart]) -> None:
        """Keep that *parts* of a large object are there."""
        key = key_of(name)
        with self._transaction() as connection:
            rows = [(key, *part) for part in parts]
            connection.executemany("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?)", rows)
            self._say_something(connection)

    def end_large(self, name: str) -> None:
        """Forget the parts of a large object: it is whole, or given up."""
        key = key_of(name)
        with self._transaction() as connection:
            connection.execute("DELETE FROM large WHERE key = ?", (key,))
            connection.execute("DELETE FROM parts WHERE key = ?", (key,))

    # --- transactions ----------------------------------------------------------------------------------------

    def _say_something(self, connection: sqlite3.Connection) -> None:
        now = time.monotonic()
        if now - self._touched > 30.0:
            self._touched = now
            connection.execute("UPDATE run SET updated_at = ?", (_now_ms(),))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:  # undone whatever ended it, then raised again
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def owner_of(text: str) -> Owner | None:
    """Return the owner that a journal names; None for nobody, or when it cannot be read."""
    if not text:
        return None
    try:
        values = json.loads(text)
        return Owner(str(values["host"]), int(values["pid"]), int(values["started"]), str(values["boot"]))
    except (ValueError, TypeError, KeyError):  # damaged: whoever it was, nobody can ask for it
        return None


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _is_named(path: Path, connection: sqlite3.Connection) -> bool:
    """Whether the open journal is still the file of that name: asked of it by its own number of the run."""
    try:
        other = connect(path, read_only=True)
    except sqlite3.Error:  # it is gone, or being made anew
        return False
    try:
        mine = connection.execute("SELECT owner, started_at, updated_at FROM run").fetchone()
        return bool(other.execute("SELECT owner, started_at, updated_at FROM run").fetchone() == mine)
    except sqlite3.Error:  # another one, without a run as yet
        return False
    finally:
        other.close()
