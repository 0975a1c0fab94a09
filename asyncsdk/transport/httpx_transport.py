"""The transport over httpx: one connection per request in flight, nothing normalised, nothing logged.

Below `httpx.AsyncClient`: the client logs whole URLs at level INFO, adds headers that were not signed, and doubles the
cost of a request. Each connection is an `httpx.AsyncHTTPTransport` of its own, because the pool inside one looks at
every connection twice per request (496 us at 8 connections, 16,900 at 128). A connection that saw an error or a
cancellation is thrown away with its pool.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx

from asyncsdk.errors import (
    ConfigError,
    ConnectionFailed,
    IncompleteTransfer,
    MalformedResponse,
    RequestTimeout,
    redact_url,
)
from asyncsdk.transport.base import (
    MAX_KEPT_BODY_BYTES,
    Headers,
    Reply,
    ReplyHead,
    Request,
    Sink,
    Timeouts,
)
from asyncsdk.transport.failures import no_connection, proxy_refused
from asyncsdk.transport.httpx_pool import Connection, HttpxPool
from asyncsdk.transport.incoming import ends_with_connection, is_cut_off, what_is_wrong
from asyncsdk.transport.memory import Memory
from asyncsdk.transport.outgoing import SMALL_BYTES, ExactURL, Outgoing
from asyncsdk.transport.pacing import Turnstile
from asyncsdk.transport.quiet import is_ours, quieten
from asyncsdk.transport.rates import LeastRate
from asyncsdk.transport.threads import Threads
from asyncsdk.transport.tls import TlsConfig
from asyncsdk.transport.urls import Address, Proxies, split_url

__all__ = ["HttpxTransport"]

_SINK_CHUNK_BYTES = 256 * 1024

_OWN_HEADERS = {"host": "Host", "accept-encoding": "Accept-Encoding"}
"""Headers sent with every request; those given replace them."""


class HttpxTransport:
    """Sends requests through httpx; see `Transport` for what it promises.

    Memory: at most about 1.5 MiB per connection, whatever the size of bodies; drawn from a budget when there is one
    (`draw_on`).

    Args:
        timeouts: For requests that bring none.
        tls: Whom to trust, and who we are; read with the first ``https`` connection.
        max_idle: Connections kept open while nobody uses them.
        threads: Where files are read and sinks written; None starts an own pool.
    """

    def __init__(
        self,
        *,
        timeouts: Timeouts | None = None,
        tls: TlsConfig | None = None,
        max_idle: int = 128,
        threads: Threads | None = None,
    ) -> None:
        self._timeouts = timeouts or Timeouts()
        self._threads = threads or Threads(8)
        self._owns_threads = threads is None
        self._proxies = Proxies()
        self._pool = HttpxPool(tls or TlsConfig(), max_idle)
        self._closed = False
        self._pace: tuple[Turnstile | None, Turnstile | None] = None, None
        quieten()

    async def send(self, request: Request) -> Reply:
        """Send *request* and return its reply; see `Transport.send`.

        A kept connection that turns out to be dead before any byte of the reply came is replaced once, for free;
        what ``on_sent`` was told of it is then taken back with a negative number.
        """
        if self._closed:
            raise ConfigError("the transport is closed")
        address, target = split_url(request.url)
        proxy = self._proxies.for_address(address)
        token = is_ours.set(True)
        try:
            try:
                return await self._exchange(await self._pool.take(address, proxy), request, address, target)
            except _StaleConnection:
                fresh = await self._pool.take(address, proxy, is_fresh=True)
                return await self._exchange(fresh, request, address, target)
        finally:
            is_ours.reset(token)

    def pace(self, sent: Turnstile | None, received: Turnstile | None) -> None:
        """See `PacedTransport`; what is under way goes on as it began."""
        self._pace = sent, received

    def draw_on(self, memory: Memory) -> None:
        """See `BudgetedTransport`."""
        self._pool.draw_on(memory)

    async def aclose(self) -> None:
        """Close all connections. Calling it again does nothing."""
        self._closed = True
        await self._pool.aclose()
        if self._owns_threads:
            self._threads.close()

    async def _exchange(self, connection: Connection, request: Request, address: Address, target: bytes) -> Reply:
        exchange = _Exchange(connection, request, request.timeouts or self._timeouts, self._threads)
        exchange.pace = self._pace
        try:
            reply = await exchange.run(address, target)
        except BaseException:  # cancelled too, the connection is of no more use; raised again
            with anyio.CancelScope(shield=True):
                await self._pool.close(connection)
            raise
        if exchange.keep and connection.is_clean():
            await self._pool.give_back(connection)
        else:
            with anyio.CancelScope(shield=True):
                await self._pool.close(connection)
        return reply


class _StaleConnection(Exception):
    """A kept connection died before a byte of the reply came."""


class _Exchange:
    """One request on one connection."""

    def __init__(self, connection: Connection, request: Request, timeouts: Timeouts, threads: Threads) -> None:
        self._connection = connection
        self._request = request
        self._timeouts = timeouts
        self._threads = threads
        self._phases: dict[str, float | None] = {
            "connect": timeouts.connect,
            "write": timeouts.idle,
            "read": timeouts.reply,
            "pool": None,
        }
        self._reused = connection.served > 0
        self._rate = LeastRate(timeouts)
        self._sent: Outgoing | None = None
        self._head: ReplyHead | None = None
        self._received = 0
        self._pieces: AsyncIterator[bytes] | None = None
        self.keep = True
        self.pace: tuple[Turnstile | None, Turnstile | None] = None, None

    async def run(self, address: Address, target: bytes) -> Reply:
        with self._rate:
            return await self._run(address, target)
        raise RequestTimeout("rate", self._timeouts.rate_seconds, self._request.url)

    async def _run(self, address: Address, target: bytes) -> Reply:
        response: httpx.Response | None = None
        try:
            response = await self._begin(address, target)
            self._phases["read"] = self._timeouts.idle
            self._connection.served += 1
            self._connection.stream = response.extensions.get("network_stream")
            if self._sent is not None and self._sent.cut_short:
                self.keep = False
            return await self._receive(response)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise self._translate(error, begun=response is not None) from None
        except BaseException:  # cancelled too, its generators must run out; raised again
            if response is not None:
                with anyio.CancelScope(shield=True):
                    await self._abandon(response)
            raise

    async def _begin(self, address: Address, target: bytes) -> httpx.Response:
        try:
            return await self._connection.handle(self._build(address, target))
        except (UnicodeError, TypeError):  # headers beyond ASCII or no text, host names that no resolver takes
            raise self._unsendable() from None

    def _unsendable(self) -> ConfigError:
        url = redact_url(self._request.url)
        return ConfigError(f"this request cannot be sent, its URL or headers hold what HTTP forbids: {url}")

    def _build(self, address: Address, target: bytes) -> httpx.Request:
        request = self._request
        headers = {"Host": address.authority, "Accept-Encoding": "identity"}
        for name, value in request.headers.items():
            if name.lower() != "content-length":
                headers[_OWN_HEADERS.get(name.lower(), name)] = value
        if request.body is not None:
            headers["Content-Length"] = str(request.body.size_bytes)
        elif request.method in {"PUT", "POST", "PATCH"}:
            headers["Content-Length"] = "0"
        self._sent = Outgoing(request, self._connection.has_early_reply, self._threads, self._rate, self.pace[0])
        extensions: dict[str, Any] = {"timeout": self._phases, "trace": self._trace}
        if self._connection.forward:
            extensions["target"] = address.root[:-1].encode("ascii") + target
        built = httpx.Request(request.method, address.root, headers=headers, stream=self._sent, extensions=extensions)
        built.url = ExactURL(address.root, target)
        return built

    async def _trace(self, event: str, info: dict[str, Any]) -> None:
        if event in {"connection.connect_tcp.complete", "connection.start_tls.complete"}:
            self._reused = False
            self._connection.stream = info["return_value"]

    async def _receive(self, response: httpx.Response) -> Reply:
        request = self._request
        facts = response.extensions
        wrong = what_is_wrong(facts["http_version"], facts["reason_phrase"], response.headers.raw)
        if wrong is not None:
            raise MalformedResponse(f"{wrong}: {redact_url(request.url)}")
        headers = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw])
        self._head = head = ReplyHead(response.status_code, headers)
        sink = request.on_head(head) if request.on_head is not None else None
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._pieces = pieces = aiter(response.stream)
        self._rate.begin()
        kept = bytearray()
        if sink is None:
            async for data in pieces:
                await self._count(data)
                if len(kept) < MAX_KEPT_BODY_BYTES:
                    kept += data[: MAX_KEPT_BODY_BYTES - len(kept)]
        else:
            await self._fill(pieces, sink)
        self._rate.pause()
        if ends_with_connection(request, head) and is_cut_off(self._connection.stream):
            raise self._broken_body(httpx.ReadError(""), redact_url(request.url))
        await response.aclose()
        return Reply(head.status, headers, bytes(kept), self._received)

    async def _fill(self, pieces: AsyncIterator[bytes], sink: Sink) -> None:
        batch: list[bytes] = []
        size = 0
        async for data in pieces:
            await self._count(data)
            batch.append(data)
            size += len(data)
            if size >= _SINK_CHUNK_BYTES:
                self._rate.hold()
                await self._threads.run(_write_all, sink, batch)
                self._rate.go_on()
                batch, size = [], 0
        self._rate.pause()
        if size > SMALL_BYTES:
            await self._threads.run(_write_all, sink, batch)
        elif batch:
            _write_all(sink, batch)

    async def _abandon(self, response: httpx.Response) -> None:
        """Close the connection, then let the generators that were reading it run out.

        Dropped half-way, they would be finalised by stray tasks of the event loop.
        """
        try:
            await response.aclose()
            if self._pieces is not None:
                async for _ in self._pieces:
                    pass
        except (httpx.HTTPError, OSError, RuntimeError, anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # what reading says after closing; the real error is already on its way

    async def _count(self, data: bytes) -> None:
        self._received += len(data)
        self._rate.moved(len(data))
        if self._request.on_received is not None:
            self._request.on_received(len(data))
        if self.pace[1] is not None and self._request.body is None:
            self._rate.pause()  # waiting for our own limit is no fault of the other side
            await self.pace[1].take(len(data))
            self._rate.begin()

    def _translate(self, error: httpx.TransportError | httpx.InvalidURL, *, begun: bool) -> Exception:
        """Return our error for one of httpx; texts of libraries stay out, they may quote what was sent."""
        url = redact_url(self._request.url)
        if isinstance(error, httpx.ConnectTimeout):
            return RequestTimeout("connect", self._timeouts.connect, url)
        if isinstance(error, httpx.WriteTimeout):
            return RequestTimeout("send", self._timeouts.idle, url)
        if isinstance(error, httpx.TimeoutException):
            return RequestTimeout("reply", self._timeouts.idle if begun else self._timeouts.reply, url)
        if isinstance(error, (httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.InvalidURL)):
            return self._unsendable()
        if begun:
            return self._broken_body(error, url)
        reason = str(error)
        closed = isinstance(error, httpx.NetworkError) or "disconnected" in reason
        if self._reused and closed and self._request.is_repeatable and not isinstance(error, httpx.ConnectError):
            if self._sent is not None:
                self._sent.take_back()
            return _StaleConnection()
        if isinstance(error, httpx.ConnectError):
            return no_connection(error, url)
        if isinstance(error, httpx.ProxyError):
            status = reason[:3]  # its text begins with what the proxy answered
            return proxy_refused(int(status) if status.isdecimal() else None, url)
        if closed:
            return ConnectionFailed(f"the connection broke before a reply came: {url}")
        return MalformedResponse(f"what came back is no HTTP/1.1: {url}")

    def _broken_body(self, error: Exception, url: str) -> Exception:
        declared = self._head.headers.get("content-length", "") if self._head is not None else ""
        if (
            declared.isdecimal()
            and len(declared) < 20
            and "transfer-encoding" not in (self._head.headers if self._head else ())
        ):
            return IncompleteTransfer(int(declared), self._received, source=url, bytes_done=self._received)
        if isinstance(error, httpx.NetworkError) or "closed connection" in str(error):
            return ConnectionFailed(f"the connection broke after {self._received} bytes of the reply: {url}")
        return MalformedResponse(f"the body of the reply is no HTTP/1.1: {url}")


def _write_all(sink: Sink, batch: list[bytes]) -> None:
    sink.write(batch[0] if len(batch) == 1 else b"".join(batch))
