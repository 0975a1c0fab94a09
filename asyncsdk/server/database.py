"""The metadata database: connections, transactions, and what its errors mean.

Reads run side by side, each on one snapshot (WAL). Writes take the database's write lock at their start, so that none
fails half-way for want of it; those of one process queue here and do not spin. A transaction is durable when it ended.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, StatementError

from asyncsdk.errors import AsyncSDKError, BadRequest, ForkedProcessError, ServerError, StoreError

__all__ = ["BUSY_TIMEOUT_SECONDS", "Database", "store_errors"]

BUSY_TIMEOUT_SECONDS = 30.0
"""How long a write waits for another process's; then it fails as retryable."""

_MAX_IDLE_CONNECTIONS = 16
_CACHE_KIB = 16 * 1024
_CHECKPOINT_PAGES = 4000
"""Pages in the write-ahead log before they move to the database. A commit of 1,000 items writes about 400; SQLite's own
1,000 would copy and sync the database at every second or third of them."""

FORK_WAIT_SECONDS = 10.0
"""How long a fork waits for running transactions. With one still open, the child refuses to use the database."""


class Database:
    """One SQLite file. Safe for several threads, for several processes on the same file, and after a fork.

    Args:
        path: The file; it holds the schema already (`migrations.prepare`).
        version: Schema version this code writes.
        busy_timeout_seconds: How long a write waits for another process's.
    """

    def __init__(self, path: Path, *, version: int, busy_timeout_seconds: float = BUSY_TIMEOUT_SECONDS) -> None:
        self.path = path
        self._version = version
        self._busy_timeout_seconds = busy_timeout_seconds
        self._is_left_behind = False
        self._set_up()
        _databases.add(self)

    def _set_up(self) -> None:
        self._write_lock = threading.Lock()
        self._gate = threading.Condition()
        self._active = 0
        self._is_forking = False
        self._engine = create_engine(
            URL.create("sqlite+pysqlite", database=str(self.path)),
            pool_size=_MAX_IDLE_CONNECTIONS,
            max_overflow=-1,  # never wait for a connection: how many threads there are is the caller's limit
            connect_args={"timeout": self._busy_timeout_seconds, "check_same_thread": False},
        )
        event.listen(self._engine, "connect", _prepare_connection)
        event.listen(self._engine, "begin", _begin)

    @contextmanager
    def _passing(self) -> Iterator[None]:
        """Hold back forks while a transaction is open."""
        if self._is_left_behind:
            raise ForkedProcessError("the process was forked while the data folder was in use; open it anew here")
        with self._gate:
            while self._is_forking:
                self._gate.wait()
            self._active += 1
        try:
            yield
        finally:
            with self._gate:
                self._active -= 1
                self._gate.notify_all()

    def before_fork(self) -> None:
        """Close every connection. SQLite's locks are kept per process and in memory: a child must inherit neither."""
        with self._gate:
            self._is_forking = True
            if self._gate.wait_for(lambda: not self._active, FORK_WAIT_SECONDS):
                self._engine.dispose()

    def after_fork_in_parent(self) -> None:
        """Let transactions go on, each with a connection made anew."""
        with self._gate:
            self._is_forking = False
            self._gate.notify_all()

    def after_fork_in_child(self) -> None:
        """Begin afresh; refuse all use when a transaction was still open at the fork."""
        if self._active:
            self._is_left_behind = True
        else:
            self._set_up()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Give a connection that sees one unchanging state.

        Raises:
            ServerError: The database is busy (retryable).
            StoreError: It is damaged or cannot be read.
        """
        with store_errors(self.path), self._passing(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Give a connection whose changes become durable together at the end, or not at all.

        Raises:
            ServerError: Another process kept the write lock for too long (retryable), or the disk is full.
            StoreError: The database is damaged, cannot be written, or was upgraded by a newer release meanwhile.
        """
        with store_errors(self.path), self._passing(), self._write_lock, self._engine.connect() as connection:
            connection = connection.execution_options(asyncsdk_writes=True)
            with connection.begin():
                found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
                if found != self._version:
                    raise StoreError(
                        self.path,
                        f"its schema became version {found} while this process, which knows {self._version}, had it "
                        "open; restart with the newer release",
                    )
                yield connection

    def close(self) -> None:
        """Close every connection; the last process to do so removes the write-ahead log."""
        if not self._is_left_behind:
            self._engine.dispose()


_databases: weakref.WeakSet[Database] = weakref.WeakSet()


def _before_fork() -> None:
    for database in list(_databases):
        database.before_fork()


def _after_fork_in_parent() -> None:
    for database in list(_databases):
        database.after_fork_in_parent()


def _after_fork_in_child() -> None:
    for database in list(_databases):
        database.after_fork_in_child()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)


def _prepare_connection(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver would begin transactions by its own rules
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "temp_store = MEMORY",
        f"cache_size = -{_CACHE_KIB}",
        f"wal_autocheckpoint = {_CHECKPOINT_PAGES}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("asyncsdk_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


_UNUSABLE = {
    sqlite3.SQLITE_CORRUPT: "is damaged; restore it from a backup",
    sqlite3.SQLITE_NOTADB: "is no database of asyncsdk",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened",
    sqlite3.SQLITE_READONLY: "cannot be written",
    sqlite3.SQLITE_PERM: "cannot be opened for want of a permission",
    sqlite3.SQLITE_IOERR: "cannot be read or written: the disk reports an error",
}


@contextmanager
def store_errors(path: Path) -> Iterator[None]:
    """Translate what SQLAlchemy and SQLite raise inside into this package's errors.

    Errors that only a mistake in this package explains (bad SQL, a broken constraint) pass unchanged.
    """
    try:
        yield
    except DBAPIError as error:
        if (known := _translate(path, error.orig)) is None:
            raise
        raise known from error
    except StatementError as error:
        if isinstance(error.orig, AsyncSDKError):  # raised by a column's type
            raise error.orig from error
        raise
    except sqlite3.Error as error:
        if (known := _translate(path, error)) is None:
            raise
        raise known from error
    except UnicodeEncodeError as error:
        raise BadRequest("text holds characters that are no valid Unicode") from error


def _translate(path: Path, error: BaseException | None) -> AsyncSDKError | None:
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        # The driver gives no code for a header it cannot make sense of.
        return StoreError(path, _UNUSABLE[sqlite3.SQLITE_NOTADB]) if "not a database" in str(error) else None
    primary = code & 0xFF
    if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return ServerError("another process is writing to the data folder; try again", status=503, code="busy")
    if primary == sqlite3.SQLITE_FULL:
        full = ServerError("no space is left for the database; free some and try again", status=507, code="full")
        full.retryable = False
        return full
    if (reason := _UNUSABLE.get(primary)) is not None:
        return StoreError(path, reason)
    return None
