"""One run of the engine: a feed pulled just in time, a fixed pool of workers, outcomes as they become final."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup

from asyncsdk.engine.downloads import LargeObject
from asyncsdk.engine.express import Express
from asyncsdk.engine.feed import Feed
from asyncsdk.engine.lanes import Lane
from asyncsdk.engine.meter import Meter
from asyncsdk.engine.pace import Pace
from asyncsdk.engine.performing import is_large, perform, perform_large
from asyncsdk.engine.progress import OutcomeCallback
from asyncsdk.engine.settling import Settler
from asyncsdk.engine.strays import StrayCancelledError, is_stray, no_strays, stray_failure
from asyncsdk.engine.transfers import Download, Outcome, Refused, Skipped, Transfer, Upload
from asyncsdk.engine.work import Resources, Work
from asyncsdk.errors import AsyncSDKError, ConfigError, TransferError
from asyncsdk.transport.lean import LeanTransport

__all__ = ["Run"]


class Run(AsyncIterator[Outcome]):
    """An asynchronous context manager that gives an asynchronous iterator of outcomes: itself.

    Its tasks live from entering to leaving the block. They keep their errors to themselves: what ends the run is raised
    where the outcomes are iterated (or, when they no longer are, at the end of the block), unchanged and in no group.
    So is what the block itself raises. Leaving it early cancels what is under way; what is done already is settled,
    within ``cleanup_seconds``.

    Transfers taken from the feed and not yet handed to the caller are at most ``max_pending``: a slow consumer slows
    the feed down.
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
        self._on_outcome = on_outcome
        self._small: Lane[Work | Upload | Download] = Lane()
        self._express: Express | None = None
        self._large: Lane[tuple[Work | Upload | Download, LargeObject | None]] = Lane()
        self._pace = Pace()
        self._pending = 0  # taken and not yet handed to the consumer
        self._unfinished = 0  # taken and without an outcome
        self._feed_has_ended = False
        self._room = asyncio.Event()
        self._failure: Exception | None = None
        self._has_raised = False
        self._group: TaskGroup | None = None
        self._work_scope = anyio.CancelScope()

    # --- the caller's side -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._group is not None:
            raise ConfigError("a run can be entered only once; call engine.run again")
        self._resources = self._open_resources()
        self._config = self._resources.config
        self._settler = Settler(
            self._feed,
            self._config,
            self._meter,
            self._on_outcome,
            is_idle=lambda: self._unfinished == 0,
            on_failure=self._fail,
        )
        transport = self._resources.transport
        if isinstance(transport, LeanTransport):
            self._express = Express(
                transport,
                self._resources.slots,
                self._start,
                self._finish,
                self._hand_over,
                self._pulled,
                self._fail,
                concurrency=self._config.concurrency,
            )
        self._group = group = anyio.create_task_group()
        await group.__aenter__()
        # Nothing is awaited from here on. (`group.start` would wait for ever when cancelled: the settler is shielded.)
        group.start_soon(self._settler.run)
        group.start_soon(self._work)
        group.start_soon(self._guard, self._meter.report_forever)
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
        if not self._has_raised and (self._unfinished or not self._feed_has_ended):
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
        self._work_scope.cancel()
        try:
            with anyio.move_on_after(self._config.cleanup_seconds, shield=True):
                await self._settler.wait_end()
        finally:
            self._settler.stop()
            self._group.cancel_scope.cancel()
            await self._group.__aexit__(None, None, None)

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
            with self._work_scope:
                async with anyio.create_task_group() as group:
                    group.start_soon(self._guard, self._take_all)
                    for _ in range(self._config.concurrency):
                        group.start_soon(self._guard, self._move_small)
                    for _ in range(self._config.large_objects):
                        group.start_soon(self._guard, self._move_large)
        finally:
            try:
                if self._express is not None:
                    await self._express.aclose()
                self._discard_waiting()
            finally:
                self._settler.work_is_over()

    def _discard_waiting(self) -> None:
        """Close and remove what belongs to transfers that were begun and now wait for a worker that will not come."""
        for item in self._small.drain():
            if isinstance(item, Work):
                item.discard()
        for _, found in self._large.drain():
            if found is not None:
                try:
                    found.discard()
                except AsyncSDKError as error:  # the others are to be removed all the same
                    self._fail(error)

    async def _take_all(self) -> None:
        while True:
            await self._wait_for_room()
            want = min(self._pace.want, self._config.max_pending - self._pending)
            with no_strays():
                transfers = await self._feed.take(want)
            if not transfers:
                break
            for transfer in transfers:
                self._admit(transfer)
        self._feed_has_ended = True
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
        elif is_large(transfer, self._config):
            self._large.put((transfer, None))
        elif self._express is not None and self._express.takes(transfer):
            self._express.put(transfer)
        else:
            self._small.put(transfer)

    def _waiting(self) -> int:
        """Small transfers that nobody has begun."""
        return len(self._small) + (0 if self._express is None else len(self._express))

    def _pulled(self) -> None:
        if self._waiting() <= self._pace.want // 2:
            self._room.set()

    def _hand_over(self, work: Work, found: LargeObject | None) -> None:
        if found is None:
            # While workers are busy trying again, the express lane adds nothing to what they have to do.
            assert self._express is not None
            self._express.held += 1
            self._small.put(work)
        else:
            self._large.put((work, found))

    def _take_up(self, work: Work) -> Work:
        assert self._express is not None
        self._express.held -= 1
        if not self._express.held:
            self._express.resume()
        return work

    async def _move_small(self) -> None:
        while (item := await self._small.get()) is not None:
            self._pulled()
            work = self._take_up(item) if isinstance(item, Work) else self._start(item)
            await self._wait_for_consumer(work.transfer)
            result = await perform(work)
            if isinstance(result, Outcome):
                self._finish(result)
            else:
                self._large.put((work, result))

    async def _move_large(self) -> None:
        while (item := await self._large.get()) is not None:
            given, found = item
            work = given if isinstance(given, Work) else self._start(given)
            await self._wait_for_consumer(work.transfer)
            self._finish(await perform_large(work, found))

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
        self._close_when_done()

    def _close_when_done(self) -> None:
        if self._feed_has_ended and self._unfinished == 0:
            self._small.close()
            self._large.close()
