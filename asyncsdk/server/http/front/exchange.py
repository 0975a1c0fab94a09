"""Where a connection stands between a request and what follows its reply: replies, refusals, timeouts, the end.

What to answer is the business of `connection`; this is what all answers have in common.

Source: RFC 9112 sections 9.3 (persistence), 9.6 (closing with bytes on the way).
"""

from __future__ import annotations

import logging
import socket
from abc import abstractmethod
from contextlib import suppress

from asyncsdk.errors import AsyncSDKError, ServerError
from asyncsdk.server.http.bodies import ClientGone
from asyncsdk.server.http.front.framing import Body, LengthBody
from asyncsdk.server.http.front.handover import Handover
from asyncsdk.server.http.front.heads import MalformedRequest, RequestHead
from asyncsdk.server.http.front.objects import Put
from asyncsdk.server.http.front.pumping import PumpRun
from asyncsdk.server.http.front.rendering import render_head
from asyncsdk.server.http.front.shared import Shared
from asyncsdk.server.http.front.stream import NEVER, Stream
from asyncsdk.server.http.replies import FAILED, InternalError, Reply, error_reply, error_status

__all__ = ["NO_BODY", "Exchange", "Mode"]

logger = logging.getLogger("asyncsdk.server")

DRAIN_BYTES = 1024 * 1024
"""Of a body nobody wants: up to this it is read over and the connection goes on, beyond it is closed."""

LINGER_BYTES = 64 * 1024 * 1024
"""Read over at most after the last reply: closing on unread bytes would take the reply away from the client."""

NO_BODY = LengthBody(0)

_CLOSE = b"connection: close\r\n"


class Mode:
    """What a connection is at. Not an `enum.Enum`: its members cost 20 us for each request on Python 3.11."""

    HEAD = "waits for the head of a request"
    COLLECT = "collects a small body"
    HANDED = "the application answers"
    PUMPED = "a thread has the socket"
    DRAIN = "reads over a body that nobody wanted"
    LINGER = "answered for the last time, reads over what is on the way"


class Exchange(Stream):
    """One request and its reply after the other. `connection.Connection` says what is answered.

    Args:
        shared: What all connections share; this one registers itself there and leaves when it is closed.
        accepted: The socket, non-blocking.
    """

    __slots__ = (
        "_body",
        "_body_expires",
        "_chunks",
        "_handover",
        "_head",
        "_lingered",
        "_mode",
        "_pending",
        "_put",
        "_request_id",
        "_run",
        "_stays",
    )

    def __init__(self, shared: Shared, accepted: socket.socket) -> None:
        super().__init__(shared, accepted)
        self._mode = Mode.HEAD
        self._head: RequestHead | None = None
        self._request_id = ""
        self._body: Body = NO_BODY
        self._body_expires = NEVER
        self._pending = b""
        self._chunks: list[bytes] = []
        self._put: Put | None = None
        self._handover: Handover | None = None
        self._run: PumpRun | None = None
        self._lingered = 0
        self._stays = True  # whether another request may follow the present one
        self.expires = shared.now() + shared.limits.head_seconds
        shared.connections.add(self)

    def __repr__(self) -> str:
        return f"<Connection {self._mode}{', gone' if self.is_gone else ''}, {len(self._out)} bytes to send>"

    @abstractmethod
    def _advance(self) -> None:
        """Go on with what is pending, as far as that goes without waiting."""

    # --- replies -------------------------------------------------------------------------------------------------

    def _reply(self, reply: Reply) -> None:
        self._drop_body()
        head = self._rendered(reply)
        has_body = reply.body and not (self._head is not None and self._head.method == "HEAD")
        self.write(head + reply.body if has_body else head)
        self._log(reply.status)
        self._next()

    def _drop_body(self) -> None:
        """Read over what is here of a body that nobody wants any more."""
        if self._pending and self._body.left != 0:
            try:
                _, self._pending = self._body.take(self._pending)
            except MalformedRequest:
                self._pending = b""
                self._stays = False

    def _rendered(self, reply: Reply) -> bytes:
        extra = b"x-request-id: %b\r\n" % self._request_id.encode()
        if reply.status >= 400 and (b"connection", b"close") in reply.headers:
            self._stays = False
        elif not self.keeps_alive():
            extra += _CLOSE
        return render_head(reply.status, reply.framed(), self._shared.date(), extra=extra)

    def _next(self) -> None:
        """Go on after a reply."""
        if self.is_gone:
            return
        limits, now = self._shared.limits, self._shared.now()
        left = self._body.left
        if not self._stays or left is None:
            self._mode = Mode.LINGER
            self._pending = b""
            wait = limits.linger_seconds
        elif left:
            self._mode = Mode.DRAIN
            self._body_expires = now + limits.idle_seconds + left / limits.bytes_per_second
            wait = limits.idle_seconds
        else:
            self._mode = Mode.HEAD
            wait = limits.head_seconds
        self.expires = now + (limits.idle_seconds if self._out else wait)

    def _fail(self, error: BaseException) -> None:
        """Tell the client what went wrong; the log too, when it is not the client's fault."""
        if not isinstance(error, AsyncSDKError) or error_status(error) in {500, 507}:
            self._note(error)
        told = error if isinstance(error, AsyncSDKError) else InternalError()
        is_expecting = self._head is not None and b"expect" in self._head.first
        self._put = None
        self._reply(error_reply(told, self._request_id, is_expecting=is_expecting))

    def _note(self, error: BaseException) -> None:
        assert self._head is not None
        path = self._head.path.decode("latin-1")
        logger.error(FAILED, self._request_id, self._head.method, path, exc_info=error)

    def _log(self, status: int) -> None:
        if self._head is not None and logger.isEnabledFor(logging.DEBUG):
            path = self._head.path.decode("latin-1")
            logger.debug("request %s: %s %s: %d", self._request_id, self._head.method, path, status)

    def keeps_alive(self) -> bool:
        """Whether another request may follow the reply that begins now."""
        left = self._body.left
        self._stays = self._stays and not self._shared.is_closing and left is not None and left <= DRAIN_BYTES
        return self._stays

    def _flushed(self) -> None:
        if self._mode == Mode.HEAD:
            self.expires = self._shared.now() + self._shared.limits.head_seconds
        elif self._mode == Mode.LINGER:
            self.expires = self._shared.now() + self._shared.limits.linger_seconds
        elif self._mode == Mode.HANDED:
            self.expires = NEVER
        else:
            self.expires = min(self._shared.now() + self._shared.limits.idle_seconds, self._body_expires)
        self._advance()

    # --- the end -------------------------------------------------------------------------------------------------

    def expire(self) -> None:
        """End what has taken too long."""
        seconds = self._shared.limits.idle_seconds
        late = ServerError(f"nothing of the body came for {seconds:g} s", status=408, code="request_timeout")
        if self._run is not None:
            self._run.cancel(late)
        elif self._mode == Mode.COLLECT and not self._out:
            self._chunks.clear()
            self._fail(late)
            self._advance()
        else:
            self.break_off()

    @property
    def due(self) -> float:
        """When `expire` is to be called, by the shared clock."""
        return self.expires if self._run is None else self._run.expires

    def retire(self) -> None:
        """Close when nothing is under way, else after the present reply."""
        if self._mode == Mode.HEAD and not self._out and not self._pending:
            self._close()

    def break_off(self) -> None:
        """Close at once; a thread at work on the socket is told first, and waited for."""
        if self.is_gone:
            return
        self._detach()
        if self._handover is not None:
            self._handover.tell()
        if self._run is None:
            self._close()
            return
        with suppress(OSError):  # it is gone already
            self._socket.shutdown(socket.SHUT_RDWR)
        self._run.cancel(ClientGone())

    def _close(self) -> None:
        self._detach()
        if self._handover is not None:
            self._handover.tell()
        self._socket.close()
        self._shared.connections.discard(self)
