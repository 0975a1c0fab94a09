"""One run of the engine: a feed pulled just in time, a fixed pool of workers, outcomes as they become final."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio.abc import TaskGroup

from asyncsdk.engine.deadline import Deadline
from asyncsdk.engine.draining import take_waiting
from asyncsdk.engine.endings import Endings
from asyncsdk.engine.express import Express
from asyncsdk.engine.feed import Feed, hurry
from asyncsdk.engine.meter import Meter
from asyncsdk.engine.pace import Pace
from asyncsdk.engine.parking import Parking
from asyncsdk.engine.performing import is_large
from asyncsdk.engine.progress import OutcomeCallback
from asyncsdk.engine.queues import Queues
from asyncsdk.engine.room import Room
from asyncsdk.engine.sampling import Counts, Sampler
from asyncsdk.engine.second_look import SecondLook, second_look
from asyncsdk.engine.settling import Settler
from asyncsdk.engine.strays import StrayCancelledError, is_stray, no_strays, stray_failure
from asyncsdk.engine.transfers import Download, Outcome, Refused, Skipped, Transfer, Upload
from asyncsdk.engine.work import Resources, Work
from asyncsdk.engine.workers import Workers
from asyncsdk.errors import AsyncSDKError, ConfigError, DeadlineExceeded, TransferError
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
        *,
        may_end_early: bool = True,
    ) -> None:
        self._may_end_early = may_end_early
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
        self._failure: Exception | None = None
        self._has_raised = False
        self._group: TaskGroup | None = None
        self._work_scope = anyio.CancelScope()
        self._ended_by: AsyncSDKError | None = None  # what ends it before its feed does
        self._second_look: SecondLook | None = None
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
            on_refused=self._judge,
        )
        self._second_look = second_look(self._feed, self._config, self.watch)
        # Though nothing moves any more by then: what arrived may wait for the platform to commit it.
        self._deadline = Deadline(self._config.deadline_seconds, partial(hurry, self._feed))
        self._endings = Endings(self._config)
        self._queues = queues = Queues(self._config)
        self._room = Room(self._config, self._pace, queues.waiting)
        origins = self._resources.limits.origins
        self._parking = queues.parking = Parking(
            origins,
            queues.place,
            lambda transfer, error: self._finish(self._start(transfer).failed(error)),
            partial(is_large, config=self._config),
        )
        self._workers = queues.workers = Workers(
            self._config,
            self.watch,
            origins=origins,
            parking=self._parking,
            guard=self._guard,
            start=self._start,
            hold_back=self._wait_for_consumer,
            finish=self._finish,
            on_pulled=self._room.look,
            on_taken_up=queues.taken_up,
            on_cancelled=self._was_cancelled,
        )
        transport = self._resources.transport
        if isinstance(transport, LeanTransport):
            self._express = queues.express = Express(
                transport,
                self._resources.limits,
                self._start,
                self._finish,
                queues.hand_over,
                self._room.look,
                self._fail,
                self._parking,
            )
        if self._resources.crew is not None:
            self._shift = queues.shift = self._resources.crew.shift(
                self._feed,
                self._meter,
                finish=self._finish,
                give_back=self._admit_again,
                on_pulled=self._room.look,
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
            self._room.open()
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
        await self._end(exc)
        if exc is None:
            self._raise_failure()
            if self._failure is None:
                self._meter.report_end()

    async def _end(self, exc: BaseException | None) -> None:
        """Cancel what is under way, settle what is done, and wait for both; *exc* is what the block itself raised."""
        assert self._group is not None
        hurry(self._feed)
        self._deadline.stop()
        self._stack.close()
        self._work_scope.cancel()
        try:
            with anyio.move_on_after(self._config.cleanup_seconds, shield=True):
                await self._settler.wait_end()
        finally:
            self._settler.stop()
            self._group.cancel_scope.cancel()
            try:
                await self._group.__aexit__(None, None, None)
            finally:
                self._meter.tell_end(is_complete=self.is_complete, error=self._failure or exc)

    def drain(self) -> bool:
        """Finish what is under way and take nothing new, then end. Returns whether anything is under way.

        What was taken from the feed and not begun has no outcome, as if the run had been cancelled (`is_complete`).
        """
        hurry(self._feed)
        has_begun = self._group is not None
        was_draining, self._is_draining = self._is_draining, True
        if has_begun and not was_draining:
            dropped = self._queues.drop()
            self._dropped += dropped
            self._unfinished -= dropped
            self._pending -= dropped
            self._meter.taken -= dropped
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
        waiting = self._queues.waiting()
        return Counts(
            queued=waiting.small + waiting.large,
            parked=len(self._parking),
            unfinished=self._unfinished,
            finished=self._meter.taken - self._unfinished,
            idle_elsewhere=self._shift.idle_places if self._shift is not None and self._shift.is_busy else None,
            is_settling=self._settler.is_settling,
            wants_more=not self._feed_has_ended and not self._is_draining,
        )

    def _raise_failure(self) -> None:
        if self._failure is None and not self.is_complete:
            self._failure = self._ended_by
        if self._failure is not None and not self._has_raised:
            self._has_raised = True
            raise self._failure

    # --- tasks -----------------------------------------------------------------------------------------------

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
        self._work_scope.cancel()
        hurry(self._feed)

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
                if self._second_look is not None:
                    await self._second_look.aclose()
                if self._deadline.is_over:
                    self._fail_what_waits()
                self._workers.end()
                self._parking.close()
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
            while not self._is_ending():
                want = await self._room.wait(lambda: self._pending)
                with no_strays():
                    transfers = await self._feed.take(want)
                if not transfers:
                    self._feed_has_ended = True
                    break
                self._room.took(transfers)
                for transfer in transfers:
                    if self._is_ending():
                        self._dropped += 1  # perhaps one of those before ended the run
                    else:
                        self._admit(transfer)
        self._close_when_done()

    def _is_ending(self) -> bool:
        return self._is_draining or self._ended_by is not None

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
        else:
            self._queues.place(transfer)

    def _admit_again(self, transfer: Transfer) -> None:
        """Take back a transfer that worker processes will not move after all, or what comes in place of another."""
        self._pending -= 1
        self._unfinished -= 1
        self._meter.taken -= 1
        self._admit(transfer)

    def _was_cancelled(self, work: Work) -> None:
        """Give *work* its outcome if the time was up in the middle of it."""
        if self._deadline.is_over and not self._work_scope.cancel_called:
            self._finish(self._deadline.failed(work))

    def _fail_what_waits(self) -> None:
        """Give everything an outcome that was taken from the feed and is with no worker."""
        for item in self._queues.take(self._fail):
            self._finish(self._deadline.failed(item if isinstance(item, Work) else self._start(item)))

    def _start(self, transfer: Upload | Download) -> Work:
        return Work(self._resources, transfer, self._feed, self._meter)

    async def _wait_for_consumer(self, transfer: Upload | Download) -> None:
        """Hold downloads into memory back while a quarter of the budget waits for the consumer already."""
        if isinstance(transfer, Download) and transfer.sink is None:
            while self._settler.data_bytes > self._resources.budget.limit_bytes // 4:
                await self._room.news()

    def _finish(self, outcome: Outcome, *, counts: bool = True, is_final: bool = False) -> None:
        look = self._second_look
        if look is not None and not is_final and not self._is_draining and look.is_due(outcome):
            finish = partial(self._finish, is_final=True)
            look.begin(self._guard(partial(look.replace, outcome, self._admit_again, finish)))
            return
        self._unfinished -= 1
        if counts:
            self._pace.finished()
        self._settler.put(outcome)
        self._judge(outcome)
        if not self._unfinished:
            self._close_when_done()

    def _judge(self, outcome: Outcome) -> None:
        """End the run before its feed does if, after *outcome*, going on would only make failures."""
        may_end = self._may_end_early and not self._is_draining and self._ended_by is None
        error = self._endings.saw(outcome) if may_end else None
        if error is not None:
            self._ended_by = error
            # In the next turn: what was put aside for a server that is given up has failed by then.
            asyncio.get_running_loop().call_soon(self.drain)

    def _close_when_done(self) -> None:
        if (self._feed_has_ended or self._is_draining) and self._unfinished == 0:
            self._workers.close()
