"""What drives a sender: the socket's readiness, a thread that reads ahead, a limit of bytes per second.

Small requests go out by one system call and need none of it.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import TYPE_CHECKING

from asyncsdk.errors import AsyncSDKError
from asyncsdk.transport.base import FramedBody
from asyncsdk.transport.lean.framing import FramedSender
from asyncsdk.transport.lean.sending import Progress, Sender

if TYPE_CHECKING:
    from asyncsdk.transport.lean.connection import Connection
    from asyncsdk.transport.lean.exchange import Exchange
    from asyncsdk.transport.lean.transport import LeanTransport

__all__ = ["Writer"]


class Writer:
    """Sends the rest of one request, and tells its connection when all is sent or it cannot be.

    Args:
        connection: Whose exchange it is.
        owner: Lends buffers, and knows the limit of bytes per second.
        loop: Watches the socket.
        exchange: The one under way.
        pending: Ready to go as it is: the head, or the rest of it with the start of the body.
        pending_body: How many bytes of the body *pending* stands for.
    """

    __slots__ = ("_connection", "_exchange", "_is_over", "_is_watching", "_loop", "_owner", "_sender")

    def __init__(
        self,
        connection: Connection,
        owner: LeanTransport,
        loop: asyncio.AbstractEventLoop,
        exchange: Exchange,
        pending: memoryview,
        pending_body: int,
    ) -> None:
        self._connection = connection
        self._owner = owner
        self._loop = loop
        self._exchange = exchange
        framed = isinstance(exchange.request.body, FramedBody) and not pending_body
        kind = FramedSender if framed else Sender
        link = connection.link
        self._sender: Sender | FramedSender = kind(
            link.sock, link.tls, exchange, pending, pending_body, owner.pool.buffers.borrow
        )
        self._is_watching = False
        self._is_over = False

    def go_on(self, *, is_its_turn: bool = False) -> None:
        """Send what the socket takes, or wait until more may be sent."""
        if self._is_over:
            return
        connection, sender, exchange = self._connection, self._sender, self._exchange
        pace = self._owner.sent_pace
        if pace is not None and not is_its_turn and not pace.passes():
            self._stop_watching()
            connection.wait_for_turn(pace, self._go_on_in_turn)
            return
        before = exchange.reported
        try:
            progress = sender.pump() if pace is None else sender.pump(pace.piece_bytes)
        except OSError as error:
            connection.broken(error)
            return
        except AsyncSDKError as error:
            connection.drop(error)
            return
        if pace is not None:
            pace.charge(exchange.reported - before)
        if self._is_over:  # abandoned by what it called
            return
        connection.deadlines.since = monotonic()
        if progress is Progress.DONE:
            connection.all_sent()
        elif progress is Progress.COLD:
            self._stop_watching()
            connection.in_thread(sender.warm, self.go_on)
        elif not self._is_watching:
            self._is_watching = True
            self._loop.add_writer(connection.link.sock.fileno(), self.go_on)

    def _go_on_in_turn(self) -> None:
        self.go_on(is_its_turn=True)

    def stop(self) -> None:
        """Send nothing more. Calling it again does nothing."""
        if self._is_over:
            return
        self._is_over = True
        buffer = self._sender.release()
        if buffer is not None:
            self._owner.pool.buffers.lend_back(buffer)
        self._stop_watching()

    def _stop_watching(self) -> None:
        if self._is_watching:
            self._is_watching = False
            if not self._loop.is_closed():  # then it watches nothing any more
                self._loop.remove_writer(self._connection.link.sock.fileno())
