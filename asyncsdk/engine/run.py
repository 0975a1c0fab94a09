"""One run of the engine: a feed pulled just in time, a fixed pool of workers, outcomes as they become final."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio.abc import TaskGroup

from asyncsdk.engine.deadline import Deadline
from asyncsdk.engine.downloads import LargeObject
from asyncsdk.engine.draining import drop_waiting, take_waiting
from asyncsdk.engine.express import Express
from asyncsdk.engine.feed import Feed
from asyncsdk.engine.meter import Meter
from asyncsdk.engine.pace import Pace
from asyncsdk.engine.performing import is_large
from asyncsdk.engine.progress import OutcomeCallback
from asyncsdk.engine.sampling import Counts, Sampler
from asyncsdk.engine.settling import Settler
from asyncsdk.engine.strays import StrayCancelledError, is_stray, no_strays, stray_failure
from asyncsdk.engine.transfers import Download, Outcome, Refused, Skipped, Transfer, Upload
from asyncsdk.engine.work import Resources, Work
from asyncsdk.engine.workers import Workers
from asyncsdk.errors import ConfigError, DeadlineExceeded, TransferError
from asyncsdk.transport.lean import LeanTransport

if TYPE_CHECKING:
    from asyncsdk.engine.crew.shift import Shift

__all__ = ["Run"]


class Run(AsyncIterator[Outcome]):
    """An asynchronous context manager that gives an asynchronous iterator of outcomes: itself.

    Its tasks live from entering to leaving the block. They keep their errors to themselves: what ends the run is raised
    where the outcomes are iterated (or, when they no longer are, at the end of the block), unchanged and in no group.
    So is what the block itself raises. Leaving it early cancels what is under way; what is done already is settled,
    within ``cleanup_seconds``.

    Transfers taken from the feed and not yet handed to the caller are at most ``max_pending``: a slow consumer slows
    the feed down.

    Attributes:
        watch: What it waits for.
    """

    def __init__(
        self,
        resources: Callable[[], Resources],
        feed: Feed,
        meter: Meter,
        on_outcome: OutcomeCallback | None,
    ) -> None:
        self._open_resources = resources
        self._feed = feed
        self._meter = meter
        self.watch = meter.watch
        self._on_outcome = on_outcome
        self._express: Express | None = None
        self._shift: Shift | None = None  # None: nobody else moves anything
        self._pace = Pace()
        self._pending = 0  # taken and not yet handed to the consumer
        self._unfinished = 0  # taken and without an outcome
        self._feed_has_ended = False
        self._is_draining = False
        self._dropped = 0  # taken and, because of that, never begun
        self._take_scope = anyio.CancelScope()
        self._room = asyncio.Event()
        self._failure: Exception | None = None
        self._has_raised = False
        self._group: TaskGroup | None = None
        self._work_scope = anyio.CancelScope()
        self._stack = ExitStack()

    # --- the caller's side -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._group is not None:
            raise ConfigError("a run can be entered only once; call engine.run again")
        resources = self._open_resources()
        self._resources = replace(resources, retries=resources.limits.retry_budget())
        self._config = self._resources.config
        self._settler = Settler(
            self._feed,
            self._config,
            self._meter,
            self._on_outcome,
            is_idle=lambda: self._unfinished == 0,
            on_failure=self._fail,
        )
        self._deadline = Deadline(self._config.deadline_seconds)
        self._workers = Workers(
            self._config,
            self.watch,
            guard=self._guard,
            start=self._start,
            hold_back=self._wait_for_consumer,
            finish=self._finish,
            on_pulled=self._pulled,
            on_taken_up=self._taken_up,
            on_cancelled=self._was_cancelled,
        )
        transport = self._resources.transport
        if isinstance(transport, LeanTransport):
            self._express = Express(
                transport,
                self._resources.limits,
                self._start,
                self._finish,
                self._hand_over,
                self._pulled,
                self._fail,
            )
        if self._resources.crew is not None:
            self._shift = self._resources.crew.shift(
                self._feed,
                self._meter,
                finish=self._finish,
                give_back=self._admit_again,
                on_pulled=self._pulled,
                on_failure=self._fail,
                guard=self._guard,
            )
        self.watch.on_failure = self._fail
        self._meter.tell_start(self._config.concurrency)
        sampler = Sampler(self.watch, self._counts, self._express, transport, self._resources.limits)
        self._group = group = anyio.create_task_group()
        await group.__aenter__()
        # Nothing is awaited from here on. (`group.start` would wait for ever when cancelled: the settler is shielded.)
        self._stack.enter_context(self._resources.limits.pilot.at_work())
        self._deadline.begin()
        group.start_soon(self._settler.run)
        group.start_soon(self._work)
        group.start_soon(self._guard, self._meter.report_forever)
        group.start_soon(self._guard, sampler.run)
        return self

    async def __anext__(self) -> Outcome:
        if self._group is None:
            raise ConfigError("outcomes are there inside of `async with engine.run(...) as outcomes`")
        ready = self._settler.ready
        if ready or await self._settler.wait_ready():
            outcome = ready.popleft()
            self._pending -= 1
            if outcome.data is not None:
                self._settler.data_bytes -= len(outcome.data)
            self._room.set()
            return outcome
        self._raise_failure()
        if not self._has_raised and (self._unfinished or not (self._feed_has_ended or self._is_draining)):
            # Whatever ended it: an end without a word would look like success.
            self._fail(TransferError("the run ended before everything in its feed had an outcome; run it again"))
            self._raise_failure()
        self._meter.report_end()
        raise StopAsyncIteration

    def __aiter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._end()
        if exc is None:
            self._raise_failure()
            if self._failure is None:
                self._meter.report_end()

    async def _end(self) -> None:
        """Cancel what is under way, settle what is done, and wait for both."""
        assert self._group is not None
        self._deadline.stop()
        self._stack.close()
        self._work_scope.cancel()
        try:
            with anyio.move_on_after(self._config.cleanup_seconds, shield=True):
                await self._settler.wait_end()
        finally:
            self._settler.stop()
            self._group.cancel_scope.cancel()
            await self._group.__aexit__(None, None, None)
            self._meter.tell_end(is_complete=self.is_complete, error=self._failure)

    def drain(self) -> bool:
        """Finish what is under way and take nothing new, then end. Returns whether anything is under way.

        What was taken from the feed and not begun has no outcome, as if the run had been cancelled (`is_complete`).
        """
        has_begun = self._group is not None
        was_draining, self._is_draining = self._is_draining, True
        if has_begun and not was_draining:
            self._dropped = drop_waiting(self._express, self._shift, self._workers.small, self._workers.large)
            self._unfinished -= self._dropped
            self._pending -= self._dropped
            self._meter.taken -= self._dropped
            self.watch.drained(self._unfinished, self._dropped)
        self._take_scope.cancel()
        if has_begun:
            self._close_when_done()
        return has_begun and not self._settler.has_ended

    @property
    def is_complete(self) -> bool:
        """Whether everything in the feed has an outcome. To be asked at the end."""
        return self._feed_has_ended and not self._unfinished and not self._dropped

    def _counts(self) -> Counts:
        return Counts(
            queued=self._waiting() + len(self._workers.large),
            unfinished=self._unfinished,
            finished=self._meter.taken - self._unfinished,
            idle_elsewhere=self._shift.idle_places if self._shift is not None and self._shift.is_busy else None,
            is_settling=self._settler.is_settling,
            wants_more=not self._feed_has_ended and not self._is_draining,
        )

    def _raise_failure(self) -> None:
        if self._failure is not None and not self._has_raised:
            self._has_raised = True
            raise self._failure

    # --- tasks -----------------------------------------------------------------------------------------------

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
        self._work_scope.cancel()

    async def _guard(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await function()
        except StrayCancelledError as error:
            self._fail(stray_failure(error))
        except asyncio.CancelledError as error:
            if self._work_scope.cancel_called or not is_stray():
                raise
            self._fail(stray_failure(error))
        except Exception as error:  # noqa: BLE001  # raised again, unchanged, where the caller iterates
            self._fail(error)

    async def _work(self) -> None:
        try:
            with self._work_scope, self._deadline.scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._guard, self._take_all)
                    self._workers.begin(group)
        finally:
            try:
                if self._deadline.is_over:
                    self._fail_what_waits()
                if self._express is not None:
                    await self._express.aclose()
                take_waiting(None, self._workers.small, self._workers.large, self._fail)  # nobody goes on with it
                if self._shift is not None:
                    await self._shift.aclose()
                    if self._deadline.is_over:
                        for transfer in self._shift.left():
                            self._finish(self._deadline.failed(self._start(transfer)))
                if self._deadline.is_over and not (self._feed_has_ended and self._unfinished == 0):
                    self._fail(DeadlineExceeded("the time for this run is over, and not all of its feed was begun"))
            finally:
                self._settler.work_is_over()

    async def _take_all(self) -> None:
        with self._take_scope:
            while not self._is_draining:
                await self._wait_for_room()
                want = min(self._pace.want, self._config.max_pending - self._pending)
                with no_strays():
                    transfers = await self._feed.take(want)
                if not transfers:
                    self._feed_has_ended = True
                    break
                for transfer in transfers:
                    self._admit(transfer)
        self._close_when_done()

    async def _wait_for_room(self) -> None:
        """Wait until about half of what the feed would be asked for is needed: fewer, fuller calls."""
        while True:
            want = self._pace.want
            free = self._config.max_pending - self._pending
            if self._waiting() <= want // 2 and free >= max(1, min(want, self._config.max_pending) // 2):
                return
            self._room.clear()
            await self._room.wait()

    def _admit(self, transfer: Transfer) -> None:
        self._pending += 1
        self._unfinished += 1
        self._meter.taken += 1
        if isinstance(transfer, Skipped):
            self._finish(
                Outcome(transfer, "skipped", size_bytes=transfer.size_bytes, reply=transfer.reply), counts=False
            )
        elif isinstance(transfer, Refused):
            self._finish(Outcome(transfer, "failed", error=transfer.error), counts=False)
        elif not isinstance(transfer, (Upload, Download)):
            raise ConfigError(f"a feed gives uploads, downloads, skipped or refused, not {type(transfer).__name__}")
        elif self._shift is not None and self._shift.takes(transfer):
            self._shift.put(transfer)
        elif self._express is not None and self._express.takes(transfer, self._config):
            self._express.put(transfer)
        elif is_large(transfer, self._config):
            self._workers.put_large(transfer, None)
        else:
            self._workers.put_small(transfer)

    def _admit_again(self, transfer: Upload | Download) -> None:
        """Take back a transfer that worker processes will not move after all."""
        self._pending -= 1
        self._unfinished -= 1
        self._meter.taken -= 1
        self._admit(transfer)

    def _waiting(self) -> int:
        """Small transfers that nobody has begun."""
        small, express, shift = self._workers.small, self._express, self._shift
        return len(small) + (0 if express is None else len(express)) + (0 if shift is None else len(shift))

    def _pulled(self) -> None:
        if self._waiting() <= self._pace.want // 2:
            self._room.set()

    def _hand_over(self, work: Work, found: LargeObject | None) -> None:
        if found is None:
            # While workers are busy trying again, the express lane adds nothing to what they have to do.
            assert self._express is not None
            self._express.held += 1
            self._workers.put_small(work)
        else:
            self._workers.put_large(work, found)

    def _taken_up(self) -> None:
        assert self._express is not None
        self._express.held -= 1
        if not self._express.held:
            self._express.resume()

    def _was_cancelled(self, work: Work) -> None:
        """Give *work* its outcome if the time was up in the middle of it."""
        if self._deadline.is_over and not self._work_scope.cancel_called:
            self._finish(self._deadline.failed(work))

    def _fail_what_waits(self) -> None:
        """Give everything an outcome that was taken from the feed and is with no worker."""
        for item in take_waiting(self._express, self._workers.small, self._workers.large, self._fail):
            self._finish(self._deadline.failed(item if isinstance(item, Work) else self._start(item)))

    def _start(self, transfer: Upload | Download) -> Work:
        return Work(self._resources, transfer, self._feed, self._meter)

    async def _wait_for_consumer(self, transfer: Upload | Download) -> None:
        """Hold downloads into memory back while a quarter of the budget waits for the consumer already."""
        if isinstance(transfer, Download) and transfer.sink is None:
            while self._settler.data_bytes > self._resources.budget.limit_bytes // 4:
                self._room.clear()
                await self._room.wait()

    def _finish(self, outcome: Outcome, *, counts: bool = True) -> None:
        self._unfinished -= 1
        if counts:
            self._pace.finished()
        self._settler.put(outcome)
        if not self._unfinished:
            self._close_when_done()

    def _close_when_done(self) -> None:
        if (self._feed_has_ended or self._is_draining) and self._unfinished == 0:
            self._workers.close()
