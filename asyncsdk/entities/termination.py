"""Something to be said before SIGTERM takes its course, whoever else listens to that signal.

A handler cannot wait: the event loop that would say it may run on this very thread. So it gives the signal back to
whoever had it before, has the word begun, and sends the signal again when that is said or took too long. The default
action, a handler of the program, another last word: each gets the signal as if it had come a moment later.
"""

from __future__ import annotations

import _thread
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

__all__ = ["LastWord"]

_Handler = Callable[[int, FrameType | None], Any] | int | None

_LOOPS = ("asyncio.", "uvloop.")
"""Modules whose handlers only mark a signal that the event loop itself takes from the wake-up descriptor."""


class LastWord:
    """Has something said when SIGTERM comes, once. Does nothing where signals are not POSIX's.

    Use it from the main thread. A forked child inherits the handler and not its meaning: there the signal goes on at
    once.

    Args:
        begin: Begins to say it, without waiting, on the main thread at any moment; what it is given is called, from
            any thread, when it is said. `RuntimeError`: it cannot be said any more.
        seconds: How long the signal waits for that.
    """

    def __init__(self, begin: Callable[[Callable[[], None]], None], *, seconds: float) -> None:
        self._begin = begin
        self._seconds = seconds
        self._pid = os.getpid()
        self._previous: _Handler = None
        self._handler: _Handler = None
        self._is_wanted = False

    def install(self) -> bool:
        """Listen from now on; False where that cannot be: on another thread, or when the program ignores the signal."""
        if os.name != "posix" or threading.current_thread() is not threading.main_thread():
            return False
        previous: Any = signal.getsignal(signal.SIGTERM)
        if previous is None or previous == signal.SIG_IGN:  # of C code, which nobody can give it back to; or ignored
            return False
        self._pid, self._previous, self._is_wanted = os.getpid(), previous, True
        self._handler = self._came  # kept: each look at the attribute makes another object
        signal.signal(signal.SIGTERM, self._handler)
        return True

    def remove(self) -> None:
        """Listen no more. Another handler that was set meanwhile stays, and passes the signal on to nobody here."""
        self._is_wanted = False
        if self._handler is None or threading.current_thread() is not threading.main_thread():
            return  # the handler stays, and passes the signal on
        if signal.getsignal(signal.SIGTERM) is self._handler:
            self._give_back()

    def _give_back(self) -> _Handler:
        previous = self._previous
        # One that left before this one has nothing to say: straight to whoever was before it.
        while isinstance(word := getattr(previous, "__self__", None), LastWord) and not word._is_wanted:
            previous = word._previous
        signal.signal(signal.SIGTERM, previous)
        return previous

    def _came(self, number: int, frame: FrameType | None) -> None:
        previous = self._give_back()
        is_mine = self._is_wanted and os.getpid() == self._pid
        self._is_wanted = False
        said = threading.Event()
        try:
            if is_mine:
                self._begin(said.set)
            if callable(previous) and getattr(previous, "__module__", "").startswith(_LOOPS):
                previous(number, frame)  # the loop has the signal already: sent again it would be a second one
            elif is_mine:
                # Not by `threading`, whose locks the interrupted code may hold.
                _thread.start_new_thread(_send_again, (said, self._seconds))
            else:
                os.kill(os.getpid(), number)
        except RuntimeError:  # the loop is closed, or the interpreter exits: nobody can say anything any more
            os.kill(os.getpid(), number)


def _send_again(said: threading.Event, seconds: float) -> None:
    said.wait(seconds)
    os.kill(os.getpid(), signal.SIGTERM)
