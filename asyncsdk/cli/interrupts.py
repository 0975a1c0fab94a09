"""Signals: the first Ctrl-C finishes what is under way, the second cancels it, the third ends the process at once.

SIGTERM, and SIGHUP of a terminal that goes, count as the second: whoever sends them will not wait long. A signal that
the process was started to ignore (``nohup``, ``... &`` in a script) stays ignored. Signal handlers are set only while a
command runs, and only here: the library itself never touches them.

The event loop learns of a signal, and decides. It may be stuck, in a file system that does not answer, say: so signals
are counted by a thread of their own where the system can wake one (POSIX), and by Python's handlers elsewhere.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import FrameType
from typing import Any

from asyncsdk.errors import LeftUndone
from asyncsdk.loops import new_event_loop

__all__ = ["Interrupted", "Stage", "run_interruptible"]

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # Windows has no SIGHUP
_END_OF_WATCH = b"\0"
_LAST = 3
"""The signal that ends the process, whatever its event loop does."""

_ECHO_SECONDS = 1.0
"""Within this, another SIGTERM or SIGHUP is the same one. ``timeout`` sends its signal to the command and to the group
it is in; a terminal that goes sends SIGHUP once by the shell and once by the system."""


class Stage(IntEnum):
    """How far a command was interrupted."""

    RUNNING = 0
    DRAINING = 1
    """What is under way is finished, nothing new is begun."""
    CANCELLED = 2
    """What is under way is dropped and cleaned up."""
    KILLED = 3
    """The process ends in this moment."""


class Interrupted(Exception):
    """A signal ended the command. Its cause is what the cleanup raised, if that was more than being cancelled.

    Attributes:
        exit_status: 128 plus the number of the signal, as shells say it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = 128 + number


def run_interruptible(
    work: Callable[[], Coroutine[Any, Any, int]],
    on_signal: Callable[[int, Stage], None],
    drain: Callable[[], bool] = lambda: False,
) -> int:
    """Run *work* in an event loop of its own and return what it returns.

    Args:
        work: The command.
        on_signal: Told the number of a signal and what it does, before that is done.
        drain: Lets the command finish what is under way and begin nothing new; False: nothing is under way, so that the
            first signal cancels.

    Raises:
        Interrupted: A signal came, and something was left undone; the cleanup is over.
        Exception: What *work* raised, also while it was drained.
    """
    interrupts = _Interrupts(on_signal, drain)

    async def supervised() -> int:
        task = asyncio.current_task()
        assert task is not None
        with interrupts.told_to(asyncio.get_running_loop(), task):
            return await work()

    try:
        with interrupts.handled(), asyncio.Runner(loop_factory=new_event_loop) as runner:
            status = runner.run(supervised())
    except BaseException as error:  # a signal may be why it ended
        if interrupts.stage is Stage.RUNNING:
            raise
        if _is_only_cancelled(error):
            raise Interrupted(interrupts.number) from None
        if interrupts.stage is Stage.DRAINING:
            raise  # nothing was cancelled: this would have ended the command without a signal, too
        raise Interrupted(interrupts.number) from error
    if interrupts.stage >= Stage.CANCELLED:
        raise Interrupted(interrupts.number)
    return status  # drained, perhaps, and nothing was left undone


def _is_only_cancelled(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_only_cancelled, error.exceptions))
    return isinstance(error, (asyncio.CancelledError, LeftUndone, KeyboardInterrupt))


class _Interrupts:
    """Counts signals while a task runs.

    Attributes:
        stage: What they led to.
        number: The latest one.
    """

    def __init__(self, on_signal: Callable[[int, Stage], None], drain: Callable[[], bool]) -> None:
        self._on_signal = on_signal
        self._drain = drain
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any]
        self._early: list[int] = []
        self._count = 0
        self._last_end = -_ECHO_SECONDS
        self._is_watched = False
        self._is_over = False
        self.stage = Stage.RUNNING
        self.number = 0

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Take the signals for the block; on a thread that is not the main one, none."""
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, self._handle)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    @contextmanager
    def told_to(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> Iterator[None]:
        """Let signals be about *task* for the block, those too that came before it."""
        self._task, self._loop = task, loop
        early, self._early = self._early, []
        for number in early:
            loop.call_soon(self._came, number)
        try:
            with self._watched():
                yield
        finally:
            self._is_over = True

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Have a thread count the signals, which is awake when the event loop's is stuck in a call of the system."""
        if os.name != "posix" or threading.current_thread() is not threading.main_thread():
            yield  # Python's handlers do, as soon as the main thread comes back from what it does
            return
        reads, writes = os.pipe()
        os.set_blocking(writes, False)
        watcher = threading.Thread(target=self._watch, args=(reads,), name="asyncsdk signals", daemon=True)
        watcher.start()
        before = signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
        self._is_watched = True
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            self._is_watched = False
            os.write(writes, _END_OF_WATCH)
            watcher.join()
            os.close(writes)
            os.close(reads)

    def _watch(self, reads: int) -> None:
        while (numbers := os.read(reads, 64)) and _END_OF_WATCH not in numbers:
            for number in numbers:
                self._arrived(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        """Python's handler: on the main thread, between two of its instructions."""
        if not self._is_watched:
            self._arrived(number)

    def _arrived(self, number: int) -> None:
        """Count a signal and tell the event loop; called by a handler or the thread that watches."""
        if number not in _SIGNALS:
            return
        if number != signal.SIGINT:
            now = time.monotonic()
            if now - self._last_end < _ECHO_SECONDS:
                return
            self._last_end = now
        self._count = max(self._count + 1, 1 if number == signal.SIGINT else 2)
        if self._count >= _LAST or self.stage >= Stage.CANCELLED:
            os._exit(128 + number)
        if self._loop is None:
            self._early.append(number)
        elif not self._is_over:  # else the command has done all it does, and ends by itself
            try:
                self._loop.call_soon_threadsafe(self._came, number)
            except RuntimeError:  # the loop was closed in this moment
                return

    def _came(self, number: int) -> None:
        """Go on to the next stage; called by the event loop."""
        if self._is_over:
            return
        self.number = number
        if self.stage >= Stage.CANCELLED:
            os._exit(128 + number)
        if self.stage is Stage.RUNNING and number == signal.SIGINT and self._drain():
            self.stage = Stage.DRAINING
        else:
            self.stage = Stage.CANCELLED
        self._on_signal(number, self.stage)
        if self.stage is Stage.CANCELLED:
            self._task.cancel()
