"""One connection: sends a request, reads its reply, is used again.

Driven by the event loop's readiness callbacks alone; no task, no future, no timer of its own. The socket is watched for
reading as long as the connection lives: so a server's goodbye to an idle one is noticed when it comes, and an early
reply while the body still goes out.
"""

from __future__ import annotations

import asyncio
import errno
from time import monotonic
from typing import TYPE_CHECKING

from asyncsdk.errors import AsyncSDKError
from asyncsdk.transport.base import BytesBody
from asyncsdk.transport.lean.deadlines import Deadlines
from asyncsdk.transport.lean.delayed import Delayed
from asyncsdk.transport.lean.exchange import Exchange
from asyncsdk.transport.lean.heads import HeadWriter
from asyncsdk.transport.lean.replies import ReplyReader
from asyncsdk.transport.lean.sending import read_whole
from asyncsdk.transport.lean.writing import Writer

if TYPE_CHECKING:
    from asyncsdk.transport.lean.connecting import Link
    from asyncsdk.transport.lean.pipe import TlsPipe
    from asyncsdk.transport.lean.transport import LeanTransport
    from asyncsdk.transport.pacing import Turn
    from asyncsdk.transport.urls import Address

__all__ = ["SMALL_BYTES", "Connection"]

SMALL_BYTES = 64 * 1024
"""Up to here head and body go out by one system call."""

_READS_PER_TURN = 4
"""Full buffers taken before other connections get their turn."""


class Connection(Delayed):
    """Carries one exchange at a time.

    Attributes:
        address: Whose it is.
        root: How URLs begin that lead there; their targets begin at ``root_size``.
        heads: Writes the heads of its requests.
        link: Socket, TLS, and whether requests go through a proxy in absolute form.
        exchange: The one under way; None: idle.
        deadlines: How long that may still take.
        served: Replies that came whole.
        memory_bytes: What it holds of the budget, taken and given back by the pool.
    """

    __slots__ = (
        "_buffer",
        "_is_holding",
        "_is_last",
        "_is_sent",
        "_writer",
        "address",
        "heads",
        "link",
        "memory_bytes",
        "root",
        "root_size",
        "served",
    )

    def __init__(self, owner: LeanTransport, address: Address, link: Link, loop: asyncio.AbstractEventLoop) -> None:
        self.address = address
        self.memory_bytes = 0
        self.root = address.root
        self.root_size = len(self.root) - 1
        self.heads = HeadWriter(address.authority)
        self.link = link
        self.exchange: Exchange | None = None
        self.deadlines = Deadlines(monotonic())
        self.served = 0
        self.is_closed = False
        self._owner = owner
        self._loop = loop
        self._sock = link.sock
        self._pipe = link.tls
        self._reader = ReplyReader()
        self._writer: Writer | None = None  # of what does not go out at once
        self._send_error: OSError | None = None  # nothing more can be sent; the reply may still be there to read
        # A reply that is whole but for the thread that writes it: whether to keep the connection.
        self._unfinished: bool | None = None
        self._is_sent = False
        self._is_last = False
        self._is_holding = False  # the body waits for `100 Continue`
        self._is_reading = True
        self._turn: Turn | None = None  # waited for, because there is a limit of bytes per second
        self._turn_since = 0.0
        self._buffer = owner.buffer
        self._view = owner.view
        self._watcher = owner.watcher
        self._watcher.watch(self._sock.fileno(), self._on_readable)

    # --- out -------------------------------------------------------------------------------------------------

    def start(self, exchange: Exchange, head: bytes, size: int, *, hold_seconds: float = 0.0) -> None:
        """Send *exchange*, whose head ``heads`` has just written. The connection is idle.

        Args:
            size: Bytes of its body; 0 without one.
            hold_seconds: How long a large body waits for the server to ask for it.

        Raises:
            AsyncSDKError: Its file cannot be read; nothing was sent.
        """
        request, owner = exchange.request, self._owner
        if 0 < size <= SMALL_BYTES:
            body = request.body
            head += body.data if isinstance(body, BytesBody) else read_whole(body, size)  # type: ignore[arg-type]
        self.exchange = exchange
        exchange.connection = self
        self._reader.begin(request)
        self._is_sent = False
        self._is_last = self.heads.says_close
        timeouts = request.timeouts or owner.timeouts
        self.deadlines.begin(timeouts, monotonic())
        if timeouts is not owner.timed:
            owner.watch(timeouts)
        try:
            if self._pipe is not None:
                head = self._pipe.encrypt(head)
            self._is_holding = hold_seconds > 0
            if size and (pace := self._owner.sent_pace) is not None:
                if size <= SMALL_BYTES and not self._is_holding and pace.passes():
                    pace.charge(size)
                elif not self._is_holding:
                    self._send_rest(memoryview(head), size if size <= SMALL_BYTES else 0)
                    return
            # With a large body behind it, the head is left to the sender.
            count = self._sock.send(head) if size <= SMALL_BYTES or self._is_holding else 0
        except BlockingIOError:
            count = 0
        except OSError as error:
            self.broken(error)
            return
        if count < len(head):
            self._is_holding = False  # a full socket on an idle connection is not worth a state of its own
            self._send_rest(memoryview(head)[count:], size if size <= SMALL_BYTES else 0)
        elif self._is_holding:
            self.deadlines.phase = "reply"
            self._loop.call_later(hold_seconds, self._let_go, exchange)
        else:
            if size:
                exchange.moved(size)
            self._is_sent = True
            self.deadlines.phase = "reply"

    def _let_go(self, exchange: Exchange) -> None:
        """Send the body that was held back: the server asked for it, or says nothing."""
        if self._is_holding and self.exchange is exchange and not self._reader.has_head:
            self._is_holding = False
            self.deadlines.begin(exchange.request.timeouts or self._owner.timeouts, monotonic())
            self._send_rest(memoryview(b""), 0)

    def _send_rest(self, pending: memoryview, pending_body: int) -> None:
        assert self.exchange is not None
        self._writer = Writer(self, self._owner, self._loop, self.exchange, pending, pending_body)
        self._writer.go_on()

    def all_sent(self) -> None:
        """Wait for the reply: the writer is done."""
        self._stop_sending()
        self._is_sent = True
        if not self._reader.has_head:
            self.deadlines.phase = "reply"

    def _stop_sending(self) -> None:
        if self._writer is not None:
            self._writer.stop()
            self._writer = None

    # --- in --------------------------------------------------------------------------------------------------

    def _on_readable(self, *, is_its_turn: bool = False) -> bool:
        """Read what there is, up to a limit; False: there was nothing."""
        if self._owner.received_pace is not None and self.exchange is not None and self.exchange.request.body is None:
            return self._read_paced(self._owner.received_pace, is_its_turn=is_its_turn)
        if self._pipe is not None:
            return self._read_encrypted(self._pipe)
        left = _READS_PER_TURN
        while left:
            left -= 1
            try:
                count = self._sock.recv_into(self._buffer)
            except BlockingIOError:
                return False
            except OSError as error:
                self.broken(error)
                return False
            if count == 0:
                self._ended()
                return False
            self._take(self._view[:count])
            if count < len(self._view) or self.exchange is None or self.is_closed or not self._is_reading:
                break
        return True

    def _read_encrypted(self, pipe: TlsPipe, limit: int = 0) -> bool:
        try:
            count = self._sock.recv_into(self._view, limit)
            pipe.feed(self._view[:count])
        except BlockingIOError:
            return False
        except OSError as error:
            self.broken(error)
            return False
        self._decrypt(pipe)
        return count > 0

    def _decrypt(self, pipe: TlsPipe) -> None:
        try:
            while not self.is_closed and self._is_reading and (size := pipe.read_into(self._owner.plain)):
                self._take(self._owner.plain[:size])
        except OSError as error:  # what came is no TLS
            self.broken(error)
            return
        if self.is_closed or not self._is_reading:
            return
        if pipe.is_closed:
            self._ended()
        elif pipe.is_truncated:
            self.broken(OSError(errno.ECONNRESET, "TLS, cut off"))  # the end of a body may be missing
        elif pipe.has_output and (self._is_sent or self.exchange is None):
            try:  # between pieces of a body it goes along with the next
                self.link.answer_tls()
            except OSError as error:
                self.broken(error)

    def _take(self, view: memoryview) -> None:
        exchange = self.exchange
        if exchange is None:
            self.close()  # an idle server has nothing to say: whatever this is, it answers no request
            return
        reader = self._reader
        try:
            used = reader.feed(view)
        except Exception as error:  # noqa: BLE001  # a sink's or callback's error is handed to whoever asked, unchanged
            self.drop(error)
            return
        if self.exchange is not exchange:  # abandoned by what it called
            return
        if reader.is_done:
            # A buffer that is full to the last byte, a TLS record that has begun: there may be more behind it.
            is_all = used < len(self._view) and self._pipe is None
            reusable = used == len(view) and (is_all or self.link.is_quiet())
            if reader.late:
                self._write_late(reusable=reusable)
            else:
                self._finish(exchange, reusable=reusable)
        elif reader.late:
            self._write_late(reusable=None)
        else:
            now = monotonic()
            self.deadlines.since = now
            if reader.has_head:
                if self.deadlines.phase != "body":
                    self.deadlines.enter_body(now)
            elif reader.may_send and self._is_holding:
                self._let_go(exchange)
            elif self.deadlines.phase != "send":
                self.deadlines.phase = "head" if reader.is_inside_head else "reply"

    def _finish(self, exchange: Exchange, *, reusable: bool) -> None:
        reader, owner = self._reader, self._owner
        reusable = reusable and reader.keep_alive and self._is_sent and not self._is_last
        reply = reader.take()
        self.served += 1
        self.exchange = self._unfinished = None
        exchange.connection = None
        if reusable and exchange.thread is None and not owner.pool.is_short:
            owner.freed = self
            try:
                exchange.succeed(reply)  # most often the next one begins in it, here
            finally:
                if owner.freed is self:
                    owner.freed = None
                    owner.pool.give_back(self)
            return
        if reusable:
            owner.pool.give_back(self)
        else:
            held, self._is_holding = self._is_holding, False
            if not self._is_sent:
                owner.was_refused(self.address, held=held)
            self.close()
            if held and reply.status == 417 and not exchange.is_repeated:
                owner.repeat(exchange)
                return
        if exchange.thread is None:
            exchange.succeed(reply)
        else:  # it brings into memory what need not be sent any more
            exchange.end(lambda: exchange.succeed(reply))

    def _stop_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._watcher.forget(self._sock.fileno())

    # --- the end ---------------------------------------------------------------------------------------------

    def _ended(self) -> None:
        """The server closed its side."""
        exchange = self.exchange
        if exchange is None:
            self.close()
            return
        if self._send_error is not None and self._send_error.errno != errno.EPIPE:
            self._lost(self._reader.broken(self._send_error))  # a reset, which the system tells only once
            return
        try:
            self._reader.end()
        except AsyncSDKError as error:
            self._lost(error)
            return
        self._finish(exchange, reusable=False)

    def broken(self, error: OSError) -> None:
        """End what is under way: the system, or TLS, says that the connection is gone."""
        if error.errno == errno.ETIMEDOUT:
            self._was_silent()
        if self.exchange is None:
            self.close()
        elif self._writer is not None:
            self._drain_early_reply(error)
        else:
            self._lost(self._reader.broken(error))

    def _drain_early_reply(self, error: OSError) -> None:
        """A server that refuses a body may answer, then close: the answer can still be there to read."""
        self._stop_sending()
        self._send_error = error
        exchange = self.exchange
        while self._is_reading and self.exchange is exchange and self._on_readable():
            pass
        if self._is_reading and self.exchange is exchange:  # else a thread writes what came, and reads on
            self._lost(self._reader.broken(error))

    def _lost(self, error: Exception) -> None:
        exchange = self.exchange
        assert exchange is not None
        if self.served and not self._reader.has_begun and exchange.may_be_repeated:
            # A kept connection that died meanwhile: the request is as good as never sent.
            self.detach()
            exchange.end(lambda: self._owner.repeat(exchange))
        else:
            self.drop(error)

    def drop(self, error: Exception) -> None:
        """Close, and let the exchange fail with *error*."""
        exchange = self.exchange
        self.detach()
        if exchange is not None:
            exchange.end(lambda: exchange.fail(error))

    def detach(self) -> None:
        """Close, and leave the exchange to the caller."""
        if self.exchange is not None:
            self.exchange.connection = None
            self.exchange = None
        self.close()

    def close(self) -> None:
        """Close. Calling it again does nothing."""
        if self.is_closed:
            return
        self.is_closed = True
        self._is_holding = False
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        if self._loop.is_closed():  # it watches nothing any more
            self._is_reading = False
        self._stop_sending()
        self._stop_reading()
        self._reader.drop()
        self._sock.close()
        self._owner.pool.forget(self)

    def check_time(self, now: float) -> None:
        """Drop the exchange if it waits for too long."""
        exchange = self.exchange
        if exchange is None or exchange.thread is not None or self._turn is not None:
            return
        url = exchange.request.url
        error = self.deadlines.overdue(now, exchange.reported, self._reader.received, url)
        if error is not None:
            self._was_silent()
            self.drop(error)

    def _was_silent(self) -> None:
        if not self._reader.has_begun:
            self._owner.pool.drop_idle(self.address, self.deadlines.since)
