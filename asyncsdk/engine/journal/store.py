"""What is done with the file of one run's journal, by the one process that owns it. Everything here blocks."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson

from asyncsdk.engine.journal.claims import OVER, InUse, claim, forget_finished, named_owner, now_ms, transaction
from asyncsdk.engine.journal.entries import (
    Entry,
    Finished,
    key_of,
    pack_digests,
    pack_page,
    read_row,
)
from asyncsdk.engine.journal.locks import RunLock
from asyncsdk.engine.journal.owners import boot_number
from asyncsdk.engine.journal.records import RunRecord
from asyncsdk.engine.journal.schema import (
    checksum_of,
    connect,
    is_damage,
    read_facts,
    remove,
    set_aside,
)
from asyncsdk.engine.journal.sorting import TakingUp, count_unsorted, sort_pages

__all__ = ["KnownPart", "Store"]

_IS_ANYTHING_THERE = """
    SELECT EXISTS (SELECT 1 FROM pages) OR EXISTS (SELECT 1 FROM settled) OR EXISTS (SELECT 1 FROM entries)
        OR EXISTS (SELECT 1 FROM large)
"""
_ADD_PAGE = "INSERT INTO pages (count, entries) VALUES (?, ?)"
_FIND = "SELECT key, entry, is_settled FROM entries WHERE key IN (SELECT value FROM json_each(?))"


_SILENT_SECONDS = 30.0
"""After which a write says, too, that this process still works."""


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


class Store:
    """An open journal that this process owns.

    Attributes:
        has_entries: Whether anything is known from before.
        started_at: When an earlier process began the run, milliseconds since 1970 UTC; None: none did.
        earlier_marks: In the names of temporary files of processes that were killed while they worked on it.
        is_rest: Whether a retry is all that is left of the run, see `claims.Claimed`.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: RunLock) -> None:
        self._path = path
        self._connection = connection
        self._lock = lock
        self._boot = boot_number()
        self._touched = time.monotonic()
        self.has_entries = False
        self.started_at: int | None = None
        self.earlier_marks: tuple[str, ...] = ()
        self.is_rest = False
        self._met: set[int] = set()  # large objects that this process was asked for, and which are not over

    @classmethod
    def open(cls, path: Path, record: RunRecord, taking_up: TakingUp | None = None, *, is_again: bool = False) -> Self:
        """Open or make the journal of *record* and take it over; one that is damaged is set aside first.

        Args:
            taking_up: Who watches that, and may end it: then an error of SQLite's is raised, and nothing was changed.
            is_again: Whether it is opened in the middle of a run, to be written only: nothing is put in order.

        Raises:
            InUse: Its owner works on it.
            ConfigError: It is of a later release.
            sqlite3.Error, OSError: It cannot be written.
        """
        watched = taking_up or TakingUp()
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = RunLock.take(path)
        if lock is None:
            raise InUse(f"{named_owner(path)} keeps it")
        try:
            for is_last in (False, True):
                try:
                    store = cls._open_once(path, record, watched, lock, is_again)
                except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                    if is_last or watched.is_cancelled or not is_damage(error):
                        raise
                    set_aside(path, str(error))
                    continue
                if store is not None:
                    return store
            raise InUse(f"{path} keeps disappearing")
        except BaseException:  # given back whatever ended it, then raised again
            lock.release()
            raise

    @classmethod
    def _open_once(
        cls, path: Path, record: RunRecord, taking_up: TakingUp, lock: RunLock, is_again: bool
    ) -> Self | None:
        connection = connect(path)
        try:
            store = cls(path, connection, lock)
            store.started_at, store.earlier_marks, store.is_rest = claim(
                connection, record, is_locked=lock.is_of_system
            )
            if not _is_named(path, connection):  # removed meanwhile by a run that ended
                connection.close()
                return None
            if is_again:
                return store
            try:
                taking_up.connection = connection
                try:
                    store._look_back(taking_up)
                finally:
                    taking_up.connection = None
            except sqlite3.OperationalError:
                if taking_up.is_cancelled:
                    store.release("stopped")
                raise
        except BaseException:  # closed whatever ended it, then raised again
            connection.close()
            raise
        return store

    # --- whose it is -----------------------------------------------------------------------------------------

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
        with transaction(self._connection) as connection:
            sort_pages(connection, taking_up, self._path.parent)
        # Else the log stays as long as it became.
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self.has_entries = True

    def knows_nothing(self) -> bool:
        """Whether nobody would miss this journal: this process made it, and nothing is in it."""
        return self.started_at is None and not self._connection.execute(_IS_ANYTHING_THERE).fetchone()[0]

    def touch(self) -> None:
        """Say that this process still works."""
        with transaction(self._connection) as connection:
            connection.execute("UPDATE run SET updated_at = ?", (now_ms(),))

    def sync(self) -> None:
        """Return when a loss of power, too, loses nothing of what was kept before. Waits for the disk."""
        # Of commits only this one syncs the log, and with it all that is in it already.
        self._connection.execute("PRAGMA synchronous = FULL")
        try:
            self.touch()
        finally:
            self._connection.execute("PRAGMA synchronous = NORMAL")

    def release(self, state: str) -> None:
        """Give the journal up and close it; *state* says why."""
        try:
            with transaction(self._connection) as connection:
                connection.execute("UPDATE run SET state = ?, owner = '', updated_at = ?", (state, now_ms()))
        finally:
            self.close()

    def remove(self) -> None:
        """Forget the run: everything of it is final."""
        try:
            # Somebody who opens it this moment must not go on with it. On a full disk the lock alone has to say so.
            with suppress(sqlite3.Error):
                self._connection.execute("UPDATE run SET state = ?", (OVER,))
            remove(self._path)
        finally:
            self.close()

    def close(self) -> None:
        """Close the file, leave it as it is, and give it back."""
        try:
            self._connection.close()
        finally:
            self._lock.release()

    # --- small objects ---------------------------------------------------------------------------------------

    def add(self, finished: Sequence[Finished], *, settled: Sequence[bytes] = (), are_final: bool = False) -> None:
        """Keep that the bytes of *finished* arrived, and that the objects of the digests *settled* are final: these, or
        any that arrived before; of *finished*, all if they *are_final*."""
        page = pack_page(finished, self._boot, is_final=are_final) if finished else None
        if page is not None and not settled and not self._is_silent():
            self._connection.execute(_ADD_PAGE, (len(finished), page))  # one statement is a transaction
            return
        with transaction(self._connection) as connection:
            if page is not None:
                connection.execute(_ADD_PAGE, (len(finished), page))
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
        key, facts = key_of(name), self.large_facts(name)
        if facts is None:
            return None
        rows = self._connection.execute(
            "SELECT number, size_bytes, crc32c, etag, is_verified FROM parts WHERE key = ? ORDER BY number", (key,)
        )
        # What damage made of a number is left out; a wrong one does not fit what the server or the file says.
        whole = (row for row in rows if [type(value) for value in row] == [int, int, int, str, int])
        return facts, [KnownPart(number, size, crc, etag, bool(ok)) for number, size, crc, etag, ok in whole]

    def large_facts(self, name: str) -> dict[str, Any] | None:
        """Return what `large` does, without the parts."""
        row = self._connection.execute("SELECT facts, checksum FROM large WHERE key = ?", (key_of(name),)).fetchone()
        return None if row is None else read_facts(*row)

    def begun(self, names: Sequence[str]) -> list[str]:
        """Return those of *names* that are large objects begun before."""
        keys = {key for (key,) in self._connection.execute("SELECT key FROM large")}
        found = [name for name in names if key_of(name) in keys] if keys else []
        self._met.update(map(key_of, found))
        return found

    def has_large(self) -> bool:
        """Whether any large object is under way."""
        return bool(self._connection.execute("SELECT EXISTS (SELECT 1 FROM large)").fetchone()[0])

    def forget_finished(self, *, forgets_unmet: bool) -> list[dict[str, Any]]:
        """Forget what has finished; return the facts of the large objects that were forgotten, too.

        Args:
            forgets_unmet: Whether to forget those that no call of this process was about.
        """
        gone = []
        with transaction(self._connection) as connection:
            forget_finished(connection)
            rows = connection.execute("SELECT key, facts, checksum FROM large").fetchall() if forgets_unmet else []
            for key, *facts in rows:
                if key not in self._met:
                    gone.append(read_facts(*facts) or {})
                    connection.execute("DELETE FROM large WHERE key = ?", (key,))
                    connection.execute("DELETE FROM parts WHERE key = ?", (key,))
        return gone

    def begin_large(self, name: str, facts: Mapping[str, Any]) -> None:
        """Keep that a large object was begun; what was known of it before is forgotten."""
        key, text = key_of(name), json.dumps(dict(facts))
        self._met.add(key)
        with transaction(self._connection) as connection:
            connection.execute("DELETE FROM parts WHERE key = ?", (key,))
            connection.execute("INSERT OR REPLACE INTO large VALUES (?, ?, ?)", (key, text, checksum_of(text)))

    def add_parts(self, name: str, parts: Sequence[KnownPart]) -> None:
        """Keep that *parts* of a large object are there."""
        key = key_of(name)
        with transaction(self._connection) as connection:
            rows = [(key, *part) for part in parts]
            connection.executemany("INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?, ?)", rows)
            self._say_something(connection)

    def end_large(self, name: str) -> None:
        """Forget the parts of a large object: it is whole, or given up."""
        key = key_of(name)
        self._met.discard(key)
        with transaction(self._connection) as connection:
            connection.execute("DELETE FROM large WHERE key = ?", (key,))
            connection.execute("DELETE FROM parts WHERE key = ?", (key,))

    # --- transactions ----------------------------------------------------------------------------------------

    def _is_silent(self) -> bool:
        return time.monotonic() - self._touched > _SILENT_SECONDS

    def _say_something(self, connection: sqlite3.Connection) -> None:
        if self._is_silent():
            self._touched = time.monotonic()
            connection.execute("UPDATE run SET updated_at = ?", (now_ms(),))


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
