"""A non-blocking socket in the event loop: bytes in by callback, bytes out with what the client does not take yet kept.

The loop's own transports are not used: threads send files and receive large bodies on the socket itself, which a
transport does not allow; and a small request costs half as much without them.
"""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from contextlib import suppress

from asyncsdk.server.http.front.shared import Shared

__all__ = ["NEVER", "Stream"]

RECEIVE_BYTES = 72 * 1024
"""Received at once: a head and a small body come whole. Memory of 128 KiB and more would come fresh each time."""

KEPT_BYTES = 256 * 1024
"""Of a reply the client does not take; then whoever writes it has to wait."""

SEND_BYTES = 1024 * 1024

NEVER = float("inf")


class Stream(ABC):
    """The socket of one connection. Subclasses say what to do with what comes in.

    Args:
        shared: What all connections share.
        accepted: The socket, non-blocking.

    Attributes:
        expires: When what is waited for comes too late, by the shared clock.
        is_gone: Whether nobody is there to answer.
        has_ended: Whether the client sends no more; it may still listen.
    """

    __slots__ = (
        "_is_reading",
        "_is_shut",
        "_is_writing",
        "_out",
        "_out_expires",
        "_shared",
        "_socket",
        "_waiter",
        "expires",
        "has_ended",
        "is_gone",
    )

    def __init__(self, shared: Shared, accepted: socket.socket) -> None:
        self._shared = shared
        self._socket = accepted
        self._out = bytearray()
        self._out_expires = NEVER
        self._waiter: asyncio.Future[None] | None = None
        self._is_reading = False
        self._is_writing = False
        self._is_shut = False
        self.expires = NEVER
        self.is_gone = False
        self.has_ended = False

    # --- what subclasses say -------------------------------------------------------------------------------------

    @abstractmethod
    def _received(self, data: bytes) -> None:
        """Take bytes that came."""

    @abstractmethod
    def _ended(self) -> None:
        """Take note that no more will come."""

    @abstractmethod
    def _flushed(self) -> None:
        """Take note that the client has taken everything."""

    @abstractmethod
    def break_off(self) -> None:
        """Close at once."""

    # --- in ------------------------------------------------------------------------------------------------------

    def _read(self, wanted: bool) -> None:
        """Receive, or let the client wait."""
        wanted = wanted and not (self.is_gone or self.has_ended)
        if wanted is not self._is_reading:
            self._is_reading = wanted
            if wanted:
                self._shared.loop.add_reader(self._socket, self._readable)
            else:
                self._shared.loop.remove_reader(self._socket)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.break_off()
            return
        if data:
            self._received(data)
            return
        self.has_ended = True
        self._read(False)
        self._ended()

    # --- out -----------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send, or keep until the client takes it."""
        if self.is_gone:
            return
        if not self._out:
            try:
                sent = self._socket.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError:
                self.break_off()
                return
            if sent == len(data):
                return
            data = data[sent:]
        self._out += data
        limits = self._shared.limits
        if not self._is_writing:
            self._is_writing = True
            self.expires = self._out_expires = self._shared.now() + limits.idle_seconds
            self._shared.loop.add_writer(self._socket, self._writable)
        self._out_expires += len(data) / limits.bytes_per_second

    def _writable(self) -> None:
        try:
            with memoryview(self._out) as view:
                sent = self._socket.send(view[:SEND_BYTES])
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.break_off()
            return
        del self._out[:sent]
        self.expires = min(self._shared.now() + self._shared.limits.idle_seconds, self._out_expires)
        if len(self._out) <= KEPT_BYTES:
            self._wake()
        if not self._out:
            self._is_writing = False
            self._shared.loop.remove_writer(self._socket)
            self._flushed()

    async def drained(self) -> None:
        """Return when little of what was written is still kept, or the client is gone."""
        while len(self._out) > KEPT_BYTES and not self.is_gone:
            self._waiter = self._shared.loop.create_future()
            await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _shut_output(self) -> None:
        """Tell the client that no more replies come, once it has taken all."""
        if not self._is_shut and not self._out:
            self._is_shut = True
            with suppress(OSError):  # it is gone already: the next receive tells
                self._socket.shutdown(socket.SHUT_WR)

    # --- the end -------------------------------------------------------------------------------------------------

    def _detach(self) -> None:
        """Take the socket out of the loop; nothing is received, sent or kept any more."""
        self.is_gone = True
        if self._is_reading:
            self._shared.loop.remove_reader(self._socket)
        if self._is_writing:
            self._shared.loop.remove_writer(self._socket)
        self._is_reading = self._is_writing = False
        self._out.clear()
        self._wake()
