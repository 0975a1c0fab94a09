"""Heartbeats of blocking programs: the twin of `asyncsdk.entities.heartbeat.AsyncHeartbeat`.

By hand, because signals belong to the thread of the program and beats to the event loop of the blocking calls.
"""

from __future__ import annotations

import atexit
from types import TracebackType
from typing import Self

from asyncsdk.entities.heartbeat import AsyncHeartbeat
from asyncsdk.sync.bridge import run
from asyncsdk.sync.twins import BlockingTwin

__all__ = ["Heartbeat"]


class Heartbeat(BlockingTwin[AsyncHeartbeat]):
    """Says to the platform, every *interval* seconds, that this program is at work on a model.

    Use it as ``with model.heartbeat():``, or call ``start()`` and ``stop()``; after ``stop()`` it can be started
    again and is the same agent. A beat that is lost is tried again and never ends anything: training goes on without a
    network. It takes no thread. A forked child does not beat.

    Beats are sent by the event loop: code that holds up the loop for more than three intervals makes the agent look
    lost. The blocking twin beats in the background of whatever the program does.
    """

    @property
    def agent_id(self) -> str | None:
        """The id that the platform gave; None before the first beat arrived."""
        return self._twin.agent_id

    @property
    def missed(self) -> int:
        """How many beats in a row were lost; 0 when the last one arrived."""
        return self._twin.missed

    @property
    def is_beating(self) -> bool:
        """Whether it was started and not stopped, in this process."""
        return self._twin.is_beating

    def start(self) -> None:
        """Begin to beat. The first beat was answered when it returns, if that took no more than 5 s.

        Raises:
            NotFound, PermissionDenied, Unauthenticated, UnsupportedOperation: There is no such model, or you may not
                say anything of it. No network is no error.
            ConfigError: It beats already, or the client is closed.
        """
        self._twin._listen()
        try:
            run(self._twin._start)
        except BaseException:  # Ctrl-C too: nobody listens to the signal any more
            self._twin._unlisten()
            raise
        # Called before the loop of the blocking calls is closed: handlers run in the reverse order of registration.
        atexit.register(self.stop)

    def stop(self) -> None:
        """Say goodbye and beat no more. Waits up to 5 s for that; a goodbye that is lost is told in the log.

        Calling it again, or in a forked child, does nothing.
        """
        atexit.unregister(self.stop)
        is_at_work = self._twin.is_beating or self._twin._is_starting
        self._twin._unlisten()
        if is_at_work:
            run(self._twin._stop)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return repr(self._twin).replace("AsyncHeartbeat", "Heartbeat")
