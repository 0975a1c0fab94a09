"""From "the bytes are there" to an outcome: settled in batches, told to the callback, then handed to the consumer."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

import anyio

from asyncsdk.engine.config import TransferConfig
from asyncsdk.engine.feed import Feed, IterableFeed, WatchingFeed
from asyncsdk.engine.meter import Meter
from asyncsdk.engine.progress import OutcomeCallback
from asyncsdk.engine.strays import StrayCancelledError, no_strays, stray_failure
from asyncsdk.engine.transfers import Outcome
from asyncsdk.errors import ConfigError

__all__ = ["Settler"]


class Settler:
    """Collects what workers finished and settles it: when there is enough, when it waited long enough, at the end, or
    when nothing else is under way.

    Its task is shielded from cancellation, so that what is done gets settled though the run is not; the run bounds how
    long that may take.

    Args:
        is_idle: Whether nothing is under way: then waiting for a fuller batch has no use.
        on_failure: Told what `Feed.settle` or *on_outcome* raised.
        on_refused: Told what had arrived and failed when it was settled.
    """

    def __init__(
        self,
        feed: Feed,
        config: TransferConfig,
        meter: Meter,
        on_outcome: OutcomeCallback | None,
        *,
        is_idle: Callable[[], bool],
        on_failure: Callable[[Exception], None],
        on_refused: Callable[[Outcome], None],
    ) -> None:
        self._feed = feed
        self._config = config
        self._meter = meter
        self._on_outcome = on_outcome
        self._is_idle = is_idle
        self._on_failure = on_failure
        self._on_refused = on_refused
        self._arrived = feed.arrived if isinstance(feed, WatchingFeed) else None
        self._at_once = isinstance(feed, IterableFeed)  # nothing to commit, so nothing to collect for
        self._is_final = type(feed) is IterableFeed and on_outcome is None  # what is put is what is handed out
        self._batch: deque[Outcome] = deque()
        self._oldest = 0.0
        self._work_is_over = False
        self._scope = anyio.CancelScope(shield=True)
        self._wake = asyncio.Event()
        self._news = asyncio.Event()
        self.ready: deque[Outcome] = deque()
        self.data_bytes = 0
        self.has_ended = False
        self.is_settling = False  # the platform is committing

    def put(self, outcome: Outcome) -> None:
        """Take an outcome that is not final yet, unless there is nobody to settle it with or to be told."""
        if self._is_final and not self._batch and not self._meter.watch.is_heard:
            self._meter.count(outcome)
            self.ready.append(outcome)
            if outcome.data is not None:
                self.data_bytes += len(outcome.data)
            self._news.set()
            return
        if not self._batch:
            self._oldest = time.monotonic()
        self._batch.append(outcome)
        if self._arrived is not None and outcome.status == "done":
            self._arrived(outcome)
        if outcome.data is not None:
            self.data_bytes += len(outcome.data)
        self._wake.set()

    def work_is_over(self) -> None:
        """Nothing more will be put: settle what is left and end."""
        self._work_is_over = True
        self._wake.set()

    def stop(self) -> None:
        """End now, in the middle of a call if need be."""
        self._scope.cancel()

    async def run(self) -> None:
        """Settle until `work_is_over` and nothing is left, or until `stop`."""
        try:
            with self._scope:
                await self._settle_all()
        except StrayCancelledError as error:
            self._on_failure(stray_failure(error))
        except Exception as error:  # noqa: BLE001  # raised again, unchanged, where the caller iterates
            self._on_failure(error)
        finally:
            self.has_ended = True
            self._news.set()

    async def wait_ready(self) -> bool:
        """Wait for a final outcome in ``ready``; False: there will be none."""
        while not self.ready:
            if self.has_ended:
                return False
            self._news.clear()
            await self._news.wait()
        return True

    async def wait_end(self) -> None:
        """Wait until everything that was put has been settled."""
        while not self.has_ended:
            self._news.clear()
            await self._news.wait()

    async def _settle_all(self) -> None:
        watch = self._meter.watch
        while await self._is_due():
            count = min(len(self._batch), self._config.settle_size)
            batch = [self._batch.popleft() for _ in range(count)]
            self._oldest = time.monotonic()
            # Before the feed sees them: it may change them.
            taken_bytes, had_failed = _data_bytes(batch), [outcome.error is not None for outcome in batch]
            self.is_settling = not self._at_once
            with no_strays():
                settled = await self._feed.settle(batch)
            self.is_settling = False
            if len(settled) != len(batch):
                raise ConfigError(
                    f"{type(self._feed).__name__}.settle returned {len(settled)} outcomes for {len(batch)}"
                )
            for outcome, was_failed in zip(settled, had_failed, strict=True):
                self._meter.count(outcome)
                if outcome.error is not None and not was_failed:
                    self._on_refused(outcome)
                if watch.is_heard:
                    watch.settled(outcome)
                if self._on_outcome is not None:
                    with no_strays():
                        self._on_outcome(outcome)
                self.ready.append(outcome)
            # What is handed out is what counts, and the feed may have replaced it.
            self.data_bytes += _data_bytes(settled) - taken_bytes
            self._news.set()

    async def _is_due(self) -> bool:
        """Wait until there is a batch to settle; False: there will be none any more."""
        while True:
            self._wake.clear()
            if self._batch:
                left = self._oldest + self._config.settle_seconds - time.monotonic()
                full = len(self._batch) >= self._config.settle_size
                if full or left <= 0 or self._at_once or self._work_is_over or self._is_idle():
                    return True
                with anyio.move_on_after(left):
                    await self._wake.wait()
            elif self._work_is_over:
                return False
            else:
                await self._wake.wait()


def _data_bytes(outcomes: Sequence[Outcome]) -> int:
    return sum(len(outcome.data) for outcome in outcomes if outcome.data is not None)
