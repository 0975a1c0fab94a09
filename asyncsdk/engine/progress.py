"""What callers are told while a run goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from asyncsdk.engine.transfers import Outcome

__all__ = ["OutcomeCallback", "Progress", "ProgressCallback"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. Sent at most every 0.1 s, and once at the end.

    Attributes:
        done: Objects that arrived.
        skipped: Objects that needed no move.
        failed: Objects that did not arrive.
        active: Objects taken from the feed and not finished.
        bytes_done: Bytes that moved; goes back by the bytes of an attempt that failed.
        objects_total: Objects there will be, when known.
        bytes_total: Bytes there will be, when known.
        seconds: Since the run began.
        is_final: Whether this is the last event of the run.
    """

    done: int = 0
    skipped: int = 0
    failed: int = 0
    active: int = 0
    bytes_done: int = 0
    objects_total: int | None = None
    bytes_total: int | None = None
    seconds: float = 0.0
    is_final: bool = False

    @property
    def finished(self) -> int:
        """Objects with an outcome."""
        return self.done + self.skipped + self.failed


ProgressCallback = Callable[[Progress], None]
"""Called in the event loop by the async API, on the calling thread by the blocking one. What it raises ends the run."""

OutcomeCallback = Callable[[Outcome], None]
"""Called once for every outcome, where a `ProgressCallback` is called. What it raises ends the run."""
