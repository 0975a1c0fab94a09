"""The front itself: accepting connections, ending those that take too long, and a shutdown that lets replies out."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from concurrent.futures import ThreadPoolExecutor

from asyncsdk.server.http.front.connection import Connection
from asyncsdk.server.http.front.handover import Application
from asyncsdk.server.http.front.objects import ObjectBytes
from asyncsdk.server.http.front.shared import Limits, Shared

__all__ = ["Front", "Limits"]

logger = logging.getLogger("asyncsdk.server")

ACCEPT_AT_ONCE = 64
ACCEPT_PAUSE_SECONDS = 0.5
"""How long nothing is accepted after there was no descriptor, memory or place for a connection."""

POLL_SECONDS = 0.01
"""How often a shutdown looks whether everything is over."""

SWEEP_SECONDS = 1.0
"""How often it is looked who takes too long. One look for all costs less than a timer for each request."""

_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Front:
    """Serves one listening socket in the running event loop.

    Args:
        listening: The socket; it is made non-blocking and stays the caller's to close.
        application: Answers what is not about bytes of objects.
        objects: Answers what is.
        pool: Threads for files; the caller's to end, after `shut_down`.
        limits: How long clients may take.
    """

    def __init__(
        self,
        listening: socket.socket,
        application: Application,
        objects: ObjectBytes,
        pool: ThreadPoolExecutor,
        limits: Limits,
    ) -> None:
        self._listening = listening
        listening.setblocking(False)
        self._shared = Shared(
            asyncio.get_running_loop(), application, objects, pool, limits, server_address=listening.getsockname()
        )
        self._timer: asyncio.TimerHandle | None = None
        self._is_accepting = False
        # Half of the shortest limit at most, so that a limit is overrun by no more than that.
        self._sweep_seconds = min(SWEEP_SECONDS, limits.head_seconds / 4, limits.idle_seconds / 4)

    def start(self) -> None:
        """Begin to accept connections."""
        self._accept(True)
        self._timer = self._shared.loop.call_later(self._sweep_seconds, self._sweep)

    async def shut_down(self, *, seconds: float, force: asyncio.Event) -> None:
        """Accept no more, let requests under way be answered, then close everything.

        When it returns no connection is open, no thread is at work for one, and no request is in the application.

        Args:
            seconds: How long requests under way may take.
            force: Once set, nothing is waited for any more.
        """
        shared = self._shared
        self._accept(False)
        self._listening.close()
        shared.is_closing = True
        for connection in list(shared.connections):
            connection.retire()
        deadline = shared.now() + seconds
        while not shared.is_idle and shared.now() < deadline and not force.is_set():  # noqa: ASYNC110 - once a life
            await asyncio.sleep(POLL_SECONDS)
        for connection in list(shared.connections):
            connection.break_off()
        for task in list(shared.tasks):
            task.cancel()
        while not shared.is_idle:  # noqa: ASYNC110 - threads that still hold a socket are done in a moment
            await asyncio.sleep(POLL_SECONDS)
        if self._timer is not None:
            self._timer.cancel()

    def _accept(self, wanted: bool) -> None:
        if wanted is not self._is_accepting:
            self._is_accepting = wanted
            if wanted:
                self._shared.loop.add_reader(self._listening, self._acceptable)
            else:
                self._shared.loop.remove_reader(self._listening)

    def _acceptable(self) -> None:
        connections, most = self._shared.connections, self._shared.limits.connections
        if len(connections) >= most and not self._make_room():  # asked here, where somebody is known to wait
            self._pause("all connections there may be are busy")
        for _ in range(min(ACCEPT_AT_ONCE, most - len(connections))):
            try:
                accepted, address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._make_room()
                self._pause(str(error.strerror))
                return
            accepted.setblocking(False)
            Connection(self._shared, accepted, address)

    def _make_room(self) -> bool:
        """Close some of the connections that wait for a request, those first that wait longest; False for none."""
        connections = self._shared.connections
        wanted = len(connections) - max(1, len(connections) // 16)
        for connection in sorted(connections, key=lambda each: each.due):
            if len(connections) <= wanted:
                break
            connection.retire()
        return len(connections) < self._shared.limits.connections

    def _pause(self, reason: str) -> None:
        logger.warning("no connection can be accepted for a moment: %s", reason)
        self._accept(False)
        self._shared.loop.call_later(ACCEPT_PAUSE_SECONDS, self._resume)

    def _resume(self) -> None:
        if not self._shared.is_closing:
            self._accept(True)

    def _sweep(self) -> None:
        now = self._shared.now()
        for connection in [each for each in self._shared.connections if each.due <= now]:
            connection.expire()
        self._timer = self._shared.loop.call_later(self._sweep_seconds, self._sweep)
