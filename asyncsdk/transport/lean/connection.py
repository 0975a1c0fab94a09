"""One connection: sends a request, reads its reply, is used again.

Driven by the event loop's readiness callbacks alone; no task, no future, no timer of its own. The socket is watched for
reading as long as the connection lives: so a server's goodbye to an idle one is noticed when it comes, and an early
reply while the body still goes out.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING, Literal

from asyncsdk.errors import AsyncSDKError, RequestTimeout
from asyncsdk.transport.base import BytesBody, FileBody, Timeouts
from asyncsdk.transport.lean.exchange import Exchange
from asyncsdk.transport.lean.replies import ReplyReader
from asyncsdk.transport.lean.sending import Progress, Sender

if TYPE_CHECKING:
    from asyncsdk.transport.lean.connecting import Link
    from asyncsdk.transport.lean.transport import LeanTransport
    from asyncsdk.transport.urls import Address

__all__ = ["SMALL_BYTES", "Connection"]

SMALL_BYTES = 64 * 1024
"""Up to here head and body go out by one system call."""

_READS_PER_TURN = 4
"""Full buffers taken before other connections get their turn."""

Phase = Literal["send", "reply", "body"]


class Connection:
    """Carries one exchange at a time.

    Attributes:
        address: Whose it is.
        link: Socket, TLS, and whether requests go through a proxy in absolute form.
        exchange: The one under way; None: idle.
        since: When something last moved, by the monotonic clock.
        served: Replies that came whole.
    """

    __slots__ = (
        "_buffer",
        "_file_thread",
        "_is_last",
        "_is_sent",
        "_is_writing",
        "_loop",
        "_owner",
        "_phase",
        "_pipe",
        "_rate_bytes",
        "_rate_since",
        "_reader",
        "_sender",
        "_sock",
        "_timeouts",
        "_view",
        "address",
        "exchange",
        "is_closed",
        "link",
        "served",
        "since",
    )

    def __init__(self, owner: LeanTransport, address: Address, link: Link, loop: asyncio.AbstractEventLoop) -> None:
        self.address = address
        self.link = link
        self.exchange: Exchange | None = None
        self.since = monotonic()
        self.served = 0
        self.is_closed = False
        self._owner = owner
        self._loop = loop
        self._sock = link.sock
        self._pipe = link.tls
        self._reader = ReplyReader()
        self._sender: Sender | None = None
        self._file_thread: asyncio.Future[None] | None = None
        self._is_sent = False
        self._is_last = False
        self._is_writing = False
        self._phase: Phase = "send"
        self._timeouts = owner.timeouts
        self._rate_since = 0.0
        self._rate_bytes = 0
        self._buffer = owner.buffer
        self._view = owner.view
        loop.add_reader(self._sock.fileno(), self._on_readable)

    # --- out -------------------------------------------------------------------------------------------------

    def start(self, exchange: Exchange, head: bytes) -> None:
        """Send *exchange*, whose head is written already. The connection is idle.

        Raises:
            AsyncSDKError: Its file cannot be read; nothing was sent.
        """
        request = exchange.request
        body = request.body
        size = 0 if body is None else body.size_bytes
        if 0 < size <= SMALL_BYTES:
            head += body.data if isinstance(body, BytesBody) else _read_all(body, size)  # type: ignore[arg-type]
        self.exchange = exchange
        exchange.connection = self
        self._timeouts = request.timeouts or self._owner.timeouts
        self._reader.begin(request)
        self._is_sent = False
        self._is_last = bool(request.headers) and _says_close(request.headers)
        self._phase = "send"
        self.since = monotonic()
        self._owner.watch(self, self._timeouts)
        if self._pipe is not None:
            head = self._pipe.encrypt(head)
        if size > SMALL_BYTES:
            self._send_rest(memoryview(head), 0)
            return
        try:
            count = self._sock.send(head)
        except BlockingIOError:
            count = 0
        except OSError as error:
            self._broken(error)
            return
        if count == len(head):
            if size:
                exchange.moved(size)
            self._all_sent()
        else:
            self._send_rest(memoryview(head)[count:], size)

    def _send_rest(self, pending: memoryview, pending_body: int) -> None:
        assert self.exchange is not None
        self._rate_since, self._rate_bytes = self.since, self.exchange.reported
        self._sender = Sender(self._sock, self._pipe, self.exchange, pending, pending_body, self._owner.borrow)
        self._on_writable()

    def _on_writable(self) -> None:
        sender = self._sender
        if sender is None:
            self._stop_writing()
            return
        try:
            progress = sender.pump()
        except OSError as error:
            self._broken(error)
            return
        except AsyncSDKError as error:
            self.drop(error)
            return
        self.since = monotonic()
        if progress is Progress.DONE:
            self._stop_sending()
            self._all_sent()
        elif progress is Progress.COLD:
            self._stop_writing()
            self._file_thread = self._owner.in_thread(sender.warm)
            self._file_thread.add_done_callback(self._warmed)
        elif not self._is_writing:
            self._is_writing = True
            self._loop.add_writer(self._sock.fileno(), self._on_writable)

    def _warmed(self, future: asyncio.Future[None]) -> None:
        self._file_thread = None
        if not self.is_closed and self._sender is not None:
            self._on_writable()

    def _all_sent(self) -> None:
        self._is_sent = True
        self._phase = "reply"

    def _stop_sending(self) -> None:
        if self._sender is not None:
            buffer = self._sender.release()
            if buffer is not None:
                self._owner.lend_back(buffer)
            self._sender = None
        self._stop_writing()

    def _stop_writing(self) -> None:
        if self._is_writing:
            self._is_writing = False
            self._loop.remove_writer(self._sock.fileno())

    # --- in --------------------------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        if self._pipe is not None:
            self._read_encrypted()
            return
        for _ in range(_READS_PER_TURN):
            try:
                count = self._sock.recv_into(self._buffer)
            except BlockingIOError:
                return
            except OSError as error:
                self._broken(error)
                return
            if count == 0:
                self._ended()
                return
            self._take(self._view[:count])
            if count < len(self._view) or self.exchange is None or self.is_closed:
                return

    def _read_encrypted(self) -> None:
        pipe = self._pipe
        assert pipe is not None
        try:
            count = self._sock.recv_into(self._buffer)
            pipe.feed(self._view[:count])
            while not self.is_closed and (size := pipe.read_into(self._owner.plain)):
                self._take(self._owner.plain[:size])
        except BlockingIOError:
            return
        except OSError as error:  # TLS errors too
            self._broken(error)
            return
        if self.is_closed:
            return
        if pipe.is_closed:
            self._ended()
        elif pipe.is_truncated:
            self._broken(OSError(errno.ECONNRESET, "TLS, cut off"))  # the end of a body may be missing
        elif pipe.has_output and (self._is_sent or self.exchange is None):
            self._answer_tls()

    def _answer_tls(self) -> None:
        """Send what TLS itself has to say (a key update). Between pieces of a body it goes along with the next."""
        assert self._pipe is not None
        data = self._pipe.take_output()
        try:
            if self._sock.send(data) == len(data):
                return
        except BlockingIOError:
            pass
        except OSError as error:
            self._broken(error)
            return
        self._broken(OSError(errno.ENOBUFS, "no room for TLS itself"))  # full, with nothing to send: not worth a queue

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
            self._finish(exchange, reusable=used == len(view))
            return
        now = monotonic()
        self.since = now
        if reader.has_head and self._phase != "body":
            self._phase = "body"
            self._rate_since, self._rate_bytes = now, 0

    def _finish(self, exchange: Exchange, *, reusable: bool) -> None:
        reader = self._reader
        reusable = reusable and reader.keep_alive and self._is_sent and not self._is_last
        reply = reader.take()
        self.served += 1
        self.exchange = None
        exchange.connection = None
        if reusable:
            self.since = monotonic()
            self._owner.give_back(self)
        else:
            self.close()
        exchange.succeed(reply)

    # --- the end ---------------------------------------------------------------------------------------------

    def _ended(self) -> None:
        """The server closed its side."""
        exchange = self.exchange
        if exchange is None:
            self.close()
            return
        try:
            self._reader.end()
        except AsyncSDKError as error:
            self._lost(error)
            return
        self._finish(exchange, reusable=False)

    def _broken(self, error: OSError) -> None:
        """The system, or TLS, says that the connection is gone."""
        if self.exchange is None:
            self.close()
        elif self._sender is not None:
            self._drain_early_reply(error)
        else:
            self._lost(self._reader.broken(error.strerror or type(error).__name__))

    def _drain_early_reply(self, error: OSError) -> None:
        """A server that refuses a body may answer, then close: the answer can still be there to read."""
        self._stop_sending()
        exchange = self.exchange
        self._on_readable()
        if self.exchange is exchange and exchange is not None and not self.is_closed:
            self._lost(self._reader.broken(error.strerror or type(error).__name__))

    def _lost(self, error: Exception) -> None:
        exchange = self.exchange
        assert exchange is not None
        if self.served and not self._reader.has_begun and not exchange.is_repeated:
            # A kept connection that died meanwhile: the request is as good as never sent.
            self.detach()
            self._owner.repeat(exchange)
        else:
            self.drop(error)

    def drop(self, error: Exception) -> None:
        """Close, and let the exchange fail with *error*."""
        exchange = self.exchange
        self.detach()
        if exchange is not None:
            exchange.fail(error)

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
        self._stop_sending()
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        self._owner.forget(self)

    @property
    def file_thread(self) -> asyncio.Future[None] | None:
        """The thread that reads the file of the exchange right now, if one does."""
        return self._file_thread

    def check_time(self, now: float) -> float:
        """Drop the exchange if it waits for too long; return how many seconds it may go on without moving."""
        exchange = self.exchange
        assert exchange is not None
        limits = self._timeouts
        limit = limits.reply if self._phase == "reply" else limits.idle
        left = self.since + limit - now
        if left <= 0 and self._file_thread is None:
            self.drop(RequestTimeout("send" if self._phase == "send" else "reply", limit, exchange.request.url))
            return limit
        left = max(left, 0.05)
        if limits.rate_bytes and self._phase != "reply":
            self._check_rate(limits, now)
        return left

    def _check_rate(self, limits: Timeouts, now: float) -> None:
        exchange = self.exchange
        assert exchange is not None
        if now - self._rate_since < limits.rate_seconds:
            return
        total = exchange.reported if self._phase == "send" else self._reader.received
        if total - self._rate_bytes < limits.rate_bytes * (now - self._rate_since):
            self.drop(RequestTimeout("rate", limits.rate_seconds, exchange.request.url))
        else:
            self._rate_since, self._rate_bytes = now, total


def _read_all(body: FileBody, size_bytes: int) -> bytes:
    data = body.read(0, size_bytes)
    while len(data) < size_bytes:
        data += body.read(len(data), size_bytes)  # raises at the end of a file that became shorter
    return data


def _says_close(headers: Mapping[str, str]) -> bool:
    """Whether the request asks for the connection to be closed afterwards."""
    for name, value in headers.items():
        if name.lower() == "connection" and "close" in value.lower():
            return True
    return False
