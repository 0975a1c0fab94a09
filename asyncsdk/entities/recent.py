"""Remembering recent names in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["RecentNames"]


class RecentNames:
    """Tells whether a name came lately: exactly for the last *window* names at least, in memory for twice as many.

    Beyond the window a repeated path is an ordinary second upload, judged by ``on_existing``; within it, two uploads
    of one path could overtake each other.
    """

    def __init__(self, window: int = 50_000) -> None:
        self._window = window
        self._current: set[str] = set()
        self._previous: set[str] = set()

    def add(self, name: str) -> bool:
        """Remember *name*; False when it came lately."""
        if name in self._current or name in self._previous:
            return False
        self._current.add(name)
        if len(self._current) >= self._window:
            self._previous, self._current = self._current, set()
        return True

    def discard(self, names: Iterable[str]) -> None:
        """Forget *names*: they will be given again."""
        for name in names:
            self._current.discard(name)
            self._previous.discard(name)
