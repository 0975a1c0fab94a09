"""How a connection comes to be: name lookup, TCP, proxy, TLS; all of it under one deadline.

A connection that does not come to be leaves nothing behind: whatever fails, and wherever it is cancelled, its sockets
are closed before the error goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import select
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field

from asyncsdk.errors import AsyncSDKError, ConfigError, ConnectionFailed, RequestTimeout
from asyncsdk.transport.failures import no_connection
from asyncsdk.transport.lean.eyeballs import open_connection
from asyncsdk.transport.lean.pipe import NestedTlsPipe, TlsPipe
from asyncsdk.transport.lean.proxying import open_tunnel, proxy_headers
from asyncsdk.transport.tls import TlsConfig
from asyncsdk.transport.urls import Address, Proxies, Proxy, parse_proxy

__all__ = ["LEAST_BYTES", "Connector", "Link", "notice_silence"]

_RECEIVE_BYTES = 16 * 1024

_PLAIN_BYTES = 384 * 1024
"""Of memory for a connection: a piece of a body that is sent (256 KiB) and what a thread reads ahead of it, or what a
slow sink has yet to take (256 KiB), and a small request or reply (64 KiB)."""

_TLS_BYTES = 384 * 1024
"""On top of that for TLS: ciphertext as it came (256 KiB, of which OpenSSL makes a buffer of 341) or as it goes (twice
112 KiB), and OpenSSL's own state (30 KiB)."""

LEAST_BYTES = _PLAIN_BYTES + _TLS_BYTES
"""Memory of one connection, whatever it leads to."""

_HAS_POLL = hasattr(select, "poll")

_SIGNS = 4
"""How often the other side is asked for a sign of life before it counts as gone."""


def notice_silence(sock: socket.socket, idle_seconds: float) -> None:
    """Have the system end *sock* when the other side acknowledges nothing for somewhat longer than *idle_seconds*.

    A connection whose way was cut (a gateway that forgot it, a cable) looks like a server that thinks: without this the
    timeout for replies would have to tell. The system asks for signs of life while nothing moves. Later than our own
    idle timeout, which tells more of a body that stands still. Nothing happens where the system cannot do that.
    """
    seconds = 1.25 * idle_seconds + 1.0
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, min(int(seconds * 1000), 2**31 - 1)))
    if hasattr(socket, "TCP_KEEPIDLE"):
        pause = max(1, min(int(seconds / _SIGNS), 32767))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, pause)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, pause)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _SIGNS)


@dataclass(slots=True)
class Link:
    """A connection, ready for requests.

    Attributes:
        sock: Connected, non-blocking, ``TCP_NODELAY``. Whoever has the link closes it.
        tls: Handshake done; what came with it may already be inside. None: plain.
        forward: Requests go to an HTTP proxy, with the whole URL as their target.
        proxy_headers: Header lines for every forwarded request, credentials among them; not in the repr.
    """

    sock: socket.socket
    tls: TlsPipe | None = None
    forward: bool = False
    proxy_headers: bytes = field(default=b"", repr=False)
    _poll: select.poll | None = field(default=None, init=False, repr=False)

    def is_quiet(self) -> bool:
        """Whether the other side said nothing that was not looked at yet, its goodbye included."""
        if self.tls is not None and self.tls.has_input:
            return False
        if not _HAS_POLL:
            return self._has_nothing_to_read()
        if self._poll is None:
            self._poll = select.poll()  # 0.3 us a question; `recv`, and the exception that it raises, take 1.3
            self._poll.register(self.sock, select.POLLIN)
        return not self._poll.poll(0)

    def _has_nothing_to_read(self) -> bool:
        try:
            self.sock.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass  # it is broken: whoever reads is told
        return False

    def answer_tls(self) -> None:
        """Send what TLS itself has to say (a key update), while nothing else waits to be sent.

        Raises:
            OSError: It cannot be sent, or not at once: a socket that is full then is not worth a queue.
        """
        assert self.tls is not None
        data = self.tls.take_output()
        try:
            count = self.sock.send(data)
        except BlockingIOError:
            count = 0
        if count < len(data):
            raise OSError(errno.ENOBUFS, "no room for TLS itself")


class Connector:
    """Makes connections. Holds none of them, so there is nothing to close.

    Args:
        tls: Whom to trust; read once, with the first ``https`` connection.
        proxies: Which way to go.
    """

    def __init__(self, tls: TlsConfig, proxies: Proxies) -> None:
        self._tls = tls
        self._proxies = proxies
        self._context: ssl.SSLContext | None = None
        self._proxy_context: ssl.SSLContext | None = None

    def memory_bytes(self, address: Address) -> int:
        """Return how much memory a connection to *address* may come to use."""
        proxy = self._proxies.for_address(address) or ""
        layers = (address.scheme == "https") + proxy.lower().startswith("https")
        return _PLAIN_BYTES + layers * _TLS_BYTES

    async def connect(self, address: Address, timeout_seconds: float) -> Link:
        """Return a new connection to *address*.

        Args:
            address: Where to.
            timeout_seconds: For all of it: lookup, every address, proxy, handshakes.

        Raises:
            ConnectionFailed: No address could be connected to, TLS failed, or the proxy refused. ``retryable`` is
                False for a certificate that cannot be trusted and for a proxy that wants other credentials.
            RequestTimeout: It took longer; phase ``connect``.
            MalformedResponse: What the proxy said is no HTTP.
            ConfigError: The proxy speaks a protocol that is not supported, the host is no name, or a file of the TLS
                settings cannot be used.
        """
        url = self._proxies.for_address(address)
        proxy = parse_proxy(url) if url is not None else None
        try:
            async with asyncio.timeout(timeout_seconds) as deadline:
                return await (self._directly(address) if proxy is None else self._through(proxy, address))
        except TimeoutError as error:
            if deadline.expired():
                raise RequestTimeout("connect", timeout_seconds, address.root) from None
            raise no_connection(error, address.root) from None  # the system gave up before us (ETIMEDOUT)
        except AsyncSDKError:
            raise
        except OSError as error:  # TLS errors too
            raise no_connection(error, address.root) from None
        except ValueError:  # of the resolver's or TLS's encoding of names
            raise ConfigError(f"{address.root} cannot be requested: no host can have that name") from None

    async def _directly(self, address: Address) -> Link:
        sock = await open_connection(address.host, address.port)
        with _closing_on_error(sock):
            if address.scheme == "http":
                return Link(sock)
            return Link(sock, await _secure(sock, TlsPipe(self._server_context(), _name(address))))

    async def _through(self, proxy: Proxy, address: Address) -> Link:
        try:
            sock = await open_connection(proxy.address.host, proxy.address.port)
        except OSError as error:
            raise _no_proxy(error, proxy) from None
        with _closing_on_error(sock):
            outer: TlsPipe | None = None
            if proxy.address.scheme == "https":
                try:
                    outer = await _secure(sock, TlsPipe(self._context_for_proxy(), _name(proxy.address)))
                except OSError as error:
                    raise _no_proxy(error, proxy) from None
            if address.scheme == "http":
                return Link(sock, outer, forward=True, proxy_headers=proxy_headers(proxy))
            await _tunnel(sock, outer, proxy, address)
            context, name = self._server_context(), _name(address)
            inner = TlsPipe(context, name) if outer is None else NestedTlsPipe(context, name, outer)
            return Link(sock, await _secure(sock, inner))

    def _server_context(self) -> ssl.SSLContext:
        if self._context is None:  # tens of milliseconds: one for all connections
            self._context = self._tls.context()
        return self._context

    def _context_for_proxy(self) -> ssl.SSLContext:
        if self._proxy_context is None:
            self._proxy_context = self._tls.for_proxy().context()
        return self._proxy_context


async def _secure(sock: socket.socket, pipe: TlsPipe) -> TlsPipe:
    """Shake hands over *sock* and return *pipe*, ready for data."""
    loop = asyncio.get_running_loop()
    try:
        while not pipe.shake_hands():
            await loop.sock_sendall(sock, pipe.take_output())
            pipe.feed(await loop.sock_recv(sock, _RECEIVE_BYTES))
    except ssl.SSLError:
        # The alert helps whoever runs the server; the error goes on whether it can be sent or not.
        with contextlib.suppress(OSError):
            sock.send(pipe.take_output())
        raise
    if pipe.has_output:
        await loop.sock_sendall(sock, pipe.take_output())
    return pipe


async def _tunnel(sock: socket.socket, outer: TlsPipe | None, proxy: Proxy, address: Address) -> None:
    loop = asyncio.get_running_loop()
    buffer = memoryview(bytearray(_RECEIVE_BYTES))

    async def send(data: bytes) -> None:
        await loop.sock_sendall(sock, data if outer is None else outer.encrypt(data))

    async def receive() -> bytes:
        if outer is None:
            return await loop.sock_recv(sock, _RECEIVE_BYTES)
        while not (count := outer.read_into(buffer)) and not outer.is_closed and not outer.is_truncated:
            outer.feed(await loop.sock_recv(sock, _RECEIVE_BYTES))
        return bytes(buffer[:count])

    await open_tunnel(proxy, address, send, receive)


@contextlib.contextmanager
def _closing_on_error(sock: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:  # cancelled too, no socket is left behind; raised again
        sock.close()
        raise


def _name(address: Address) -> str:
    """Return the host as certificates and SNI have it: without the dot that ends a full name."""
    return address.host.rstrip(".")


def _no_proxy(error: OSError, proxy: Proxy) -> ConnectionFailed:
    return no_connection(error, proxy.address.root, whom="the proxy")
