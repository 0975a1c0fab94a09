"""Metrics that wait to be sent: in memory up to a bound, the oldest in a file beyond it. For any number of threads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from asyncsdk.entities.metric_files import KeptFile, Measured
from asyncsdk.errors import AsyncSDKError, ConfigError

__all__ = ["MetricBuffer"]

_log = logging.getLogger(__name__)

_SPILL = 10_000
"""Values that go to the file at once, half of all at most: 25 ms of CPU in the call that meets the bound."""


class MetricBuffer:
    """What was logged and not yet sent, oldest first. Of two values for a series and step the newer one counts.

    One sender takes a batch, and says whether it was `sent` or `failed`. When memory is full, the oldest go to a file:
    what is under way first, so that the file is always older than the memory and the order is kept.

    Args:
        folder: Where the file is made when one is needed.
        max_pending: Values in memory at most; not counted is a batch under way that the file holds, too.
    """

    def __init__(self, folder: Path, max_pending: int) -> None:
        self._folder = folder
        self._max_pending = max_pending
        self._lock = threading.Lock()
        self._pending: dict[tuple[str, int | None], Measured] = {}
        self._batch: Sequence[Measured] = ()
        self._is_batch_from_file = False
        self._is_batch_kept = False
        self._file: KeptFile | None = None
        self._turn = 0
        self._is_closed = False
        self._is_over = False
        self._is_noticed = False
        self._last_ms = 0
        self._lost = 0

    @property
    def pending(self) -> int:
        """How many wait in memory, those under way too."""
        with self._lock:
            return len(self._pending) + len(self._only_under_way)

    @property
    def kept(self) -> int:
        """How many wait in the file."""
        return 0 if self._file is None else self._file.count

    @property
    def lost(self) -> int:
        """How many were lost because memory was full and the file could not be written."""
        return self._lost

    @property
    def path(self) -> Path | None:
        """The file they wait in; None when none wait in one."""
        return self._file.path if self._file is not None and self._file.count else None

    @property
    def _only_under_way(self) -> Sequence[Measured]:
        """What is under way and in no file."""
        return () if self._is_batch_from_file or self._is_batch_kept else self._batch

    def put(self, values: Iterable[tuple[str, int | None, float]]) -> bool:
        """Take values measured now; whether the sender must be woken.

        Raises:
            ConfigError: It is closed.
        """
        with self._lock:
            if self._is_closed:
                raise ConfigError("this block of batched metrics has ended; log with: await model.metrics.log(...)")
            # Never back: a clock that is set back must not make a newer value look older.
            self._last_ms = now_ms = max(time.time_ns() // 1_000_000, self._last_ms)
            for name, step, value in values:
                self._pending.pop((name, step), None)  # to the end: the order is that of the newest values
                self._pending[name, step] = Measured(name, step, value, now_ms)
            while self._pending and len(self._pending) + len(self._only_under_way) > self._max_pending:
                self._spill()
            must_wake, self._is_noticed = not self._is_noticed, True
            return must_wake

    def next_turn(self) -> int:
        """Return a number for a `take` in another thread: when that comes to its turn after another one, it is void."""
        with self._lock:
            self._turn += 1
            return self._turn

    def take(self, count: int, turn: int | None = None) -> Sequence[Measured]:
        """Return the oldest values, at most *count*; empty when there are none. `sent` or `failed` must follow.

        Raises:
            DestinationUnwritable: The file cannot be read.
        """
        with self._lock:
            # A thread goes on when whoever waits for it is cancelled: its batch, which nobody sends, must change
            # nothing for the batch that was taken meanwhile.
            if self._is_over or (turn is not None and turn != self._turn):
                return ()
            self._is_noticed = False
            self._is_batch_kept = False
            self._is_batch_from_file = self._file is not None and self._file.count > 0
            if self._file is not None and self._is_batch_from_file:
                self._batch = self._file.read(count)
            else:
                self._batch = [self._pending.pop(key) for key in list(islice(self._pending, count))]
            return self._batch

    def sent(self) -> None:
        """The batch arrived."""
        with self._lock:
            if self._is_over:
                return
            if self._is_batch_from_file and self._file is not None:
                self._file.advance()
            self._batch = ()

    def failed(self) -> None:
        """The batch did not arrive, as far as is known: it is taken again, before everything else."""
        with self._lock:
            if self._is_over:
                return
            newer = self._pending
            again = {(one.name, one.step): one for one in self._only_under_way if (one.name, one.step) not in newer}
            self._pending = {**again, **newer}
            self._batch = ()
            self._is_noticed = True  # the sender comes back by itself

    def close(self) -> None:
        """Take nothing more."""
        with self._lock:
            self._is_closed = True

    def keep(self) -> int:
        """Put everything that is left into the file and close that; an empty one is removed.

        A batch that is still under way is left, too: nobody waits for what becomes of it.

        Returns:
            How many values the file holds.
        """
        with self._lock:
            left = [*self._only_under_way, *self._pending.values()]
            self._is_closed = self._is_over = True
            self._batch, self._pending = (), {}
            if not self._is_written(left):
                self._lost += len(left)
            if self._file is None:
                return 0
            try:
                self._file.close()
            except AsyncSDKError as error:
                _log.warning("the file holds values that were sent, too; sending them again changes nothing: %s", error)
            return self._file.count

    def _spill(self) -> None:
        """Make room: what is under way, then the oldest, go to the file."""
        under_way = self._only_under_way
        oldest = list(islice(self._pending.values(), max(1, min(len(self._pending) // 2, _SPILL))))
        if self._is_written([*under_way, *oldest]):
            self._is_batch_kept = self._is_batch_kept or bool(under_way)
        else:  # what is under way may arrive, or goes back to memory
            self._lost += len(oldest)
        for one in oldest:
            del self._pending[one.name, one.step]

    def _is_written(self, values: Sequence[Measured]) -> bool:
        if not values:
            return True
        try:
            if self._file is None:
                self._file = KeptFile.create(self._folder)
            self._file.append(values)
        except AsyncSDKError as error:
            # Memory is bounded, and the program that logs goes on; whoever ends the block is told.
            _log.error("metrics that memory has no room for are lost, the file cannot be written: %s", error)
            return False
        return True
