"""Signals: the first Ctrl-C finishes what is under way, the second cancels it, the third ends the process at once.

SIGTERM counts as the second: whoever sends it will not wait long. Signal handlers are set only while a command runs,
and only here: the library itself never touches them.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from enum import IntEnum
from types import FrameType
from typing import Any

from asyncsdk.loops import new_event_loop

__all__ = ["Interrupted", "Stage", "run_interruptible"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
    """A signal ended the command.

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
    """
    interrupts = _Interrupts(on_signal, drain)

    async def supervised() -> int:
        task = asyncio.current_task()
        assert task is not None
        with interrupts.handled(asyncio.get_running_loop(), task):
            return await work()

    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            status = runner.run(supervised())
    except BaseException:  # the signal is why it ended, whatever the work raised on its way out
        if interrupts.stage is not Stage.RUNNING:
            raise Interrupted(interrupts.number) from None
        raise
    if interrupts.stage >= Stage.CANCELLED:
        raise Interrupted(interrupts.number)
    return status  # drained, perhaps, and nothing was left undone


class _Interrupts:
    """Counts signals while a task runs.

    Attributes:
        stage: What they led to.
        number: The latest one.
    """

    def __init__(self, on_signal: Callable[[int, Stage], None], drain: Callable[[], bool]) -> None:
        self._on_signal = on_signal
        self._drain = drain
        self._loop: asyncio.AbstractEventLoop
        self._task: asyncio.Task[Any]
        self.stage = Stage.RUNNING
        self.number = 0

    def handled(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> _Interrupts:
        """Return the block in which signals are about *task*."""
        self._loop, self._task = loop, task
        return self

    def __enter__(self) -> None:
        for number in _SIGNALS:
            self._loop.add_signal_handler(number, self._came, number)

    def __exit__(self, *exc_info: object) -> None:
        for number in _SIGNALS:
            self._loop.remove_signal_handler(number)

    def _came(self, number: int) -> None:
        """Go on to the next stage; called by the event loop."""
        self.number = number
        if self.stage >= Stage.CANCELLED:
            self._kill(number, None)
        if self.stage is Stage.RUNNING and number == signal.SIGINT and self._drain():
            self.stage = Stage.DRAINING
            self._on_signal(number, self.stage)
            return
        self.stage = Stage.CANCELLED
        self._on_signal(number, self.stage)
        # From here on the signal itself ends the process: an event loop that is stuck would never call anybody. The
        # loop's own handlers stay, for signals that it has taken and not yet looked at.
        for each in _SIGNALS:
            signal.signal(each, self._kill)
        self._task.cancel()

    def _kill(self, number: int, frame: FrameType | None) -> None:
        os._exit(128 + number)
