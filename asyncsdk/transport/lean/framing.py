"""Sending a body that is framed: what comes before it, the body itself, what comes after it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from asyncsdk.transport.base import Body, BytesBody, FramedBody
from asyncsdk.transport.lean.exchange import Exchange
from asyncsdk.transport.lean.sending import Progress, Sender

if TYPE_CHECKING:
    from asyncsdk.transport.lean.pipe import TlsPipe

__all__ = ["FramedSender"]


class FramedSender:
    """Sends a `FramedBody` as three bodies, one after the other; see `Sender`.

    Args:
        pending: The head; nothing of the body is in it.
        pending_body: 0.
    """

    __slots__ = ("_left", "_next", "_sender")

    def __init__(
        self,
        sock: socket.socket,
        pipe: TlsPipe | None,
        exchange: Exchange,
        pending: memoryview,
        pending_body: int,
        borrow: Callable[[int], bytearray],
    ) -> None:
        body = exchange.request.body
        assert isinstance(body, FramedBody)

        def following(part: Body, pending: memoryview) -> Sender:
            return Sender(sock, pipe, exchange, pending, 0, borrow, part)

        self._next = following
        self._left: list[Body] = [BytesBody(body.after), body.inner]
        self._sender = following(BytesBody(body.before), pending)

    def pump(self, most_bytes: int = 0) -> Progress:
        """Send until the socket is full, or others should get their turn; see `Sender.pump`."""
        while True:
            progress = self._sender.pump(most_bytes)
            if progress is not Progress.DONE or not self._left:
                return progress
            buffer = self._sender.release()
            self._sender = self._next(self._left.pop(), memoryview(b""))
            if buffer is not None:
                self._sender.keep(buffer)

    def warm(self) -> None:
        """Bring what comes next into the page cache. Blocking."""
        self._sender.warm()

    def release(self) -> bytearray | None:
        """Send nothing more, and give the buffer back, if one was borrowed."""
        self._left.clear()
        return self._sender.release()
