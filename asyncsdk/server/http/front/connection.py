"""One connection: requests come in, and one after the other gets its reply.

What it is at, as `exchange.Mode`; bytes that nobody has looked at yet wait in ``_pending``::

    HEAD --+--> COLLECT --> (answered in the loop) --+
           +--> HANDED      the application's        +--> HEAD, or first DRAIN when nobody wanted the body,
           +--> PUMPED      a thread's               +    or LINGER, and closed, when nothing may follow

Guarantees: replies leave in the order of their requests; the socket is closed after the last thread let go of it; a
body that breaks off leaves nothing staged; whoever is refused before the body is out gets the reply all the same.

Source: RFC 9112 sections 9.3 (persistence, pipelining), 9.6 (closing with bytes on the way); RFC 9110 section 10.1.1
(Expect).
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from time import perf_counter
from typing import Any

from asyncsdk.domain.ids import make_id
from asyncsdk.errors import AsyncSDKError, BadRequest
from asyncsdk.server.http.bodies import ClientGone
from asyncsdk.server.http.front.exchange import LINGER_BYTES, NO_BODY, Exchange, Mode
from asyncsdk.server.http.front.framing import LengthBody, body_of
from asyncsdk.server.http.front.handover import Handover, scope_of
from asyncsdk.server.http.front.heads import HeadReader, MalformedRequest, RequestHead
from asyncsdk.server.http.front.objects import SMALL_BYTES, Found, Put
from asyncsdk.server.http.front.pumping import PumpRun
from asyncsdk.server.http.front.pumps import Call, Pump, ReceivePump, SendPump
from asyncsdk.server.http.front.rendering import CONTINUE
from asyncsdk.server.http.front.shared import Shared
from asyncsdk.server.http.front.stream import NEVER
from asyncsdk.server.http.replies import Reply, error_reply, request_id_from

__all__ = ["Connection"]

logger = logging.getLogger("asyncsdk.server")

CHUNKS_KEPT = 64
"""Pieces of a small body before they are joined: two bytes at a time would take thirty times their size."""

REQUESTS_IN_TURN = 32
"""Pipelined requests answered before other connections have their turn."""


class Connection(Exchange):
    """Serves one accepted socket until either side closes it.

    Args:
        shared: What all connections share; this one registers itself there and leaves when it is closed.
        accepted: The socket, non-blocking.
        address: The client's.
    """

    __slots__ = ("_address", "_is_advancing", "_reader")

    def __init__(self, shared: Shared, accepted: socket.socket, address: tuple[Any, ...]) -> None:
        super().__init__(shared, accepted)
        self._address = address
        self._reader: HeadReader | None = None
        self._is_advancing = False
        self._read(True)

    # --- from one request to the next -----------------------------------------------------------------------------

    def _received(self, data: bytes) -> None:
        if self._mode == Mode.LINGER:
            self._lingered += len(data)
            if self._lingered > LINGER_BYTES:
                self.break_off()
            return
        self._pending = self._pending + data if self._pending else data
        self._advance()

    def _advance(self) -> None:
        """Go on with what is pending, as far as that goes without waiting."""
        if self._is_advancing:
            return  # called from within: the loop below goes on
        self._is_advancing = True
        turns = REQUESTS_IN_TURN
        try:
            while self._pending and not self.is_gone:
                if self._mode == Mode.HEAD:
                    if self._out or not turns:
                        break
                    turns -= 1
                    self._read_head()
                elif self._mode in (Mode.COLLECT, Mode.HANDED, Mode.DRAIN) and self._body.left != 0:
                    self._take_body()
                else:
                    break
        except MalformedRequest as error:
            self._refuse_malformed(error)
        finally:
            self._is_advancing = False
        if self._pending and self._mode == Mode.HEAD and not self._out:
            self._read(False)
            self._shared.loop.call_soon(self._advance)
        else:
            self._settle()

    def _settle(self) -> None:
        """Receive as the mode wants it; close what is over."""
        match self._mode:
            case Mode.HEAD:
                if self._pending or self._out:
                    self._read(not self._out)
                elif self.has_ended:
                    self._close()
                elif self._shared.is_closing:  # since the reply began, which promised that the connection goes on
                    self._stays = False
                    self._next()
                    self._settle()
                else:
                    self._read(True)
            case Mode.COLLECT | Mode.DRAIN:
                self._read(True)
            case Mode.HANDED:
                assert self._handover is not None
                self._read(self._body.left != 0 and not self._handover.is_full)
            case Mode.PUMPED:
                self._read(False)
            case Mode.LINGER:
                self._shut_output()
                if self.has_ended and not self._out:
                    self._close()
                else:
                    self._read(True)

    def _ended(self) -> None:
        # Who has sent a whole request and closes that half may still listen for replies.
        if self._mode in (Mode.COLLECT, Mode.DRAIN) or (self._mode == Mode.HANDED and self._body.left != 0):
            self.break_off()
        else:
            self._settle()

    def _read_head(self) -> None:
        reader = self._reader = self._reader or HeadReader()
        data, self._pending = self._pending, b""
        read = reader.feed(data)
        if read is None:
            return
        self._reader = None
        head, self._pending = read
        self._head = head
        self._body = body_of(head) if head.has_body else NO_BODY
        self._stays = head.keep_alive and not head.is_http_1_0
        objects = self._shared.objects
        if not objects.is_for(head):
            self._hand_over(head)
            return
        self._request_id = request_id_from(head.first.get(b"x-request-id"))
        try:
            if head.method == "PUT":
                self._begin_put(head, objects.put(head))
            else:
                self._begin_get(head)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer, and the log the reason
            self._fail(error)

    def _take_body(self) -> None:
        data, self._pending = self._pending, b""
        pieces, self._pending = self._body.take(data)
        is_whole = self._body.left == 0
        if self._mode == Mode.HANDED:
            assert self._handover is not None
            self._handover.feed(pieces, is_whole=is_whole)
            return
        self.expires = min(self._shared.now() + self._shared.limits.idle_seconds, self._body_expires)
        if self._mode == Mode.COLLECT:
            self._chunks += pieces
            if len(self._chunks) > CHUNKS_KEPT:
                self._chunks = [b"".join(self._chunks)]
        if not is_whole:
            return
        if self._mode == Mode.DRAIN:
            self._next()
        else:
            chunks, self._chunks = self._chunks, []
            self._stage(chunks[0] if len(chunks) == 1 else b"".join(chunks))

    def _refuse_malformed(self, error: MalformedRequest) -> None:
        self._reader = None
        self._pending = b""
        self._stays = False
        self._body = NO_BODY
        logger.debug("a malformed request: %s", error)
        if self._mode == Mode.HANDED or self.is_gone:
            self.break_off()  # the application may have answered already
            return
        self._head = None
        self._request_id = make_id()
        refused = BadRequest("this is no HTTP request, or its head is too large")
        self._reply(error_reply(refused, self._request_id, is_expecting=False))

    # --- bytes of objects ----------------------------------------------------------------------------------------

    def _begin_put(self, head: RequestHead, put: Put) -> None:
        self._put = put
        if head.expects_continue and put.size_bytes and not self._pending:
            self.write(CONTINUE)
        if put.size_bytes > SMALL_BYTES:
            _, rest = self._body.take(self._pending)
            first = self._pending[: len(self._pending) - len(rest)]
            self._pending = rest
            pump = ReceivePump(self._socket, put, first)
            self._body = NO_BODY  # what is left of it, the pump knows
            self._pump(pump, lambda: self._reply(pump.reply), pump)
        elif put.size_bytes:
            limits = self._shared.limits
            self._mode = Mode.COLLECT
            self._body_expires = self._shared.now() + limits.idle_seconds + put.size_bytes / limits.bytes_per_second
            self.expires = self._shared.now() + limits.idle_seconds
        else:
            self._stage(b"")

    def _stage(self, body: bytes) -> None:
        put, self._put = self._put, None
        assert put is not None
        if put.stage is None:
            self._call(lambda: _take_at_once(put, body), self._reply)
        elif self._shared.pace.is_slow:
            stage = put.stage
            self._call(lambda: stage(body), self._reply)
        else:
            started = perf_counter()
            try:
                reply = put.stage(body)
            except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer, and the log the reason
                self._fail(error)
                return
            self._shared.pace.took(perf_counter() - started)
            self._reply(reply)

    def _begin_get(self, head: RequestHead) -> None:
        objects, pace = self._shared.objects, self._shared.pace
        if pace.is_slow:
            self._call(lambda: objects.find(head), self._answer_found, _close_found)
            return
        started = perf_counter()
        found = objects.find(head)
        pace.took(perf_counter() - started)
        self._answer_found(found)

    def _answer_found(self, found: Found) -> None:
        if found.descriptor < 0:
            self._reply(found.reply)
            return
        self._drop_body()
        pump = SendPump(self._socket, self._rendered(found.reply), found)
        self._log(found.reply.status)
        self._pump(pump, self._next, None)

    def _call(
        self, function: Callable[[], Any], then: Callable[[Any], None], discard: Callable[[Any], None] | None = None
    ) -> None:
        call = Call(function, discard)
        self._pump(call, lambda: then(call.take()), None)

    def _pump(self, pump: Pump, then: Callable[[], None], receiving: ReceivePump | None) -> None:
        """Have *pump* run, then go on with *then*."""
        is_sending = isinstance(pump, SendPump)

        def ended(error: BaseException | None) -> None:
            self._run = None
            if self.is_gone or isinstance(error, ClientGone):
                self._close()
                return
            if receiving is not None:
                self._body = LengthBody(receiving.left)
            self._mode = Mode.HEAD
            if error is None:
                then()
            elif is_sending:  # half a reply is out: only breaking the connection tells the client
                if not isinstance(error, AsyncSDKError):
                    self._note(error)
                self._close()
            else:
                self._fail(error)
            self._advance()

        self._mode = Mode.PUMPED
        self.expires = NEVER
        self._read(False)
        self._run = PumpRun(self._shared, self._socket, pump, ended)
        self._run.start()

    # --- everything else -----------------------------------------------------------------------------------------

    def _hand_over(self, head: RequestHead) -> None:
        shared = self._shared
        self._mode = Mode.HANDED
        self.expires = NEVER
        scope = scope_of(head, self._address, shared.server_address)
        self._handover = Handover(shared.application, scope, head, self, shared.date)
        task = shared.loop.create_task(self._handover.run())
        shared.tasks.add(task)
        task.add_done_callback(shared.tasks.discard)

    def read_on(self) -> None:
        """Let more of the body come."""
        if self._mode == Mode.HANDED:
            self._settle()

    def answered(self, *, keep_alive: bool) -> None:
        """Go on after the application's reply."""
        self._handover = None
        if self.is_gone:
            return
        self._stays = self._stays and keep_alive
        self._next()
        self._advance()


def _take_at_once(put: Put, body: bytes) -> Reply:
    taker, answer = put.begin()
    try:
        taker.write([body])
        return answer(taker.finish())
    finally:
        taker.discard()


def _close_found(found: Found) -> None:
    if found.descriptor >= 0:
        os.close(found.descriptor)
