"""Where releases up to schema version 2 put objects. They stay there; nothing new is put beside them.

::

    folder/objects/ab/<id>                    committed, or what a crash left shortly before
    folder/objects/ab/<id>.<crc32c>.tmp       left by a crash, on file systems without hard links
    folder/staging/YYYY-MM-DD/<id>.<crc32c>   arrived, not committed; often a second name of a committed one
    folder/staging/YYYY-MM-DD/<id>.*          on its way
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Self

from asyncsdk.domain.ids import is_id, time_of_id
from asyncsdk.server.objects.discarding import expired_days, file_names, remove_empty, unlink
from asyncsdk.server.objects.private import make_private_folder

__all__ = ["EarlierObjects"]

_FOLDER = re.compile(r"[0-9a-f]{2}")
_BATCH = 1000


class EarlierObjects:
    """Objects of earlier releases in a data folder. All methods block.

    Args:
        folder: The data folder.
    """

    def __init__(self, folder: Path) -> None:
        self._objects = folder / "objects"
        self._staging = folder / "staging"

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """Return them; None when no earlier release put anything into *folder*."""
        found = cls(folder)
        has_objects = any(_FOLDER.fullmatch(path.name) for path in found._objects.iterdir())
        return found if has_objects or found._staging.is_dir() else None

    def committed(self, object_id: str) -> Path | None:
        """Return where the object lies; None when it is not there."""
        path = self._path(object_id)
        return path if path.exists() else None

    def adopt(self, object_id: str, crc32c: str, target: Path) -> None:
        """Rename what arrived and may still be committed to *target*; nothing happens when it is not there.

        A second name of the same file (the crash came between publishing and the end of the commit) goes: under the one
        name left, whatever happens to the object happens to all of it.
        """
        made = datetime.fromtimestamp(time_of_id(object_id) / 1000, tz=UTC)
        staged = self._staging / f"{made:%Y-%m-%d}" / f"{object_id}.{crc32c}"
        if staged.exists():
            make_private_folder(target.parent)
            with contextlib.suppress(FileNotFoundError):  # another thread did
                staged.rename(target)
                if self._path(object_id).samefile(target):
                    self._path(object_id).unlink()

    def remove(self, object_id: str) -> None:
        """Remove a committed object; nothing happens when it is not there."""
        self._path(object_id).unlink(missing_ok=True)

    def discard_expired(self, *, before_ms: int, keep: Callable[[Sequence[str]], Mapping[str, str]]) -> int:
        """Remove what arrived on days that ended before *before_ms*, and what crashes left of publishing it.

        Returns:
            How many files were removed.
        """
        removed = 0
        for day, _ in expired_days(self._staging, before_ms):
            names = iter(file_names(day))
            while batch := list(islice(names, _BATCH)):
                ids = sorted({name[:24] for name in batch if is_id(name[:24])})
                committed = keep(ids) if ids else {}
                for object_id in ids:
                    if object_id not in committed:
                        removed += unlink(self._path(object_id))
                for name in batch:
                    if is_id(name[:24]):
                        removed += unlink(self._path(name[:24]).with_name(f"{name}.tmp"))
                    removed += unlink(day / name)
            remove_empty(day)
        return removed

    def _path(self, object_id: str) -> Path:
        return self._objects / object_id[-2:] / object_id
