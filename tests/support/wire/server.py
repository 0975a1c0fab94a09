"""The scripted raw server: a script per connection, which reads requests and writes bytes, right or wrong.

Here nothing is answered unless the script says so. `tests.support.faults` is a script that serves objects by a plan
of faults, and `tests.support.http_server` the same for tests that script single requests, and for what speaks as clouds
do.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

__all__ = ["Script", "Seen", "Wire", "WireServer"]

_HEAD_LIMIT = 1024 * 1024


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    target: str
    head: bytes
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    connection: int = 0

    @property
    def length(self) -> int:
        """Its ``Content-Length``, 0 without one."""
        return int(self.headers.get("content-length", "0"))


class Wire:
    """One accepted connection, as a script sees it.

    Attributes:
        number: From 1, in the order in which connections were accepted.
    """

    def __init__(
        self,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        sock: socket.socket,
        server: WireServer,
    ) -> None:
        self.number = number
        self._socket = sock  # a transport that is closed no longer knows its own
        self.reader = reader
        self.writer = writer
        self.server = server

    async def head(self) -> Seen:
        """Read the head of the next request and nothing of its body.

        Raises:
            EOFError: The client closed the connection.
        """
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise EOFError from error
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
        seen = Seen(method, target, head, headers, connection=self.number)
        self.server.saw(seen)
        return seen

    async def request(self) -> Seen:
        """Read the next request whole."""
        seen = await self.head()
        seen.body = await self.reader.readexactly(seen.length)
        return seen

    async def send(self, *pieces: bytes, pause: float = 0.0) -> None:
        """Write *pieces*, each in a segment of its own when there is a *pause* (seconds) between them."""
        for index, piece in enumerate(pieces):
            if index and pause:
                await asyncio.sleep(pause)
            self.writer.write(piece)
            await self.writer.drain()

    async def read_slowly(self, size_bytes: int, *, step: int, pause: float) -> bytes:
        """Read *size_bytes*, at most *step* at a time, with a *pause* (seconds) before each."""
        data = bytearray()
        while len(data) < size_bytes:
            await asyncio.sleep(pause)
            piece = await self.reader.read(min(step, size_bytes - len(data)))
            if not piece:
                raise EOFError
            data += piece
        return bytes(data)

    def half_close(self) -> None:
        """Say that nothing more comes (FIN), and go on reading. Plain connections only."""
        self.writer.write_eof()

    def reset(self) -> None:
        """End with RST: what the kernel has not sent yet is lost too."""
        if self._socket.fileno() >= 0:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.drop()

    def drop(self) -> None:
        """Close the socket at once: FIN, under TLS without close_notify. Closed already: nothing happens."""
        # asyncio cannot abort a connection that it closed after writing out what was left.
        if self._socket.fileno() >= 0:
            self.writer.transport.abort()

    async def close(self) -> None:
        """Close in good order, under TLS with close_notify."""
        self.writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
            async with asyncio.timeout(2):
                await self.writer.wait_closed()

    async def rest(self) -> bytes:
        """Read until the client closes, and return what it still sent."""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            return await self.reader.read()
        return b""


Script = Callable[[Wire], Awaitable[None]]
"""Serves one connection; when it returns, the connection is closed in good order unless the script ended it."""


class WireServer:
    """Use it as an async context manager.

    Connection number n gets script number n, the last script also serves all later connections.

    Args:
        scripts: At least one.
        tls: Context of a TLS server; None: plain.
        receive_buffer: Bytes that the kernel holds for a script that does not read; None: the kernel decides.
        host: A loopback address.
        port: Where to listen; 0: a free one.
        keeps_requests: Whether ``requests`` grows; turn it off for long runs.

    Attributes:
        scripts: May be replaced while it runs.
        requests: Every request whose head was read, in order.
        connections: How many were accepted; ``open_connections`` of them are there still.
        errors: What scripts raised, other than the end of their connection; raised again when the server stops.
    """

    def __init__(
        self,
        *scripts: Script,
        tls: ssl.SSLContext | None = None,
        receive_buffer: int | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        keeps_requests: bool = True,
    ) -> None:
        self.scripts = scripts
        self._tls = tls
        self._receive_buffer = receive_buffer
        self._host = host
        self._wanted_port = port
        self._keeps_requests = keeps_requests
        # The limit is what asyncio itself takes from the kernel ahead of the script; twice that, then it stops.
        self._limit = _HEAD_LIMIT if receive_buffer is None else 64 * 1024
        self._listener: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[Seen] = []
        self.connections = 0
        self.open_connections = 0
        self.errors: list[Exception] = []
        self.port = 0

    async def __aenter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        # Named, or asyncio does not know that it is TCP and leaves Nagle's algorithm on.
        listener = self._listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self._receive_buffer is not None:  # accepted sockets inherit it
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        listener.setblocking(False)
        try:
            listener.bind((self._host, self._wanted_port))
            listener.listen(1024)
        except OSError:
            listener.close()
            raise
        self.port = listener.getsockname()[1]
        self._accepting = asyncio.create_task(self._accept_all(listener))
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._listener is not None
        assert self._accepting is not None
        self._accepting.cancel()
        await asyncio.gather(self._accepting, return_exceptions=True)
        self._listener.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if exc is None and self.errors:
            raise self.errors[0]

    def url(self, target: str = "/", *, host: str | None = None) -> str:
        """Return the URL of *target* here, under another name of this machine when *host* says so."""
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://{host or self._host}:{self.port}{target}"

    def saw(self, seen: Seen) -> None:
        """Keep a request whose head was read, unless told not to."""
        if self._keeps_requests:
            self.requests.append(seen)

    async def admit(self, number: int, sock: socket.socket) -> ssl.SSLContext | None:
        """Return what connection *number* speaks: TLS with this context, or plain bytes.

        For servers that treat some connections badly before a script sees them: raise `ConnectionError` to end one.
        """
        return self._tls

    async def _accept_all(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(listener)
            self.connections += 1
            task = asyncio.create_task(self._accept(self.connections, sock))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _accept(self, number: int, sock: socket.socket) -> None:
        self.open_connections += 1
        wire: Wire | None = None
        try:
            wire = await self._open(number, sock)
            await self.scripts[min(number, len(self.scripts)) - 1](wire)
            await wire.close()
        except (ConnectionError, EOFError, TimeoutError, ssl.SSLError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        except Exception as error:  # noqa: BLE001 - whatever a script raised is raised again when the server stops
            self.errors.append(error)
        finally:
            if wire is None:
                sock.close()
            else:
                wire.drop()
                with contextlib.suppress(ConnectionError, TimeoutError, ssl.SSLError, asyncio.CancelledError):
                    await wire.writer.wait_closed()
            self.open_connections -= 1

    async def _open(self, number: int, sock: socket.socket) -> Wire:
        loop = asyncio.get_running_loop()
        tls = await self.admit(number, sock)
        reader = asyncio.StreamReader(limit=self._limit)
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=tls)
        return Wire(number, reader, asyncio.StreamWriter(transport, protocol, reader, loop), sock, self)
