"""Folders of days: going through those that are over, for what nobody committed."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from pathlib import Path

from asyncsdk.domain.ids import is_id

__all__ = ["Swept", "discard_expired", "expired_days", "file_names", "remove_empty", "unlink"]

_DAY = timedelta(days=1)
_BATCH = 1000
_NAME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(-[0-9a-f])?")

_CLOCK_SLACK_SECONDS = 3600.0
"""How far the clock that stamps files may have been behind that of the sweep before."""


@dataclass(frozen=True, slots=True)
class Swept:
    """A sweep that went to its end.

    Attributes:
        before_ms: It looked at the days that had ended then, milliseconds since 1970 UTC.
        started_at: When it began, seconds since 1970 UTC.
    """

    before_ms: int
    started_at: float


def discard_expired(
    folder: Path, *, before_ms: int, keep: Callable[[Sequence[str]], Mapping[str, str]], swept: Swept | None
) -> int:
    """Remove the files in ``folder/YYYY-MM-DD-a`` that are not committed; returns how many.

    Days of which *swept* saw the end are passed over, but for folders that something was put into since: a client that
    was gone for more than a week. What remains costs one look at each of their folders, whatever lies in it.
    """
    removed = 0
    for day, end_ms in expired_days(folder, before_ms):
        seen_at = swept.started_at - _CLOCK_SLACK_SECONDS if swept is not None and end_ms <= swept.before_ms else None
        if seen_at is None or _changed_at(day) >= seen_at:
            removed += _discard(day, keep)
            remove_empty(day)
    return removed


def _discard(folder: Path, keep: Callable[[Sequence[str]], Mapping[str, str]]) -> int:
    removed = 0
    names = iter(file_names(folder))
    while batch := list(islice(names, _BATCH)):
        ids = sorted({name[:24] for name in batch if is_id(name[:24])})
        committed = keep(ids) if ids else {}
        for name in batch:
            if committed.get(name[:24]) != name[25:]:
                removed += unlink(folder / name)
    return removed


def expired_days(folder: Path, before_ms: int) -> Iterator[tuple[Path, int]]:
    """Yield the folders ``YYYY-MM-DD`` and ``YYYY-MM-DD-a`` whose day ended before *before_ms*, and when it did."""
    try:
        paths = sorted(folder.iterdir())
    except FileNotFoundError:
        return
    for path in paths:
        if _NAME.fullmatch(path.name) is None:
            continue
        try:
            day = date.fromisoformat(path.name[:10])
        except ValueError:  # the 31st of February
            continue
        end = datetime(day.year, day.month, day.day, tzinfo=UTC) + _DAY
        end_ms = int(end.timestamp() * 1000)
        if end_ms <= before_ms and path.is_dir():
            yield path, end_ms


def file_names(folder: Path) -> list[str]:
    """Return the names of the files in a folder; none when it is gone."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if not entry.is_dir())
    except FileNotFoundError:  # another process sweeps too
        return []


def _changed_at(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def remove_empty(folder: Path) -> None:
    """Remove a folder that has nothing in it; leave it otherwise."""
    try:
        folder.rmdir()
    except OSError as error:
        # It holds what is committed, or a client came back this moment: the next sweep sees to that.
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}:
            raise


def unlink(path: Path) -> int:
    """Remove a file; returns how many were removed."""
    try:
        path.unlink()
    except FileNotFoundError:
        return 0
    return 1
