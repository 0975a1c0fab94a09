"""Which lines of a report were met again: a number for each, on disk as soon as they are many."""

from __future__ import annotations

import sqlite3
from collections.abc import Hashable, Iterable
from itertools import islice
from types import TracebackType
from typing import Self

__all__ = ["Identities"]

_CACHE_KIB = 16 * 1024
_BATCH = 50_000
"""Added at once, and in ascending order: numbers that arrive in no order would touch every page of the file."""


class Identities:
    """A set of identities that remembers which of them were met. Memory: 16 MiB, however many there are.

    Identities are told apart by 64 bits of their hash: of ten million, two are taken for one with a chance of three in
    a million. The file has no name and goes with the process; SQLite makes it where temporary files go. All methods
    block; one thread at a time may call them.
    """

    def __init__(self) -> None:
        # Without a name it is a temporary file, and stays in memory until the cache is full.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
            self._database.execute(f"PRAGMA {setting}").fetchall()
        self._database.execute("CREATE TABLE known (number INTEGER PRIMARY KEY, is_met INTEGER NOT NULL DEFAULT 0)")
        self._database.execute("BEGIN")  # and never committed: each commit would write what the cache may keep

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Forget all. Calling it again does nothing."""
        self._database.close()

    def add_all(self, identities: Iterable[Hashable]) -> None:
        """Add *identities*; those that are there stay as they are."""
        numbers = map(hash, identities)
        while batch := sorted(islice(numbers, _BATCH)):
            self._database.executemany(
                "INSERT OR IGNORE INTO known (number) VALUES (?)", ((number,) for number in batch)
            )

    def meet(self, identity: Hashable) -> bool:
        """Whether *identity* is in the set; if so, it counts as met from now on."""
        changed = self._database.execute("UPDATE known SET is_met = 1 WHERE number = ?", (hash(identity),))
        return changed.rowcount > 0

    def was_met(self, identity: Hashable) -> bool:
        """Whether `meet` was asked for *identity*, which is in the set."""
        found = self._database.execute("SELECT is_met FROM known WHERE number = ?", (hash(identity),)).fetchone()
        return found is not None and bool(found[0])

    def count_unmet(self) -> int:
        """Return how many were never met."""
        count: int = self._database.execute("SELECT count(*) FROM known WHERE NOT is_met").fetchone()[0]
        return count

    def __contains__(self, identity: Hashable) -> bool:
        found = self._database.execute("SELECT 1 FROM known WHERE number = ?", (hash(identity),)).fetchone()
        return found is not None
