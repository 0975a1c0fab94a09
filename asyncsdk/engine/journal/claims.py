"""Claims: the row that says whose a journal is, written by who holds its lock. Everything here blocks."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from asyncsdk.engine.journal.locks import RunLock, is_free
from asyncsdk.engine.journal.owners import Owner
from asyncsdk.engine.journal.records import RunRecord
from asyncsdk.engine.journal.schema import SCHEMA_VERSION, checksum_of, connect, read_facts, remove
from asyncsdk.errors import ConfigError

__all__ = [
    "OVER",
    "Claimed",
    "InUse",
    "claim",
    "forget_finished",
    "give_up",
    "is_given_up",
    "named_owner",
    "now_ms",
    "owner_of",
    "transaction",
]

OVER = "over"
"""State of a run that ended, in the moment before its journal is removed."""

_MARK = re.compile(r"[0-9a-f]{12}")
_MOST_MARKS = 16


class InUse(Exception):
    """Another process, or another run of this one, keeps this journal; its text says who."""


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Keep all of what is done in the block, or nothing when it raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:  # undone whatever ended it, then raised again
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


class Claimed(NamedTuple):
    """What a claim found.

    Attributes:
        started_at: When the run began first, milliseconds since 1970 UTC; None: this moment.
        marks: Of processes that were killed while they worked on it: what they left is nobody's.
        is_rest: Whether a retry is all that is left of the run, which had come to its end. Otherwise the run was
            stopped, and has more to do than what failed.
    """

    started_at: int | None
    marks: tuple[str, ...]
    is_rest: bool


def claim(connection: sqlite3.Connection, record: RunRecord, *, is_locked: bool) -> Claimed:
    """Write into an open journal that it is of *record* and kept by this process.

    A retry of a run that was stopped leaves the journal that run's. What had finished in a run with no other witness is
    forgotten once it came to its end, but for whoever goes on with the same retry, and unless that was for an outage:
    then the same call goes on, and a retry of what failed is all that is left.

    Args:
        is_locked: Whether this process holds its lock, of a kind that the kernel knows.

    Raises:
        InUse: Its owner works on it.
        sqlite3.DatabaseError: It is damaged, or cannot be written.
    """
    with transaction(connection):
        row = connection.execute("SELECT state, owner, updated_at, started_at, record, checksum FROM run").fetchone()
        marks: tuple[str, ...] = ()
        known: dict[str, Any] | None = None
        if row is not None:
            state, owner, updated_at, started_at = row[:4]
            if not isinstance(updated_at, int) or not isinstance(owner, str) or not isinstance(started_at, int):
                raise sqlite3.DatabaseError("the row of its run cannot be read")
            if state == OVER:
                raise sqlite3.DatabaseError("of a run that ended, it should be gone")
            holder = owner_of(owner)
            if holder is not None and _is_kept_by(holder, updated_at, is_locked=is_locked):
                raise InUse(f"{_said_of(holder)} keeps it")
            known = read_facts(*row[4:])
            marks = _marks_of_killed(known, holder)
            earlier = None if known is None else known.get("retried")
            is_over = state == "failed" or earlier is not None
            has_ended = is_over or state == "outage"
            is_same = state != "failed" and record.retried is not None and record.retried.version == earlier
            if record.is_sole_witness and is_over and not is_same:
                forget_finished(connection)
        is_rest = record.retried is not None and (known is None or has_ended)
        facts: dict[str, Any] = {"arguments": dict(record.arguments), "is_rebuildable": record.is_rebuildable}
        if record.retried is not None and is_rest:
            facts["arguments"]["retry"] = record.retried.path
            facts["is_rebuildable"] = record.is_rebuildable and record.retried.is_lasting
            facts["retried"] = record.retried.version
        elif record.retried is not None and known is not None:
            facts = {name: known[name] for name in facts}
        common = {"verb": record.verb, "identity": dict(record.identity), "schema": SCHEMA_VERSION, "marks": marks}
        text = json.dumps({**common, **facts})
        me, now = json.dumps(asdict(Owner.me(is_locked=is_locked))), now_ms()
        connection.execute(
            "INSERT INTO run VALUES (1, ?, ?, 'running', ?, ?, ?) ON CONFLICT (one) DO UPDATE SET record = "
            "excluded.record, checksum = excluded.checksum, state = 'running', owner = excluded.owner, "
            "updated_at = excluded.updated_at",
            (text, checksum_of(text), me, now, now),
        )
    return Claimed(None if row is None else int(row[3]), marks, is_rest)


def forget_finished(connection: sqlite3.Connection) -> None:
    """Forget what has finished, and nothing of what is half-moved. To be called within a transaction."""
    for table in ("pages", "settled", "entries"):
        connection.execute(f"DELETE FROM {table}")  # noqa: S608  # ours


def _marks_of_killed(facts: dict[str, Any] | None, holder: Owner | None) -> tuple[str, ...]:
    """Return the marks of processes that were killed while they kept a journal, the latest 16.

    Args:
        facts: What the journal says of its run.
        holder: Who kept it last and has not given it up.
    """
    known = [] if facts is None else facts.get("marks", [])
    if holder is not None and not holder.may_live:
        known = [*known, holder.mark]
    whole = (mark for mark in known if isinstance(mark, str) and _MARK.fullmatch(mark))
    return tuple(dict.fromkeys(whole))[-_MOST_MARKS:]


def give_up(path: Path, state: str | None, *, forgets_finished: bool = False) -> None:
    """Give up a journal of this process that could not be kept to the end; nothing when another one has it by now.

    Args:
        state: Why the run ended; None: everything of it is final, and what the journal says of it is too old.
        forgets_finished: Whether only what is half-moved may be known to whoever goes on.

    Raises:
        sqlite3.Error, OSError: It cannot be done.
    """
    if not path.exists():
        return
    lock = RunLock.take(path)
    if lock is None:
        return
    try:
        with closing(connect(path)) as connection, transaction(connection):
            row = connection.execute("SELECT owner, updated_at FROM run").fetchone()
            holder = None if row is None else owner_of(row[0])
            if holder is not None and _is_kept_by(holder, row[1], is_locked=lock.is_of_system):
                return
            if forgets_finished:
                forget_finished(connection)
                is_half_moved = connection.execute("SELECT EXISTS (SELECT 1 FROM large)").fetchone()[0]
                state = state if is_half_moved else None
                connection.execute("UPDATE run SET state = ?", (state or OVER,))  # whoever had it
            if state is None:
                remove(path)
            elif holder is not None and holder.is_me():
                connection.execute("UPDATE run SET state = ?, owner = '', updated_at = ?", (state, now_ms()))
    except sqlite3.DatabaseError:
        if (state is not None and not forgets_finished) or not lock.is_of_system:
            raise
        remove(path)  # damaged, or the disk is full: it is nobody's as long as we have its lock
    finally:
        lock.release()


def _is_kept_by(holder: Owner, updated_at: int, *, is_locked: bool) -> bool:
    """Whether *holder* works on a journal whose lock this process has."""
    if holder.is_me():  # given up, and it could not be written down; another run of this process would have the lock
        return False
    silent = (now_ms() - updated_at) / 1000
    return not holder.is_gone(silent_seconds=silent, is_lock_free=True if is_locked else None)


def is_given_up(path: Path, holder: Owner, updated_at: int, *, lock: RunLock | None = None) -> bool:
    """Whether the owner that the journal *path* names keeps it no more.

    Args:
        lock: Of the journal, held by the caller: asking who holds it would find that one. None: looked at from outside.
    """
    if lock is not None:
        return not _is_kept_by(holder, updated_at, is_locked=lock.is_of_system)
    return holder.is_gone(silent_seconds=(now_ms() - updated_at) / 1000, is_lock_free=is_free(path))


def owner_of(text: str) -> Owner | None:
    """Return the owner that a journal names; None for nobody, or when it cannot be read."""
    if not text:
        return None
    try:
        values = json.loads(text)
        return Owner(
            str(values["host"]),
            int(values["pid"]),
            int(values["started"]),
            str(values["boot"]),
            str(values.get("namespace", "")),
            values.get("is_locked") is True,
            str(values.get("mark", "")),
        )
    except (ValueError, TypeError, KeyError):  # damaged: whoever it was, nobody can ask for it
        return None


def named_owner(path: Path) -> str:
    """Return who keeps the journal *path*, in words."""
    try:
        with closing(connect(path, read_only=True)) as connection:
            row = connection.execute("SELECT owner FROM run").fetchone()
    except (sqlite3.Error, UnicodeDecodeError, ConfigError):  # being made; or whoever has it will find out
        row = None
    holder = owner_of(row[0]) if row is not None and isinstance(row[0], str) else None
    return "another run" if holder is None else _said_of(holder)


def _said_of(holder: Owner) -> str:
    return f"process {holder.pid} on {holder.host}"


def now_ms() -> int:
    """Return the time in milliseconds since 1970 UTC."""
    return time.time_ns() // 1_000_000
