"""A worker process: an ordinary engine that moves what its parent gives it, and knows neither platform nor token.

Started by `processes.Member` with pipes in place of standard input and output. It obeys them alone: Ctrl-C at a
terminal is for the parent. At the end of its pipe (its parent has ended, in whatever way) it cancels what is under way,
removes what that left, and ends.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import anyio

from asyncsdk.engine.config import TransferConfig
from asyncsdk.engine.crew.channel import Channel
from asyncsdk.engine.crew.wire import end_of, error_of, pack_error, pack_outcome, transfer_of
from asyncsdk.engine.engine import Engine
from asyncsdk.engine.feed import ANOTHER_UPLOAD
from asyncsdk.engine.meter import Meter
from asyncsdk.engine.progress import Progress
from asyncsdk.engine.run import Run
from asyncsdk.engine.temporaries import use_mark
from asyncsdk.engine.transfers import Download, Outcome, Transfer, Upload
from asyncsdk.engine.waits import WaitReason
from asyncsdk.engine.watching import Watch
from asyncsdk.errors import AsyncSDKError
from asyncsdk.loops import new_event_loop
from asyncsdk.targets import Origin, Target

__all__ = ["main"]

_logger = logging.getLogger("asyncsdk.engine")

_ORPHANED_SECONDS = 3.0
"""How long what is under way may take to clean up when the parent is gone."""


_RETRIES_SECONDS = 0.1
_MOST_RETRIES = 64
"""When a server refuses everything, thousands of requests a second are tried again: they are told in batches."""

_NOT_OURS = frozenset({WaitReason.FEED, WaitReason.COMMIT})
"""What only the parent can tell from each other: here, either means that it gave nothing."""


class _Watch(Watch):
    """Notes that something is tried again, for the parent to tell."""

    __slots__ = ("_retried",)

    def __init__(self, retried: Callable[[tuple[Any, ...]], None]) -> None:
        super().__init__()
        self._retried = retried

    def retried(self, name: str, attempt: int, wait_seconds: float, error: AsyncSDKError) -> None:
        """Note it."""
        self._retried((name, attempt, wait_seconds, error))


class _Rows:
    """The feed of one run here: gives what the parent sends, asks it for fresh URLs, tells it outcomes.

    Attributes:
        judges_uploads: Whether the parent's feed does, see `JudgingFeed`.
        is_heard: Whether somebody listens to events of the run.
    """

    def __init__(self, number: int, channel: Channel) -> None:
        self.judges_uploads = False
        self.is_heard = False
        self._retries: list[tuple[Any, ...]] = []
        self._retries_timer: asyncio.TimerHandle | None = None
        self._told_waits: dict[WaitReason, float] = {}
        self._number = number
        self._channel = channel
        self._waiting: deque[tuple[Any, ...]] = deque()
        self._news = asyncio.Event()
        self._renewals: dict[int, asyncio.Future[Any]] = {}
        self._renewed = 0
        self._told_bytes = 0
        self.meter = Meter(self._tell_progress, watch=_Watch(self._note_retry))

    def put(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Take what the parent gives."""
        self._waiting.extend(rows)
        self._news.set()

    async def take(self, want: int) -> Sequence[Transfer]:
        while not self._waiting:
            self._news.clear()
            await self._news.wait()
        return [
            transfer_of(self._waiting.popleft(), self._note, self._flush) for _ in range(min(want, len(self._waiting)))
        ]

    def _note(self, number: int, what: str, *facts: object) -> None:
        self._channel.send(("note", self._number, number, what, facts))

    async def _flush(self, number: int) -> None:
        """Return when the parent has kept what was noted of a transfer."""
        await self._ask(number, None)

    async def replace(self, transfer: Upload) -> Target | None:
        fresh = await self.renew(transfer, first_part=ANOTHER_UPLOAD)
        assert fresh is None or isinstance(fresh, Target)
        return fresh

    async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> Target | Origin | None:
        result: Target | Origin | None = end_of(await self._ask(transfer.key, first_part))
        return result

    async def _ask(self, number: int, first_part: int | None) -> Any:
        """Return the parent's answer to a question, see `Shift.renew`; raises the error that it had."""
        self._renewed += 1
        asked = self._renewed
        self._renewals[asked] = future = asyncio.get_running_loop().create_future()
        self._channel.send(("renew", self._number, asked, number, first_part))
        try:
            fresh, error = await future
        finally:
            del self._renewals[asked]
        if error is not None:
            raise error_of(error)
        return fresh

    def renewed(self, asked: int, fresh: Any, error: Any) -> None:
        """Take the parent's answer to a question of `renew` or `_flush`."""
        future = self._renewals.get(asked)
        if future is not None and not future.done():
            future.set_result((fresh, error))

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        self.tell_retries()  # before what became of them
        self._channel.send(("outcomes", self._number, self.seen(), [pack_outcome(outcome) for outcome in outcomes]))
        return outcomes

    def seen(self) -> tuple[int, dict[str, float], float]:
        """Return what happened since it was asked last: bytes that moved (negative when more were taken back), seconds
        that were waited by reason; and the share of a processor that was used so far."""
        moved = self.meter.bytes_moved - self._told_bytes
        self._told_bytes += moved
        waits, told = self.meter.watch.waits, self._told_waits
        more = {
            reason.value: spent - told.get(reason, 0.0)
            for reason, spent in waits.seconds.items()
            if reason not in _NOT_OURS and spent != told.get(reason)
        }
        self._told_waits = dict(waits.seconds)
        return moved, more, waits.cpu_share

    def _note_retry(self, retry: tuple[Any, ...]) -> None:
        if not self.is_heard:
            return
        self._retries.append(retry)
        if len(self._retries) >= _MOST_RETRIES:
            self.tell_retries()
        elif self._retries_timer is None:
            self._retries_timer = asyncio.get_running_loop().call_later(_RETRIES_SECONDS, self.tell_retries)

    def tell_retries(self) -> None:
        """Tell the parent what was tried again since it was told last."""
        timer, self._retries_timer = self._retries_timer, None
        if timer is not None:
            timer.cancel()
        if self._retries:
            retries, self._retries = self._retries, []
            packed = [(*facts, pack_error(error)) for *facts, error in retries]
            self._channel.send(("retried", self._number, packed))

    def _tell_progress(self, progress: Progress) -> None:
        if self.meter.bytes_moved != self._told_bytes:
            self._channel.send(("moved", self._number, self.seen()))


class _Engine(Engine):
    """An engine with a share of the slots."""

    def count(self, rows: _Rows) -> Run:
        """Run *rows*, counted by its own meter; the parent decides when too much has failed."""
        return Run(self._open, rows, rows.meter, None, may_end_early=False)


class _Worker:
    """What the parent says, carried out."""

    def __init__(self, reads: int, writes: int) -> None:
        self._channel = Channel(reads, writes, self._obey, self._end)
        self._engine: _Engine | None = None
        self._runs: dict[int, tuple[_Rows, asyncio.Task[None]]] = {}
        self._loop = asyncio.get_running_loop()
        self._has_ended = asyncio.Event()

    async def serve(self) -> None:
        """Work until the pipe of the parent ends, then leave nothing behind."""
        await self._has_ended.wait()
        tasks = [task for _, task in self._runs.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_ORPHANED_SECONDS)
        if self._engine is not None:
            with anyio.move_on_after(_ORPHANED_SECONDS):
                await self._engine.aclose()
        self._channel.close()

    def _end(self) -> None:
        self._has_ended.set()

    def _obey(self, message: tuple[Any, ...]) -> None:
        try:
            self._carry_out(message)
        except Exception:  # whatever it was, the parent takes the end of this process for a crash, and does it over
            _logger.exception("a worker process cannot do what it is told")
            self._has_ended.set()

    def _carry_out(self, message: tuple[Any, ...]) -> None:
        match message:
            case ("rows", number, rows, (judges_uploads, is_heard)):
                run = self._run(number)
                run.judges_uploads, run.is_heard = judges_uploads, is_heard
                run.put(rows)
            case ("renewed", number, asked, fresh, error):
                if number in self._runs:  # else it was stopped before the answer came
                    self._runs[number][0].renewed(asked, fresh, error)
            case ("stop", number):
                self._stop(number)
            case ("share", share):
                assert self._engine is not None
                share.apply(self._engine.limits)
            case ("wait_no_longer",):
                assert self._engine is not None
                self._engine.limits.origins.wait_no_longer()
            case ("folder", path):
                _follow(path)
            case ("hello", config, mark, level):
                self._begin(config, mark, level)
            case _:  # of another release: this one was installed while the parent ran; better a crash than a deaf ear
                raise ValueError(f"a worker process of this release does not know the message {message[0]!r}")

    def _begin(self, config: TransferConfig, mark: str, level: int) -> None:
        logger = logging.getLogger("asyncsdk")
        logger.setLevel(level)
        logger.addHandler(_ToParent(self._channel, self._loop))
        logger.propagate = False
        use_mark(mark)
        self._engine = _Engine(config)
        # What was imported lives as long as this process: no collection needs to look at it again.
        gc.collect()
        gc.freeze()
        self._channel.send(("ready",))

    def _run(self, number: int) -> _Rows:
        if number not in self._runs:
            rows = _Rows(number, self._channel)
            task = self._loop.create_task(self._move(number, rows))
            task.add_done_callback(lambda _: self._stopped(number, rows))
            self._runs[number] = rows, task
        return self._runs[number][0]

    def _stop(self, number: int) -> None:
        if number in self._runs:
            self._runs[number][1].cancel()
        else:
            self._channel.send(("stopped", number, (0, {}, 0.0)))

    async def _move(self, number: int, rows: _Rows) -> None:
        assert self._engine is not None
        try:
            async with self._engine.count(rows) as outcomes:
                async for _ in outcomes:
                    pass  # the parent has been told already, by `settle`
        except AsyncSDKError as error:
            self._channel.send(("broke", number, pack_error(error)))
        except Exception as error:  # a mistake in this package: it ends the run of the parent, as it would there
            _logger.exception("a worker process made a mistake")
            self._channel.send(("broke", number, type(error).__name__))

    def _stopped(self, number: int, rows: _Rows) -> None:
        del self._runs[number]
        rows.tell_retries()
        self._channel.send(("stopped", number, rows.seen()))


class _ToParent(logging.Handler):
    """Hands what is logged here to the parent, whose handlers and levels decide."""

    def __init__(self, channel: Channel, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._channel = channel
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        """Send *record*, from whichever thread."""
        if not self._loop.is_closed():
            message = ("log", record.name, record.levelno, self.format(record))
            self._loop.call_soon_threadsafe(self._channel.send, message)


def main() -> None:
    """Be a worker of the process at the other end of standard input and output, until it ends. Never returns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reads, writes = os.dup(0), os.dup(1)
    # Whatever prints must not get in between the frames.
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    loop = new_event_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(_begin(reads, writes))
    # Not the ordinary way out, which waits for threads: one of them may wait for a disk that never answers.
    os._exit(0)


def _follow(folder: str) -> None:
    """Make relative paths mean what they mean in the parent."""
    try:
        os.chdir(folder)
    except OSError:
        _logger.exception("a worker process cannot follow its parent into its working folder")
        os._exit(1)  # they would mean other files here


async def _begin(reads: int, writes: int) -> None:
    await _Worker(reads, writes).serve()
