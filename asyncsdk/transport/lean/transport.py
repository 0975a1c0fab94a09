"""The lean transport: HTTP/1.1 on non-blocking sockets of the event loop, nothing made per request but the request."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from time import monotonic

import anyio

from asyncsdk.errors import ConfigError, ConnectionFailed, redact_url
from asyncsdk.transport.base import NOT_IDEMPOTENT, Reply, Request, Timeouts
from asyncsdk.transport.lean.buffers import SPARE_BYTES
from asyncsdk.transport.lean.connecting import LEAST_BYTES, Connector, notice_silence
from asyncsdk.transport.lean.connection import Connection
from asyncsdk.transport.lean.exchange import Exchange, Waiter
from asyncsdk.transport.lean.heads import encode_head
from asyncsdk.transport.lean.pool import Pool
from asyncsdk.transport.lean.watching import Watcher
from asyncsdk.transport.memory import Memory
from asyncsdk.transport.pacing import Turnstile
from asyncsdk.transport.threads import Threads
from asyncsdk.transport.tls import TlsConfig
from asyncsdk.transport.urls import Address, Proxies, split_url

__all__ = ["LeanTransport"]

_logger = logging.getLogger("asyncsdk.transport")

_READ_BYTES = 256 * 1024
_IDLE_CONNECTION_SECONDS = 30.0
"""Below the idle limits of common servers (nginx 75 s, AWS load balancers 60 s)."""

_ASK_BYTES = 1024 * 1024
_ASK_SECONDS = 60.0
_HOLD_SECONDS = 1.0
"""How long a body waits for ``100 Continue``. Some servers never send one (RFC 9110 section 10.1.1)."""

_MAX_REFUSED = 256
_SHORTEST_SWEEP_SECONDS = 0.02
_LONGEST_SWEEP_SECONDS = 1.0


class LeanTransport:
    """Sends requests over connections of its own; see `Transport` for what it promises.

    For one event loop: the one that is running when it is made. It must know ``add_reader`` (see `can_run`).
    Memory: 1 MiB, 384 KiB per connection (768 with TLS), and 1 MiB per body of 16 MiB or more that is being sent from a
    file; drawn from a budget when there is one (`draw_on`).

    Args:
        timeouts: For requests that bring none.
        tls: How servers are verified.
        max_idle: Connections kept open while nobody uses them.
        threads: Where files are read that the page cache does not hold; None starts an own pool.

    Attributes:
        pool: The connections, and who waits for one.
        watcher: Tells connections that there is something to read.
        freed: The connection whose exchange is being told of its end: for the next one that begins. None: there is no
            such one.
        timed: The limits that the sweep was arranged for last; None: there is no sweep.
    """

    def __init__(
        self,
        *,
        timeouts: Timeouts | None = None,
        tls: TlsConfig | None = None,
        max_idle: int = 128,
        threads: Threads | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.timeouts = timeouts or Timeouts()
        self.buffer = bytearray(_READ_BYTES)
        self.view = memoryview(self.buffer)
        self.plain = memoryview(bytearray(_READ_BYTES))
        self.watcher = Watcher(self._loop)
        self.freed: Connection | None = None
        self._threads = threads or Threads(8)
        self._owns_threads = threads is None
        self._connector = Connector(tls or TlsConfig(), Proxies())
        self.pool = Pool(self._loop, max_idle, self._connector.memory_bytes, self._connect, self._start)
        self._connecting: dict[asyncio.Task[None], int] = {}  # with the memory of what has no connection yet
        self._working: set[asyncio.Future[None]] = set()
        self._sweep: asyncio.TimerHandle | None = None
        self._sweep_seconds = _LONGEST_SWEEP_SECONDS
        self.timed: Timeouts | None = None
        self._refused: dict[Address, float] = {}
        self.sent_pace: Turnstile | None = None
        self.received_pace: Turnstile | None = None
        self._closed = False

    @staticmethod
    def can_run(loop: asyncio.AbstractEventLoop) -> bool:
        """Whether *loop* can watch sockets; those of Windows (Proactor) and some others cannot."""
        left, right = socket.socketpair()
        with left, right:
            try:
                loop.add_reader(left.fileno(), lambda: None)
            except NotImplementedError:
                return False
            loop.remove_reader(left.fileno())
            return True

    async def send(self, request: Request) -> Reply:
        """Send *request* and return its reply; see `Transport.send`.

        A kept connection that turns out to be dead before any byte of the reply came is replaced once, for free;
        what ``on_sent`` was told of it is then taken back with a negative number. For a POST or PATCH, which must not
        be done twice, it is only replaced when that is known before the request goes out.
        """
        waiter = Waiter(request)
        self.begin(waiter)
        try:
            return await waiter.future
        except BaseException:  # cancelled above all: nothing of the exchange may go on; raised again
            await self._abandon(waiter)
            raise

    def begin(self, exchange: Exchange) -> None:
        """Start *exchange*; it is told how it ends, never before this returns unless by an error of its file.

        Raises:
            ConfigError: The request cannot be sent as it is, or the transport is closed.
        """
        if self._closed:
            raise ConfigError("the transport is closed")
        request = exchange.request
        url = request.url
        connection, self.freed = self.freed, None
        if connection is not None:
            # Most go where the one before them went: what follows says the same, at ten times the cost.
            is_same = url.startswith(connection.root) and url.isascii() and "#" not in url
            if is_same and (request.method not in NOT_IDEMPOTENT or connection.link.is_quiet()):
                exchange.address = connection.address
                exchange.target = url[connection.root_size :].encode("ascii")
                self._start(connection, exchange)
                return
            self.pool.give_back(connection)
        address, exchange.target = split_url(url)
        exchange.address = address
        connection = None if self.pool.waiting else self.pool.take_idle(address)
        if connection is not None:
            self._start(connection, exchange)
        else:
            size = None if request.body is None else request.body.size_bytes
            try:  # what cannot be sent needs no connection
                encode_head(request.method, exchange.target, address.authority, request.headers, size)
            except (ConfigError, TypeError):
                raise _unsendable(request) from None
            self.pool.ask(exchange)

    def abandon(self, exchange: Exchange) -> asyncio.Future[None] | None:
        """Drop *exchange* without telling it. Returns the thread that still uses its file or sink, if one does."""
        connecting, exchange.connecting = exchange.connecting, None
        if connecting is not None:
            connecting.cancel()
        self.pool.forsake(exchange)
        if exchange.connection is not None:
            exchange.connection.detach()
        exchange.forget_ending()
        return exchange.thread

    def pace(self, sent: Turnstile | None, received: Turnstile | None) -> None:
        """See `PacedTransport`; small heads and replies without a body are not counted."""
        self.sent_pace, self.received_pace = sent, received

    def draw_on(self, memory: Memory) -> None:
        """See `BudgetedTransport`."""
        own_bytes = 2 * _READ_BYTES + SPARE_BYTES
        self.pool.draw_on(memory, own_bytes, own_bytes + LEAST_BYTES)

    def phases(self) -> dict[int, str]:
        """Return what each request under way waits for, by the `id` of the request.

        ``send``, ``reply`` (its first byte), ``head`` or ``body`` (the rest of it); ``thread``: a file that is read or
        written; ``memory``: for a connection, until there is memory for it. A request whose connection is being made is
        not told of.
        """
        phases = {id(exchange.request): "memory" for exchange in self.pool.waiting}
        return phases | {
            id(exchange.request): connection.deadlines.phase if exchange.thread is None else "thread"
            for connection in self.pool.connections
            if (exchange := connection.exchange) is not None
        }

    async def aclose(self) -> None:
        """Close all connections. Calling it again does nothing.

        What is under way fails. Returns when no thread uses a file or sink of it any more.
        """
        self._closed = True
        for exchange in self.pool.close():
            if not self._loop.is_closed():  # else nobody can be told any more
                exchange.fail(ConnectionFailed("the transport was closed"))
        for connection in list(self.pool.connections):
            if self._loop.is_closed():
                connection.detach()
            else:
                connection.drop(ConnectionFailed("the transport was closed"))
        for task in self._connecting:
            task.cancel()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        if self._owns_threads:
            self._threads.close()
        waiting: set[asyncio.Future[None]] = {*self._connecting, *self._working}
        if waiting and not self._loop.is_closed():
            with anyio.CancelScope(shield=True):
                await asyncio.wait(waiting)
        self.watcher.close()
        self.pool.memory.end()

    async def _abandon(self, exchange: Exchange) -> None:
        connecting = exchange.connecting
        thread = self.abandon(exchange)
        # The caller is about to close the file that a thread may be reading.
        waiting = [future for future in (connecting, thread) if future is not None and not future.done()]
        with anyio.CancelScope(shield=True):
            while waiting:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait(waiting)
                waiting = [future for future in waiting if not future.done()]

    # --- connections -----------------------------------------------------------------------------------------

    def _start(self, connection: Connection, exchange: Exchange) -> None:
        link, request, target = connection.link, exchange.request, exchange.target
        more, hold_seconds = link.proxy_headers, 0.0
        if self._refused and self._is_worth_asking(exchange):
            hold_seconds = min(_HOLD_SECONDS, (request.timeouts or self.timeouts).reply / 2)
            more += b"Expect: 100-continue\r\n"
        if link.forward:
            target = exchange.address.root[:-1].encode("ascii") + target
        size = None if request.body is None else request.body.size_bytes
        try:
            try:
                head = connection.heads.write(request.method, target, request.headers, size, more)
            except (ConfigError, TypeError):
                raise _unsendable(request) from None
            connection.start(exchange, head, size or 0, hold_seconds=hold_seconds)
        except BaseException:  # a file that cannot be read, a header that cannot be sent: raised again, all of them
            connection.detach()
            raise

    def _connect(self, exchange: Exchange, memory_bytes: int) -> None:
        task = self._loop.create_task(self._connect_and_start(exchange))
        exchange.connecting = task
        self._connecting[task] = memory_bytes
        task.add_done_callback(partial(self._has_connected, exchange))

    def _has_connected(self, exchange: Exchange, task: asyncio.Task[None]) -> None:
        memory_bytes = self._connecting.pop(task)
        if memory_bytes:
            self.pool.not_made(memory_bytes)
        # Told here, not in the task: one that is cancelled before its first step never runs.
        if self._closed and exchange.connecting is task:
            exchange.connecting = None
            exchange.fail(ConnectionFailed("the transport was closed"))

    async def _connect_and_start(self, exchange: Exchange) -> None:
        timeouts = exchange.request.timeouts or self.timeouts
        task = exchange.connecting
        assert task is not None
        try:
            link = await self._connector.connect(exchange.address, timeouts.connect)
            notice_silence(link.sock, timeouts.idle)
            connection = Connection(self, exchange.address, link, self._loop)
            memory_bytes, self._connecting[task] = self._connecting[task], 0
            self.pool.made(connection, memory_bytes)
            exchange.connecting = None
            self._start(connection, exchange)
        except Exception as error:  # noqa: BLE001  # handed to whoever asked, unchanged
            exchange.connecting = None
            exchange.fail(error)

    def repeat(self, exchange: Exchange) -> None:
        """Send *exchange* once more, on a fresh connection."""
        if self._closed:
            exchange.fail(ConnectionFailed("the transport was closed"))
            return
        exchange.is_repeated = True
        exchange.take_back()
        self.pool.ask(exchange)

    # --- asking before a large body is sent ------------------------------------------------------------------

    def was_refused(self, address: Address, *, held: bool) -> None:
        """A server answered before it had the body; for a while, it is asked before it gets a large one.

        Args:
            held: The body had been held back and was never sent: asking paid.
        """
        if len(self._refused) > _MAX_REFUSED:
            self._refused.clear()
        self._refused[address] = monotonic() + _ASK_SECONDS
        if not held:
            _logger.debug("%s answers before it has the body: it is asked first from now on", address.root)

    def _is_worth_asking(self, exchange: Exchange) -> bool:
        """Whether the body is large and its server refused one lately. Asking costs a round trip."""
        body = exchange.request.body
        if body is None or body.size_bytes < _ASK_BYTES or exchange.is_repeated:
            return False
        if self._refused.get(exchange.address, 0.0) > monotonic():
            return not any(name.lower() == "expect" for name in exchange.request.headers)
        self._refused.pop(exchange.address, None)
        return False

    # --- what connections share ------------------------------------------------------------------------------

    def in_thread(self, function: Callable[[], None]) -> asyncio.Future[None]:
        """Run *function* in a thread."""
        started: Future[None] = self._threads.submit(function)
        future = asyncio.wrap_future(started)
        self._working.add(future)
        future.add_done_callback(self._working.discard)
        return future

    # --- deadlines -------------------------------------------------------------------------------------------

    def watch(self, timeouts: Timeouts) -> None:
        """Make sure that somebody looks after the deadlines of an exchange that begins."""
        if timeouts is not self.timed:
            self.timed = timeouts
            shortest = min(timeouts.idle, timeouts.reply, timeouts.rate_seconds) / 5
            wanted = max(_SHORTEST_SWEEP_SECONDS, min(_LONGEST_SWEEP_SECONDS, shortest))
            if wanted < self._sweep_seconds:
                self._sweep_seconds = wanted
                if self._sweep is not None:
                    self._sweep.cancel()
                    self._sweep = None
        if self._sweep is None:
            self._sweep = self._loop.call_later(self._sweep_seconds, self._look_around)

    def _look_around(self) -> None:
        self._sweep = None
        now = monotonic()
        for connection in list(self.pool.connections):
            if connection.exchange is not None:
                connection.check_time(now)
            elif now - connection.deadlines.since > _IDLE_CONNECTION_SECONDS:
                connection.close()
        if self._sweep is not None:
            return  # what failed just now was followed by something with limits of its own
        if self.pool.connections and not self._closed:
            self._sweep = self._loop.call_later(self._sweep_seconds, self._look_around)
        else:
            self._sweep_seconds, self.timed = _LONGEST_SWEEP_SECONDS, None


def _unsendable(request: Request) -> ConfigError:
    return ConfigError(
        "this request cannot be sent, its URL or headers hold what HTTP forbids: " + redact_url(request.url)
    )
