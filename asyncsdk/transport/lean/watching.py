"""Watching many sockets for what can be read, at less than the event loop takes for each.

asyncio spends some 150 steps of its interpreter on one callback (selector, handle, context), a tenth of what a small
file costs in all. An epoll descriptor of our own, which the loop watches like a socket, spreads that over all sockets
that are ready in one turn.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable

__all__ = ["Watcher"]


class Watcher:
    """Calls back when a socket can be read, or has ended.

    Everything that is ready is called once in one turn of the event loop. Where the system has no epoll, the event loop
    watches every socket by itself.

    Args:
        loop: Must know ``add_reader``.
    """

    __slots__ = ("_callbacks", "_epoll", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._callbacks: dict[int, Callable[[], object]] = {}

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Call *callback* whenever *fd* can be read, until `forget`."""
        if self._epoll is None:
            self._loop.add_reader(fd, callback)
            return
        self._epoll.register(fd, select.EPOLLIN)
        if not self._callbacks:
            self._loop.add_reader(self._epoll.fileno(), self._tell)
        self._callbacks[fd] = callback

    def forget(self, fd: int) -> None:
        """Watch *fd*, which is watched and still open, no longer."""
        if self._epoll is None:
            self._loop.remove_reader(fd)
            return
        del self._callbacks[fd]
        self._epoll.unregister(fd)
        if not self._callbacks:
            self._loop.remove_reader(self._epoll.fileno())

    def close(self) -> None:
        """Let go of the system's part. Everything was forgotten, or the event loop is closed."""
        if self._epoll is not None:
            self._epoll.close()

    def _tell(self) -> None:
        assert self._epoll is not None
        for fd, _ in self._epoll.poll(0):
            callback = self._callbacks.get(fd)
            if callback is not None:  # else it was forgotten by one that was called before it
                callback()
