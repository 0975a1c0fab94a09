"""The connections of the transport over httpx: one per request in flight, and how many by the memory they need."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from typing import Any

import anyio
import httpx

from asyncsdk.errors import ConfigError, ConnectionFailed, redact_url
from asyncsdk.transport.incoming import has_more_tls, has_waiting_reply
from asyncsdk.transport.memory import Memory, Unbounded
from asyncsdk.transport.tls import TlsConfig
from asyncsdk.transport.urls import Address

__all__ = ["Connection", "HttpxPool"]

_CONNECTION_BYTES = 1536 * 1024
"""Of memory for a connection: a piece of a file (1 MiB) and what of it the socket did not take, or what a sink is given
next (256 KiB), and buffers of httpcore, h11 and TLS."""

_IDLE_CONNECTION_SECONDS = 30.0
"""Below the idle limits of common servers (nginx 75 s, AWS load balancers 60 s)."""

_LIMITS = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=_IDLE_CONNECTION_SECONDS)


class Connection:
    """One connection: an httpx transport whose pool holds one."""

    __slots__ = ("_transport", "address", "forward", "served", "stream")

    def __init__(
        self, address: Address, proxy: str | None, tls: ssl.SSLContext | None, proxy_tls: ssl.SSLContext | None
    ) -> None:
        self.address = address
        self.forward = proxy is not None and address.scheme == "http"
        self.served = 0
        self.stream: Any = None
        try:
            self._transport = httpx.AsyncHTTPTransport(
                verify=tls if tls is not None and address.scheme == "https" else False,
                trust_env=False,
                limits=_LIMITS,
                proxy=None if proxy is None else httpx.Proxy(proxy, ssl_context=_of_proxy(proxy, proxy_tls)),
            )
        except (ImportError, ValueError, httpx.InvalidURL) as error:  # a SOCKS proxy without socksio, or no URL at all
            raise ConfigError(
                f"the proxy {redact_url(proxy or '')!r} from the environment cannot be used ({type(error).__name__})"
            ) from None

    async def handle(self, request: httpx.Request) -> httpx.Response:
        return await self._transport.handle_async_request(request)

    def has_early_reply(self) -> bool:
        """Whether a reply (or the end) waits while the request is still being sent; never known under TLS."""
        return has_waiting_reply(self.stream)

    def is_clean(self) -> bool:
        """Whether nothing came behind the reply: it would be taken for the reply to the next request."""
        # httpcore shows no one what h11 has not used. Where it cannot be found, the connection is not kept.
        found: Any = next(iter(self._transport._pool.connections), None)
        while found is not None and not hasattr(found, "_h11_state"):
            found = getattr(found, "_connection", None)
        return found is not None and not found._h11_state.trailing_data[0] and not has_more_tls(self.stream)

    async def close(self) -> None:
        # What closing says of a connection that is broken, or that its pool still counts as busy, changes nothing.
        with contextlib.suppress(OSError, RuntimeError, anyio.BrokenResourceError):
            await self._transport.aclose()
        stream, self.stream = self.stream, None
        if stream is not None:
            with contextlib.suppress(OSError, anyio.BrokenResourceError):
                await stream.aclose()


class HttpxPool:
    """Keeps connections, and has those wait that there is no memory for.

    Args:
        tls: Whom to trust; read with the first connection that needs it.
        max_idle: Connections kept open while nobody uses them.
    """

    def __init__(self, tls: TlsConfig, max_idle: int) -> None:
        self._tls = tls
        self._context: ssl.SSLContext | None = None
        self._proxy_context: ssl.SSLContext | None = None
        self._max_idle = max_idle
        self._memory: Memory = Unbounded()
        self._open = 0
        self._free: deque[Connection] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._closed = False
        self._making_room: asyncio.Task[None] | None = None

    def draw_on(self, memory: Memory) -> None:
        """Hold connections to *memory*, if there is none yet."""
        if isinstance(self._memory, Unbounded) and not self._open and not self._closed:
            self._memory = memory
            memory.begin(_CONNECTION_BYTES, self._memory_changed)

    async def take(self, address: Address, proxy: str | None, *, is_fresh: bool = False) -> Connection:
        """Return a connection to *address*, as soon as there is memory for one.

        Args:
            is_fresh: Not one that was kept.

        Raises:
            ConnectionFailed: The pool was closed meanwhile.
            ConfigError: The proxy, or a file of the TLS settings, cannot be used.
        """
        if self._waiting:
            await self._wait(is_first=False)
        while not self._closed:
            if not is_fresh and (kept := self._kept(address)) is not None:
                self._wake()  # there may be more
                return kept
            if self._memory.take(_CONNECTION_BYTES, is_needed=not self._open):
                self._open += 1
                self._wake()
                try:
                    return self._new(address, proxy)
                except BaseException:  # settings that cannot be used, above all; raised again
                    self._forget()
                    raise
            if self._free:
                with anyio.CancelScope(shield=True):
                    await self.close(self._free.popleft())
                continue
            await self._wait(is_first=True)
        raise ConnectionFailed("the transport was closed")

    async def _wait(self, *, is_first: bool) -> None:
        """Wait until there may be a connection, or memory for one; whoever looked before stays the first."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if is_first:
            self._waiting.appendleft(future)
        else:
            self._waiting.append(future)
        try:
            await future
        except BaseException:  # cancelled: raised again
            if future in self._waiting:
                self._waiting.remove(future)
            self._wake()  # what this one was woken for may be of use to another
            raise

    async def give_back(self, connection: Connection) -> None:
        """Keep *connection* for the next request."""
        if self._closed or self._memory.is_squeezed:
            await self.close(connection)
            return
        self._free.append(connection)
        self._wake()
        if len(self._free) > self._max_idle:
            await self.close(self._free.popleft())

    async def close(self, connection: Connection) -> None:
        """Close *connection*, and give back what it holds."""
        try:
            await connection.close()
        finally:
            self._forget()

    async def aclose(self) -> None:
        """Close those that nobody uses, and keep none from now on."""
        self._closed = True
        while self._waiting:
            self._wake()
        with anyio.CancelScope(shield=True):
            while self._free:
                await self.close(self._free.pop())
            if self._making_room is not None and not self._making_room.get_loop().is_closed():
                await self._making_room
        self._memory.end()

    def _kept(self, address: Address) -> Connection | None:
        # The one used last comes first: it is the least likely to have been closed by the server.
        for index in range(len(self._free) - 1, -1, -1):
            if self._free[index].address == address:
                connection = self._free[index]
                del self._free[index]
                return connection
        return None

    def _new(self, address: Address, proxy: str | None) -> Connection:
        """Return a new connection; its TLS settings are read once for all (tens of milliseconds)."""
        if address.scheme == "https" and self._context is None:
            self._context = self._tls.context()
        if (proxy or "").startswith("https") and self._proxy_context is None:
            self._proxy_context = self._tls.for_proxy().context()
        return Connection(address, proxy, self._context, self._proxy_context)

    def _memory_changed(self) -> None:
        if self._memory.is_squeezed and self._free and (self._making_room is None or self._making_room.done()):
            self._making_room = asyncio.get_running_loop().create_task(self._make_room())
        self._wake()

    async def _make_room(self) -> None:
        while self._memory.is_squeezed and self._free:
            await self.close(self._free.popleft())

    def _forget(self) -> None:
        self._open -= 1
        self._memory.give_back(_CONNECTION_BYTES)
        self._wake()

    def _wake(self) -> None:
        """Have the first look again who waits; there is use for one thing at a time."""
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                return


def _of_proxy(proxy: str, context: ssl.SSLContext | None) -> ssl.SSLContext | None:
    """Return *context* for a proxy that is reached by TLS; httpx takes none for others."""
    return context if proxy.startswith("https") else None
