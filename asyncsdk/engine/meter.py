"""Counting what a run moved, and telling the caller at a bearable rate."""

from __future__ import annotations

import time

import anyio

from asyncsdk.engine.progress import Progress, ProgressCallback
from asyncsdk.engine.transfers import Outcome
from asyncsdk.engine.watching import Watch

__all__ = ["Meter"]

_INTERVAL_SECONDS = 0.1


class Meter:
    """Counts of one run. Counting never calls the caller: transports count in the middle of a request.

    Args:
        on_progress: Told at most every 0.1 s by `report_forever`, and once by `report_end`.
        watch: What the run waits for, and who is told of its events; None: nobody.
    """

    def __init__(
        self,
        on_progress: ProgressCallback | None = None,
        *,
        objects_total: int | None = None,
        bytes_total: int | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.watch = watch or Watch()
        self._on_progress = on_progress
        self._objects_total = objects_total
        self._bytes_total = bytes_total
        self._started = time.monotonic()
        self._told: tuple[int, ...] = ()
        self._has_ended = False
        self.done = 0
        self.skipped = 0
        self.failed = 0
        self.taken = 0
        self.bytes_moved = 0

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return time.monotonic() - self._started

    def count(self, outcome: Outcome) -> None:
        """Count an outcome that is final."""
        if outcome.error is not None:
            self.failed += 1
        elif outcome.status == "skipped":
            self.skipped += 1
        else:
            self.done += 1

    async def report_forever(self) -> None:
        """Tell the caller whenever something moved, until `report_end` or a cancellation."""
        if self._on_progress is None:
            return
        while True:
            await anyio.sleep(_INTERVAL_SECONDS)
            if self._has_ended:  # a cancellation does not stop whom the clock has just woken
                return
            state = (self.done, self.skipped, self.failed, self.taken, self.bytes_moved)
            if state != self._told:
                self._told = state
                self._on_progress(self._snapshot(is_final=False))

    def tell_start(self, concurrency: int | str) -> None:
        """Tell whoever listens that the run begins."""
        self.watch.run_started(concurrency, self._objects_total, self._bytes_total)

    def tell_end(self, *, is_complete: bool, error: BaseException | None) -> None:
        """Tell whoever listens that the run is over."""
        self.watch.run_ended(
            done=self.done,
            skipped=self.skipped,
            failed=self.failed,
            bytes_done=self.bytes_moved,
            seconds=self.seconds,
            is_complete=is_complete,
            error=error,
        )

    def report_end(self) -> None:
        """Tell the caller for the last time. Calling it again does nothing."""
        if self._on_progress is not None and not self._has_ended:
            self._has_ended = True
            self._on_progress(self._snapshot(is_final=True))

    def _snapshot(self, *, is_final: bool) -> Progress:
        return Progress(
            done=self.done,
            skipped=self.skipped,
            failed=self.failed,
            active=self.taken - self.done - self.skipped - self.failed,
            bytes_done=self.bytes_moved,
            objects_total=self._objects_total,
            bytes_total=self._bytes_total,
            seconds=self.seconds,
            is_final=is_final,
        )
