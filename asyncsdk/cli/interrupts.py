"""Signals: the first one cancels and cleans up, the second one ends the process at once.

Signal handlers are set only while a command runs, and only here: the library itself never touches them.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from asyncsdk.loops import new_event_loop

__all__ = ["Interrupted", "run_interruptible"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(Exception):
    """A signal ended the command.

    Attributes:
        exit_status: 128 plus the number of the signal, as shells say it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = 128 + number


def run_interruptible(work: Callable[[], Coroutine[Any, Any, int]], on_signal: Callable[[int], None]) -> int:
    """Run *work* in an event loop of its own and return what it returns.

    Args:
        work: The command.
        on_signal: Told the number of the first signal, before the command is cancelled.

    Raises:
        Interrupted: A signal came; the command was cancelled and its cleanup is over.
    """
    caught: list[int] = []

    async def supervised() -> int:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None

        def handle(number: int) -> None:
            if caught:
                os._exit(128 + number)  # asked twice: no cleanup, now
            caught.append(number)
            on_signal(number)
            task.cancel()

        for number in _SIGNALS:
            loop.add_signal_handler(number, handle, number)
        try:
            return await work()
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            status = runner.run(supervised())
    except BaseException:  # the signal is why it ended, whatever the cancelled work raised on its way out
        if caught:
            raise Interrupted(caught[0]) from None
        raise
    if caught:
        raise Interrupted(caught[0])
    return status
