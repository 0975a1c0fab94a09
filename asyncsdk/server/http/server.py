"""Running the HTTP application: sockets, signals, sweeps, and a shutdown that finishes what is running."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import uvicorn
from anyio import to_thread
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from asyncsdk.domain.ids import make_id
from asyncsdk.errors import BadRequest, ConfigError
from asyncsdk.server.backend import Backend
from asyncsdk.server.http.api import MessageHandler
from asyncsdk.server.http.app import App
from asyncsdk.server.http.replies import error_body

__all__ = ["HttpServer", "check_public_url", "serve"]

logger = logging.getLogger("asyncsdk.server")

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 90
"""How long a connection may take until the head of its next request is whole."""
SHUTDOWN_SECONDS = 10
SWEEP_CHECK_SECONDS = 3600
"""How often it is looked whether the daily sweep is due; another process on the folder may have done it."""
RECEIVE_BYTES = 64 * 1024
MAX_HEADER_BYTES = 64 * 1024


class HttpServer:
    """Serves one backend on one socket. The socket listens once this is made, so that `url` is known at once.

    Args:
        backend: Handles the messages; stays the caller's to close.
        host: Name or address to listen on.
        port: Port to listen on; 0 takes a free one.
        public_url: What clients call the server, when that is not the ``Host`` they send (a proxy in front).

    Raises:
        ConfigError: There is no such address here, or the port is taken.
    """

    def __init__(
        self, backend: MessageHandler, *, host: str = "127.0.0.1", port: int = 8750, public_url: str | None = None
    ) -> None:
        self._backend = backend
        self._app = App(backend, public_url=None if public_url is None else check_public_url(public_url))
        self._socket = _listen(host, port)
        config = uvicorn.Config(
            self._app,
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        self._server = _Server(config)
        bound_host, bound_port = self._socket.getsockname()[:2]
        self.url = f"http://{f'[{bound_host}]' if ':' in bound_host else bound_host}:{bound_port}"

    def run(self, on_ready: Callable[[str], None] | None = None) -> None:
        """Serve until `stop`, or SIGINT or SIGTERM when this is the main thread; returns when all is shut down.

        Running requests get 10 s to end. A second SIGINT does not wait for them.

        Args:
            on_ready: Called with the URL once requests are answered.
        """

        def started() -> None:
            self._server.sweeper = asyncio.get_running_loop().create_task(_sweep_daily(self._backend))
            if on_ready is not None:
                on_ready(self.url)

        self._server.on_started = started
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self.close()

    def stop(self) -> None:
        """Make `run` shut down; may be called from any thread."""
        self._server.should_exit = True

    def close(self) -> None:
        """Close the socket and end the threads; `run` does so itself."""
        self._socket.close()
        self._app.close()


def serve(
    folder: Path,
    host: str = "127.0.0.1",
    port: int = 8750,
    *,
    public_url: str | None = None,
    on_ready: Callable[[str], None],
) -> None:
    """Serve the platform in *folder*; see `asyncsdk.server.http.serve`."""
    backend = Backend.open(folder)
    try:
        backend.server_token()  # made on the first start, so that somebody can log in
        HttpServer(backend, host=host, port=port, public_url=public_url).run(on_ready)
    finally:
        backend.close()


def check_public_url(url: str) -> str:
    """Return *url* without a slash at its end.

    Raises:
        ConfigError: It is no base of URLs.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ConfigError("the public URL must look like https://host or http://host:port")
    return url.rstrip("/")


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.create_server(address[:2], family=family, backlog=BACKLOG)
        # Connections inherit it. asyncio sets it only on sockets that name TCP as their protocol, which these do not;
        # without it, head and body of a reply wait 44 ms for each other (Nagle against delayed acknowledgements).
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"cannot listen on {host} port {port}: {reason}; choose another port or host") from error


async def _sweep_daily(backend: MessageHandler) -> None:
    while True:
        try:
            await to_thread.run_sync(backend.sweep_if_due)
        except Exception:  # a sweep that fails must not stop the server; the next one tries again
            logger.exception("sweeping failed; it is tried again later")
        await asyncio.sleep(SWEEP_CHECK_SECONDS)


class _Server(uvicorn.Server):
    """Ends with exit status 0 on SIGTERM and SIGINT: uvicorn's own would die of the signal after its shutdown."""

    on_started: Callable[[], None]
    sweeper: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.on_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.sweeper is not None:
            self.sweeper.cancel()
        await super().shutdown(sockets=sockets)
        if self.sweeper is not None:
            with suppress(asyncio.CancelledError):
                await self.sweeper

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handled = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Protocol(HttpToolsProtocol):
    """Bounds what a client may make the server keep before a request begins, and answers nonsense in our shape."""

    def __init__(self, *arguments: Any, **facts: Any) -> None:
        super().__init__(*arguments, **facts)
        # Its lines hold queries, which are signatures; uvicorn takes any handler of the application's for a wish for
        # them, whatever its configuration says.
        self.access_log = False
        self._header_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base
        super().connection_made(transport)
        if hasattr(transport, "max_size"):
            # asyncio's own 256 KiB make every read a fresh mapping: ten times the page faults of this.
            transport.max_size = RECEIVE_BYTES
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and not self.transport.is_closing():  # no pipelined request began instead
            self._await_head()

    def on_headers_complete(self) -> None:
        self._stop_head_timer()
        super().on_headers_complete()

    def _await_head(self) -> None:
        # uvicorn's own clock starts after the first reply, and any byte stops it for good: a connection that sends
        # nothing, or half a head, would stay for ever. This one runs until a whole head is there.
        self._stop_head_timer()
        self._head_timer = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def on_message_begin(self) -> None:
        self._header_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def _count(self, size_bytes: int) -> None:
        self._header_bytes += size_bytes
        if self._header_bytes > MAX_HEADER_BYTES:
            raise ValueError("the head of the request is too large")  # the parser makes an error of its own of it

    def send_400_response(self, msg: str) -> None:
        facts: dict[str, Any] = error_body(BadRequest("this is no HTTP request, or its head is too large"), make_id())
        body = orjson.dumps(facts)
        head = [
            STATUS_LINE[400],
            b"content-type: application/json\r\n",
            b"content-length: %d\r\n" % len(body),
            b"connection: close\r\n\r\n",
        ]
        self.transport.write(b"".join([*head, body]))
        self.transport.close()
