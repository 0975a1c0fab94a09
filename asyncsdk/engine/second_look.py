"""Uploads of files that are not as they were announced any more: the feed examines them anew, where settings say so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import anyio

from asyncsdk.engine.config import RetryPolicy, TransferConfig
from asyncsdk.engine.feed import ExaminingFeed, Feed
from asyncsdk.engine.retries import wait_before_next
from asyncsdk.engine.strays import no_strays
from asyncsdk.engine.transfers import Outcome, Transfer, Upload
from asyncsdk.engine.watching import Watch
from asyncsdk.errors import AsyncSDKError, ChecksumMismatch, SourceChanged

__all__ = ["SecondLook", "second_look"]


def second_look(feed: Feed, config: TransferConfig, watch: Watch) -> SecondLook | None:
    """Return who has changed files examined anew; None: nobody does, by the settings or because *feed* cannot."""
    if config.source_changed != "retry" or not isinstance(feed, ExaminingFeed):
        return None
    return SecondLook(feed, config.retry, watch)


class SecondLook:
    """Asks a feed for another transfer in place of an upload whose source changed, as often as the policy allows.

    Args:
        feed: Who is asked.
        policy: How often, and after which wait.
        watch: Told that it is tried again.
    """

    def __init__(self, feed: ExaminingFeed, policy: RetryPolicy, watch: Watch) -> None:
        self._feed = feed
        self._policy = policy
        self._watch = watch
        self._is_over = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._looks: dict[int, tuple[Upload, int]] = {}  # before each transfer, by its id

    def begin(self, replacing: Coroutine[Any, Any, None]) -> None:
        """Run *replacing*, a call of `replace`, beside everything else. From any callback of the event loop."""
        task = asyncio.get_running_loop().create_task(replacing, name="asyncsdk second look")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """End what is under way, and return when it has: what is not replaced by then has failed."""
        self._is_over = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        with anyio.CancelScope(shield=True):
            while tasks:
                # Told to end, they await nothing more. Cancelling this once more does not hurry it.
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait(tasks)
                tasks = [task for task in tasks if not task.done()]

    def is_due(self, outcome: Outcome) -> bool:
        """Whether the source of *outcome* is to be examined anew. Asked once for every outcome of an upload."""
        _, looks = self._looks.get(id(outcome.transfer), (None, 0))
        if looks + 1 < self._policy.max_attempts and not self._is_over and _is_other(outcome):
            return True
        self._looks.pop(id(outcome.transfer), None)
        return False

    async def replace(
        self, outcome: Outcome, admit: Callable[[Transfer], None], finish: Callable[[Outcome], None]
    ) -> None:
        """Hand *admit* what the feed gives in place of an upload; or *finish* the *outcome* that it has after all.

        The feed is asked after a wait. A failure of its own is the error then.
        """
        again: Transfer | None = None
        try:
            again = await self._ask(outcome)
        except AsyncSDKError as error:
            outcome.error = error
        finally:  # when it is cancelled, too
            if again is None:
                finish(outcome)
        if again is not None:
            admit(again)

    async def _ask(self, outcome: Outcome) -> Transfer | None:
        upload, error = outcome.transfer, outcome.error
        assert isinstance(upload, Upload)
        assert error is not None
        _, looks = self._looks.pop(id(upload), (None, 0))
        number = looks + 1
        wait = wait_before_next(self._policy, number, error)
        self._watch.retried(upload.name, number, wait, error)
        await anyio.sleep(wait)
        with no_strays():
            fresh = await self._feed.examine_again(upload)
        if isinstance(fresh, Upload):
            self._looks[id(fresh)] = fresh, number
        return fresh


def _is_other(outcome: Outcome) -> bool:
    """Whether an upload failed because its source is not, or perhaps not, what was announced."""
    upload, error = outcome.transfer, outcome.error
    if not isinstance(upload, Upload):
        return False
    # A checksum that was announced is of the bytes that the file had when it was looked at.
    return isinstance(error, SourceChanged) or (isinstance(error, ChecksumMismatch) and upload.crc32c is not None)
