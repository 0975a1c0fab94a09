"""All journals of a home: what they are of, which may be forgotten. Everything here blocks."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

from asyncsdk.engine.journal.claims import is_given_up, owner_of
from asyncsdk.engine.journal.locks import RunLock
from asyncsdk.engine.journal.records import RunSummary
from asyncsdk.engine.journal.schema import SUFFIX, connect, is_damage, read_facts, remove
from asyncsdk.errors import AsyncSDKError, ConfigError, Conflict, JournalCorrupt, NotFound
from asyncsdk.os_errors import os_errors

__all__ = [
    "Forgotten",
    "all_unfinished_files",
    "forget",
    "summaries",
    "summary",
    "tidy",
    "unfinished_file",
    "unfinished_files",
]

_logger = logging.getLogger("asyncsdk.journal")

_KEPT_SECONDS = 30 * 24 * 60 * 60
"""A journal that nobody wrote to for so long is removed when another one is made."""


def summaries(folder: Path, on_unreadable: Callable[[AsyncSDKError], object] | None = None) -> Iterator[RunSummary]:
    """Yield the runs that have a journal, the one written to last first; those that cannot be read are passed over.

    Args:
        folder: The journals.
        on_unreadable: Told of each of those, as `summary` would raise it.
    """
    for path in sorted(_files(folder), key=_written_at, reverse=True):
        try:
            found = _summary(path)
        except NotFound:  # it has ended this moment
            continue
        except (JournalCorrupt, ConfigError) as error:
            if on_unreadable is not None:
                on_unreadable(error)
            continue
        yield found


def summary(folder: Path, run_id: str) -> RunSummary:
    """Return one run by its id, or by the beginning of it that no other has.

    Raises:
        NotFound: There is none.
        Conflict: Several begin like that.
        JournalCorrupt: Its journal is damaged.
        ConfigError: Its journal is of a later release.
    """
    return _summary(_find(folder, run_id))


class Forgotten(NamedTuple):
    """What became of a run that was forgotten.

    Attributes:
        run_id: Its id.
        files: Half-received files that were removed with it.
        size_bytes: What these took on the disk.
    """

    run_id: str
    files: int
    size_bytes: int


def forget(folder: Path, run_id: str) -> Forgotten:
    """Remove the journal of a run, and the files it had half received. While it does, no process takes the run up.

    Raises:
        NotFound, Conflict: As `summary`.
        Conflict: The run is under way.
        JournalCorrupt: Its journal cannot be read, and that is none of its own fault.
        DestinationUnwritable: A half-received file cannot be removed; then the journal is still there.
    """
    path = _find(folder, run_id)
    lock = RunLock.take(path)
    if lock is None:
        with suppress(JournalCorrupt):
            _check_stopped(_summary(path))
        raise Conflict(f"{path.name.removesuffix(SUFFIX)} is under way; stop it first")
    try:
        return _forget(path, lock)
    finally:
        lock.release()


def _forget(path: Path, lock: RunLock) -> Forgotten:
    name = path.name.removesuffix(SUFFIX)
    try:
        with suppress(JournalCorrupt):  # looked at once more below: what is under way is not waited for
            _check_stopped(_summary(path, lock))
        with closing(connect(path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            found = _read(path, connection, lock)
            _check_stopped(found)
            for file in _unfinished(connection):
                with os_errors(
                    "destination", destination=str(file)
                ):  # while the journal is there it can be tried again
                    file.unlink(missing_ok=True)
            connection.execute("DELETE FROM run")  # who waits for it sees that it is gone, and makes another one
            remove(path)
            connection.execute("COMMIT")
        return Forgotten(name, found.half_received, found.half_received_bytes)
    except ConfigError:  # of a later release: it says itself that it can be forgotten
        remove(path)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if not is_damage(error):
            raise JournalCorrupt(path, f"cannot be read: {error}") from error
        remove(path)
    return Forgotten(name, 0, 0)


def _check_stopped(run: RunSummary) -> None:
    if run.state == "running":
        raise Conflict(f"{run.run_id} is under way ({run.owner}); stop it first")


def unfinished_files(path: Path) -> list[Path]:
    """Return the half-received files that a journal knows, whether or not they are still there."""
    with closing(connect(path, read_only=True)) as connection:
        return _unfinished(connection)


def all_unfinished_files(folder: Path) -> frozenset[str] | None:
    """Return the half-received files that any journal knows; None: one of them cannot be asked, a later release's."""
    found: set[str] = set()
    for path in _files(folder):
        try:
            found.update(map(str, unfinished_files(path)))
        except (sqlite3.Error, UnicodeDecodeError, ConfigError) as error:
            # What a damaged one had begun nobody goes on with; nor is there anything of a run that has just ended.
            if not is_damage(error) and path.exists():
                return None
    return frozenset(found)


def _unfinished(connection: sqlite3.Connection) -> list[Path]:
    rows = connection.execute("SELECT facts, checksum FROM large").fetchall()
    files = [unfinished_file(read_facts(*row)) for row in rows]
    return [file for file in files if file is not None]


def unfinished_file(facts: Mapping[str, Any] | None) -> Path | None:
    """Return the half-received file that *facts* name; None: they name none that can be ours.

    Ours are hidden, end with ``.part``, and are named from the root: an older release kept paths as they were given,
    which may mean another file by now.
    """
    unfinished = None if facts is None else facts.get("unfinished")
    named = unfinished.get("temporary") if isinstance(unfinished, dict) else None
    if not isinstance(named, str):
        return None
    file = Path(named)
    is_ours = file.is_absolute() and file.suffix == ".part" and file.name.startswith(".")
    return file if is_ours else None


def tidy(folder: Path) -> None:
    """Remove journals, and what was set aside of them, that nobody wrote to for 30 days; and locks of no journal."""
    oldest = time.time() - _KEPT_SECONDS
    for path in [*_files(folder), *folder.glob("*.damaged-*")]:
        if _written_at(path) < oldest:
            try:
                if not path.name.endswith(SUFFIX):
                    remove(path)
                elif (lock := RunLock.take(path)) is not None:
                    try:
                        _tidy_away(path)
                    finally:
                        lock.release()
            except OSError as error:  # closed to us by now; what is under way has its journal all the same
                _logger.info("%s: not tidied away: %s", path, error)
    for path in (file.with_name(file.name.removesuffix("-lock")) for file in folder.glob(f"*{SUFFIX}-lock")):
        if not path.exists():
            with suppress(OSError):  # closed to us by now
                if (lock := RunLock.take(path)) is not None:  # else it is being made
                    lock.release()  # removes its file: its process was killed while it made or removed the journal


def _tidy_away(path: Path) -> None:
    try:
        for file in unfinished_files(path):
            file.unlink(missing_ok=True)
    except (sqlite3.Error, UnicodeDecodeError, ConfigError):
        pass  # damaged, or of a later release: nobody can say what it had begun
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


def _summary(path: Path, lock: RunLock | None = None) -> RunSummary:
    try:
        with closing(connect(path, read_only=True)) as connection:
            return _read(path, connection, lock)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        if not path.exists():
            raise NotFound(f"{path.name.removesuffix(SUFFIX)} has just ended") from error
        if is_damage(error):
            raise JournalCorrupt(path, f"is damaged ({error}); running the same command again sets it aside") from error
        raise JournalCorrupt(path, f"cannot be read: {error}") from error


def _read(path: Path, connection: sqlite3.Connection, lock: RunLock | None) -> RunSummary:
    row = connection.execute("SELECT record, checksum, state, owner, started_at, updated_at FROM run").fetchone()
    record: dict[str, Any] | None = None if row is None else read_facts(row[0], row[1])
    if record is None:
        raise sqlite3.DatabaseError("the row of its run cannot be read")
    state, owner, started_at, updated_at = row[2:]
    if not isinstance(updated_at, int):
        raise sqlite3.DatabaseError("the row of its run cannot be read")
    holder = owner_of(owner)
    if holder is not None and is_given_up(path, holder, updated_at, lock=lock):
        holder, state = None, "killed"

    def count(expression: str, table: str) -> int:
        return int(connection.execute(f"SELECT {expression} FROM {table}").fetchone()[0])  # noqa: S608  # ours

    sizes = [size for file in _unfinished(connection) if (size := _size_on_disk(file)) is not None]
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
        half_received=len(sizes),
        half_received_bytes=sum(sizes),
    )


def _size_on_disk(file: Path) -> int | None:
    """Return what a file takes, holes not counted; None when it is not there."""
    try:
        facts = file.lstat()
    except (OSError, ValueError):  # whoever removes it is told why it cannot be
        return None
    return facts.st_blocks * 512 if hasattr(facts, "st_blocks") else facts.st_size
