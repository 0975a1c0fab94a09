"""The file of a journal: opened, checked, made, set aside when it is damaged.

One SQLite file for each run: forgetting ten million entries is removing a file, and damage or a long write of one run
is no matter of another. WAL, so that readers (``asyncsdk journal list``) and the writer do not wait for each other, and
so that a page costs one append. What a commit wrote survives SIGKILL; after a loss of power some of the last may be
missing, never the older ones.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import time
from pathlib import Path
from typing import Any

import google_crc32c

from asyncsdk.engine.journal.locks import lock_path
from asyncsdk.errors import ConfigError

__all__ = ["SCHEMA_VERSION", "SUFFIX", "checksum_of", "connect", "is_damage", "read_facts", "remove", "set_aside"]

SCHEMA_VERSION = 1
SUFFIX = ".sqlite3"

_APPLICATION_ID = 0x41534A31  # "ASJ1"
_BUSY_SECONDS = 10.0
_KEPT_DAMAGED = 3

_SETTINGS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = NORMAL",
    "PRAGMA wal_autocheckpoint = 4000",  # 16 MiB: a checkpoint is the only thing that waits for the disk
    "PRAGMA cache_size = -4096",
    "PRAGMA temp_store = FILE",  # sorting a million rows must not take memory
)

_TABLES = """
CREATE TABLE run (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    record TEXT NOT NULL,
    checksum INTEGER NOT NULL,
    state TEXT NOT NULL,
    owner TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
CREATE TABLE pages (number INTEGER PRIMARY KEY, count INTEGER NOT NULL, entries BLOB NOT NULL);
CREATE TABLE settled (number INTEGER PRIMARY KEY, keys BLOB NOT NULL);
CREATE TABLE entries (key INTEGER PRIMARY KEY, entry BLOB NOT NULL, is_settled INTEGER NOT NULL);
CREATE TABLE large (key INTEGER PRIMARY KEY, facts TEXT NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE parts (
    key INTEGER NOT NULL,
    number INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    crc32c INTEGER NOT NULL,
    etag TEXT NOT NULL,
    is_verified INTEGER NOT NULL,
    PRIMARY KEY (key, number)
) WITHOUT ROWID;
"""

_OF_THE_MACHINE = tuple(
    f"SQLITE_{word}"
    for word in ("BUSY", "CANTOPEN", "FULL", "INTERRUPT", "IOERR", "LOCKED", "NOMEM", "PERM", "PROTOCOL", "READONLY")
)

_logger = logging.getLogger("asyncsdk.journal")


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open the journal at *path*, making it unless *read_only*. Blocking.

    Raises:
        ConfigError: It was written by a later release.
        sqlite3.DatabaseError: It is damaged (`is_damage`), or cannot be opened.
        OSError: Its folder cannot be made.
    """
    if read_only:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_SECONDS, isolation_level=None
        )
    else:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.text_factory = _text
    try:
        if not read_only:
            for setting in _SETTINGS:
                connection.execute(setting)
            _make_tables(connection)
        _check_version(connection, path)
    except BaseException:  # closed whatever ended it, then raised again
        connection.close()
        raise
    return connection


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")  # what damage made of a text is told by its checksum


def _make_tables(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA user_version").fetchone()[0]:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not connection.execute("PRAGMA user_version").fetchone()[0]:  # another process may have made them meanwhile
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except BaseException:  # undone whatever ended it, then raised again
        connection.execute("ROLLBACK")
        raise


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    if application != _APPLICATION_ID or version < 1:
        raise sqlite3.DatabaseError("file is not a database of ours")
    if version > SCHEMA_VERSION:
        if _is_of_ours(connection):
            raise sqlite3.DatabaseError("it says that it is of a later release, and is of this one")
        raise ConfigError(
            f"{path}: this journal is of a later release (its schema is {version}, this one knows {SCHEMA_VERSION}); "
            "go on with that release, or forget it: asyncsdk journal forget"
        )


def _is_of_ours(connection: sqlite3.Connection) -> bool:
    """Whether the row of the run, which has a checksum, says that the tables are ours: the number was damaged then."""
    try:
        text, checksum = connection.execute("SELECT record, checksum FROM run").fetchone()
    except (sqlite3.Error, TypeError):  # other tables, or none of it
        return False
    facts = read_facts(text, checksum)
    return facts is not None and facts.get("schema", 0) <= SCHEMA_VERSION


def checksum_of(text: str) -> int:
    """Return the checksum that is kept beside a text."""
    return int(google_crc32c.extend(0, text.encode()))


def read_facts(text: Any, checksum: Any) -> dict[str, Any] | None:
    """Return JSON that was kept with its checksum; None when it is damaged."""
    if not isinstance(text, str) or checksum_of(text) != checksum:
        return None
    facts: dict[str, Any] = json.loads(text)  # not orjson: names of files may hold lone surrogates
    return facts


def is_damage(error: Exception) -> bool:
    """Whether *error* says that the file is not what was written, and not that it is busy, closed to us, or the disk
    full."""
    if isinstance(error, UnicodeDecodeError):  # the message of an error that quotes what it found
        return True
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    name = getattr(error, "sqlite_errorname", "")
    # Statements of ours that fail for another reason find other tables or values than those that were made.
    return name == "SQLITE_IOERR_SHORT_READ" or not name.startswith(_OF_THE_MACHINE)


def set_aside(path: Path, reason: str) -> None:
    """Rename a damaged journal and say so in the log; of one run at most three are kept. Blocking."""
    aside = path.with_name(f"{path.name.removesuffix(SUFFIX)}.damaged-{time.time_ns()}")
    for extra in _beside(path):
        extra.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside)
    _logger.warning(
        "the journal %s is damaged (%s); it was set aside, and what it knew is found out from the platform",
        path,
        reason,
    )
    older = sorted(path.parent.glob(f"{aside.name.rpartition('-')[0]}-*"))[:-_KEPT_DAMAGED]
    for old in older:
        old.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a journal, its lock last: to be called by who holds that. Blocking."""
    # Its log first: without it the file is whole, the other way round it is not.
    for each in (*_beside(path), path, lock_path(path)):
        each.unlink(missing_ok=True)


def _beside(path: Path) -> list[Path]:
    return [path.with_name(f"{path.name}{ending}") for ending in ("-wal", "-shm", "-journal")]
