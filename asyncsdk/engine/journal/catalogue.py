"""All journals of a home: what they are of, which may be forgotten. Everything here blocks."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from asyncsdk.engine.journal.records import RunSummary
from asyncsdk.engine.journal.schema import SUFFIX, connect, is_damage, read_facts, remove
from asyncsdk.engine.journal.store import owner_of
from asyncsdk.errors import ConfigError, Conflict, JournalCorrupt, NotFound

__all__ = ["forget", "summaries", "summary", "tidy", "unfinished_files"]

_KEPT_SECONDS = 30 * 24 * 60 * 60
"""A journal that nobody wrote to for so long is removed when another one is made."""


def summaries(folder: Path) -> Iterator[RunSummary]:
    """Yield the runs that have a journal, the one written to last first; those that cannot be read are passed over."""
    for path in sorted(_files(folder), key=_written_at, reverse=True):
        with suppress(JournalCorrupt, ConfigError, NotFound):
            yield _summary(path)


def summary(folder: Path, run_id: str) -> RunSummary:
    """Return one run by its id, or by the beginning of it that no other has.

    Raises:
        NotFound: There is none.
        Conflict: Several begin like that.
        JournalCorrupt: Its journal is damaged.
        ConfigError: Its journal is of a later release.
    """
    return _summary(_find(folder, run_id))


def forget(folder: Path, run_id: str) -> str:
    """Remove the journal of a run, and the files it had half received; returns its id.

    Raises:
        NotFound, Conflict: As `summary`.
        Conflict: The run is under way.
    """
    path = _find(folder, run_id)
    with suppress(JournalCorrupt, ConfigError, NotFound):
        found = _summary(path)
        if found.state == "running":
            raise Conflict(f"{found.run_id} is under way ({found.owner}); stop it first")
        for file in unfinished_files(path):
            file.unlink(missing_ok=True)
    remove(path)
    return path.name.removesuffix(SUFFIX)


def unfinished_files(path: Path) -> list[Path]:
    """Return the half-received files that a journal knows."""
    with closing(connect(path, read_only=True)) as connection:
        rows = connection.execute("SELECT facts, checksum FROM large").fetchall()
    facts = [read_facts(*row) for row in rows]
    named = [Path(known["unfinished"]["temporary"]) for known in facts if known is not None and known.get("unfinished")]
    return [file for file in named if file.suffix == ".part"]  # nothing else is ever made


def tidy(folder: Path) -> None:
    """Remove journals, and what was set aside of them, that nobody wrote to for 30 days."""
    oldest = time.time() - _KEPT_SECONDS
    for path in [*_files(folder), *folder.glob("*.damaged-*")]:
        if _written_at(path) < oldest:
            if path.name.endswith(SUFFIX):
                with suppress(sqlite3.Error, UnicodeDecodeError, ConfigError):
                    for file in unfinished_files(path):
                        file.unlink(missing_ok=True)
            remove(path)


def _files(folder: Path) -> list[Path]:
    return list(folder.glob(f"*{SUFFIX}"))


def _written_at(path: Path) -> float:
    times = [0.0]
    for each in (path, path.with_name(f"{path.name}-wal")):
        with suppress(OSError):
            times.append(each.stat().st_mtime)
    return max(times)


def _find(folder: Path, run_id: str) -> Path:
    exact = folder / f"{run_id}{SUFFIX}"
    if os.sep not in run_id and exact.exists():
        return exact
    found = [path for path in _files(folder) if run_id and path.name.startswith(run_id)]
    if not found:
        raise NotFound(f"there is no run {run_id!r} with a journal; see: asyncsdk journal list")
    if len(found) > 1:
        names = sorted(path.name.removesuffix(SUFFIX) for path in found)
        raise Conflict(f"several runs begin with {run_id!r}: {', '.join(names)}")
    return found[0]


def _summary(path: Path) -> RunSummary:
    try:
        with closing(connect(path, read_only=True)) as connection:
            return _read(path, connection)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if not path.exists():
            raise NotFound(f"{path.name.removesuffix(SUFFIX)} has just ended") from error
        if is_damage(error):
            raise JournalCorrupt(path, f"is damaged ({error}); running the same command again sets it aside") from error
        raise JournalCorrupt(path, f"cannot be read: {error}") from error


def _read(path: Path, connection: sqlite3.Connection) -> RunSummary:
    row = connection.execute("SELECT record, checksum, state, owner, started_at, updated_at FROM run").fetchone()
    record: dict[str, Any] | None = None if row is None else read_facts(row[0], row[1])
    if record is None:
        raise sqlite3.DatabaseError("the row of its run cannot be read")
    state, owner, started_at, updated_at = row[2:]
    if not isinstance(updated_at, int):
        raise sqlite3.DatabaseError("the row of its run cannot be read")
    holder = owner_of(owner)
    if holder is not None and holder.is_gone(silent_seconds=time.time() - updated_at / 1000):
        holder, state = None, "killed"

    def count(expression: str, table: str) -> int:
        return int(connection.execute(f"SELECT {expression} FROM {table}").fetchone()[0])  # noqa: S608  # ours

    return RunSummary(
        run_id=path.name.removesuffix(SUFFIX),
        verb=record["verb"],
        arguments=record["arguments"],
        state=state,
        owner="" if holder is None else f"{holder.host}:{holder.pid}",
        started_at=started_at,
        updated_at=updated_at,
        objects=count("coalesce(sum(count), 0)", "pages") + count("count(*)", "entries"),
        large=count("count(*)", "large"),
        parts=count("count(*)", "parts"),
        size_bytes=sum(each.stat().st_size for each in (path, path.with_name(f"{path.name}-wal")) if each.exists()),
        is_rebuildable=bool(record["is_rebuildable"]),
    )
