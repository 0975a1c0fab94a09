"""Which paths a listing of patterns means.

Patterns are those of `pathlib`: ``*`` and ``?`` and ``[...]`` within one name, ``**`` for any number of folders. A
pattern matches from the right, as `PurePath.match`: ``*.jpg`` means every such file, ``train/*.jpg`` those directly in
a folder ``train`` at any depth; a leading ``/`` ties it to the top. Case matters.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence

from asyncsdk.errors import ConfigError

__all__ = ["PathFilter"]


class PathFilter:
    """Decides by include and exclude patterns.

    Args:
        include: A path must match one of these; none given: every path does.
        exclude: A path that matches one of these is left out, and with a folder everything below it.
    """

    def __init__(self, include: Sequence[str] | None = None, exclude: Sequence[str] | None = None) -> None:
        self._include = _compile(include, "include")
        self._exclude = _compile(exclude, "exclude")

    def keeps(self, path: str) -> bool:
        """Whether the file *path* (POSIX, relative) is meant."""
        if self._include is not None and not self._include.match(path):
            return False
        return self._exclude is None or not self._excluded(path)

    def enters(self, folder: str) -> bool:
        """Whether anything below *folder* can be meant."""
        return self._exclude is None or not self._exclude.match(folder)

    def _excluded(self, path: str) -> bool:
        assert self._exclude is not None
        if self._exclude.match(path):
            return True
        return any(self._exclude.match(folder) for folder in _folders_of(path))


def _folders_of(path: str) -> Iterable[str]:
    position = path.find("/")
    while position >= 0:
        yield path[:position]
        position = path.find("/", position + 1)


def _compile(patterns: Sequence[str] | None, name: str) -> re.Pattern[str] | None:
    if patterns is None:
        return None
    if isinstance(patterns, str):
        raise ConfigError(f"{name} takes a list of patterns, not one text: [{patterns!r}]")
    if not patterns:
        return None
    return re.compile("|".join(_translate(pattern) for pattern in patterns), re.DOTALL)


def _translate(pattern: str) -> str:
    anchored = pattern.startswith("/")
    segments = [segment for segment in pattern.split("/") if segment not in {"", "."}]
    if not segments:
        raise ConfigError(f"{pattern!r} is no pattern")
    pieces = []
    for index, segment in enumerate(segments):
        is_last = index == len(segments) - 1
        if segment == "**":
            pieces.append(r"[^/]+(?:/[^/]+)*" if is_last else r"(?:[^/]+/)*")
        else:
            # fnmatch writes its own wildcards for "/" too; within one name they must stop there.
            pieces.append(_segment(segment) + ("" if is_last else "/"))
    start = "" if anchored else r"(?:.*/)?"
    return rf"(?:{start}{''.join(pieces)}\Z)"


def _segment(segment: str) -> str:
    result = []
    position = 0
    while position < len(segment):
        character = segment[position]
        position += 1
        if character == "*":
            result.append("[^/]*")
        elif character == "?":
            result.append("[^/]")
        elif character == "[" and (end := segment.find("]", position + 1)) >= 0:
            # The class itself is what fnmatch makes of it: it knows negation, ranges and escapes.
            translated = fnmatch.translate(segment[position - 1 : end + 1])  # (?s:[...])\Z
            result.append(translated[len("(?s:") : translated.rindex(")")])
            position = end + 1
        else:
            result.append(re.escape(character))
    return "".join(result)
