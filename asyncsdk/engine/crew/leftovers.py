"""Temporary files that a process could not remove itself, because it was killed."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable

from asyncsdk.engine.temporaries import has_mark

__all__ = ["remove_leftovers"]

_log = logging.getLogger("asyncsdk.engine")


def remove_leftovers(marks: Collection[str], folders: Iterable[str], kept: Collection[str]) -> None:
    """Remove the temporary files of the processes with *marks* from *folders*, but those *kept*. Blocking.

    One listing per folder. What cannot be removed is named in the log: there is no outcome that could tell it.
    """
    for folder in folders:
        try:
            with os.scandir(folder or os.curdir) as entries:
                names = [entry.name for entry in entries if any(has_mark(entry.name, mark) for mark in marks)]
        except (FileNotFoundError, NotADirectoryError, ValueError):  # nothing was ever made there
            continue
        except OSError as error:
            _log.warning("%s: temporary files of a process that ended may remain: %s", folder, error.strerror)
            continue
        for path in (os.path.join(folder, name) for name in names):  # noqa: PTH118  # as `PartFile` names them
            if path not in kept:
                _remove(path)


def _remove(path: str) -> None:
    try:
        os.unlink(path)  # noqa: PTH108  # a Path for each is not needed
    except FileNotFoundError:
        return
    except OSError as error:
        _log.warning("%s: the temporary file of a process that ended remains: %s", path, error.strerror)
