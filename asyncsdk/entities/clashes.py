"""Names that a disk does not tell apart: upper and lower case, or two ways to write the same letters.

On such a disk (as a rule those of macOS and Windows) the second of two items would replace the file of the first, and
both would be told to be done. So the second is refused. Disks that tell all names apart cost one look per run.
"""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from asyncsdk.engine.temporaries import temporary_name
from asyncsdk.entities.recent import RecentNames

__all__ = ["NameClashes", "clashes_in"]

_WINDOW = 200_000
_CASES = "aA"
_LONG_CASES = "\u00df", "ss"
"""Upper case of the letter ß is SS: disks that map letter by letter tell both from each other."""
_FORMS = "\u00e9", "e\u0301"
"""The letter é, and an e with an accent: NFC and NFD."""


class NameClashes:
    """Remembers the names of a run as its disk knows them: exactly the last 200,000.

    Args:
        is_caseless: Whether the disk takes upper and lower case for one.
        is_formless: Whether it takes letters for one that are written in two ways (NFC, NFD).
        folds_fully: Whether a caseless disk takes one letter for two others where their upper case is the same.
    """

    def __init__(self, *, is_caseless: bool, is_formless: bool, folds_fully: bool = True) -> None:
        self._is_caseless = is_caseless
        self._is_formless = is_formless
        self._folded = str.casefold if folds_fully else _fold_letters
        self._names = RecentNames(_WINDOW)

    def take(self, name: str) -> bool:
        """Remember *name*; False when the disk takes it for one that came before."""
        if self._is_formless:
            name = unicodedata.normalize("NFC", name)
        return self._names.add(self._folded(name) if self._is_caseless else name)


def clashes_in(folder: Path) -> NameClashes | None:
    """Return who remembers names for the disk of *folder*; None: it tells all names apart. Blocking.

    The folder is made if it is not there, and in it, for a moment, a file.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError):  # writing there will tell what is wrong
        return None
    is_caseless, is_formless = _are_one(folder, *_CASES), _are_one(folder, *_FORMS)
    if not (is_caseless or is_formless):
        return None
    folds_fully = is_caseless and _are_one(folder, *_LONG_CASES)
    return NameClashes(is_caseless=is_caseless, is_formless=is_formless, folds_fully=folds_fully)


def _are_one(folder: Path, one: str, other: str) -> bool:
    """Whether the disk of *folder* takes two spellings for one name; not when it takes none of such letters at all."""
    name = temporary_name(one)
    path = folder / name
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        try:
            return os.path.lexists(folder / name.replace(one, other, 1))
        finally:
            path.unlink()
    except (OSError, ValueError):  # nor can it be written there, or that will tell what is wrong
        return False


def _fold_letters(name: str) -> str:
    return name.upper() if name.isascii() else "".join(map(_folded, name))


def _folded(letter: str) -> str:
    upper = letter.upper()
    return letter if len(upper) > 1 else upper
