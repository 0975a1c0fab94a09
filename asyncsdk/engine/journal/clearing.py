"""Removing the temporary files that earlier processes of a run left where it downloads to, because they were killed."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

import anyio.to_thread

from asyncsdk.engine.crew.leftovers import remove_leftovers
from asyncsdk.engine.journal.journal import Journal

__all__ = ["Clearing"]

_MOST_FOLDERS = 10_000
"""Remembered; a run over more of them may list one once more."""

_log = logging.getLogger("asyncsdk.journal")


class Clearing:
    """Looks into every folder that a run writes to, once, if a process was killed that worked on the run.

    Args:
        journal: Of the run: it knows the marks of such processes, and which half-received files are gone on with, by
            this run or by another that such a process worked on, too.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._folders: dict[str, None] = {}
        self._kept: frozenset[str] | None = None
        self._is_over = False

    async def clear(self, destinations: Iterable[Path | str]) -> None:
        """Remove what was left beside *destinations*."""
        marks = self._journal.earlier_marks
        if not marks or self._is_over:
            return
        found = {os.path.dirname(os.path.abspath(path)) for path in destinations}  # noqa: PTH100,PTH120  # links stay
        folders = sorted(found - self._folders.keys())
        if not folders:
            return
        if self._kept is None:
            self._kept = await self._journal.half_received()
            if self._kept is None:
                self._is_over = True
                _log.warning("temporary files of a process that ended may remain: not all journals can be read")
                return
        await anyio.to_thread.run_sync(remove_leftovers, marks, folders, self._kept)
        if len(self._folders) > _MOST_FOLDERS:
            self._folders.clear()
        self._folders.update(dict.fromkeys(folders))
