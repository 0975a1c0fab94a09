"""Running the HTTP application: sockets, signals, sweeps, and a shutdown that finishes what is running."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from urllib.parse import urlsplit

from anyio import to_thread

from asyncsdk.errors import ConfigError
from asyncsdk.server.backend import Backend
from asyncsdk.server.http.api import MessageHandler
from asyncsdk.server.http.app import DOORS_PATH, App, ASGIApplication, OpenDoor
from asyncsdk.server.http.front import Front, Limits
from asyncsdk.server.http.front.objects import ObjectBytes
from asyncsdk.server.objects.clouds.location import Location

__all__ = ["HttpServer", "check_public_url", "connection_limit", "serve"]

logger = logging.getLogger("asyncsdk.server")

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 90.0
"""How long a connection may take until the head of its next request is whole."""
IDLE_SECONDS = 60.0
"""Longest wait for the next bytes of a body, or for a client to take bytes of a reply."""
SHUTDOWN_SECONDS = 10.0
MAX_DESCRIPTORS = 65_536
RESERVED_DESCRIPTORS = 128
"""For the database, one for each thread that reads it, and for files that threads have open."""
MIN_CONNECTIONS = 16
SWEEP_CHECK_SECONDS = 3600
"""How often it is looked whether the daily sweep is due; another process on the folder may have done it."""


class HttpServer:
    """Serves one backend on one socket. The socket listens once this is made, so that `url` is known at once.

    Args:
        backend: Handles the messages; stays the caller's to close.
        host: Name or address to listen on.
        port: Port to listen on; 0 takes a free one.
        public_url: What clients call the server, when that is not the ``Host`` they send (a proxy in front).
        doors: What opens each of the doors, by its name.
        door_ports: Doors that have a port of their own as well, where they are at the root; 0 takes a free one.

    Attributes:
        url: Where it listens.
        door_urls: Where each door is: on its own port, when it has one.

    Raises:
        ConfigError: There is no such address here, or the port is taken.
    """

    def __init__(
        self,
        backend: MessageHandler,
        *,
        host: str = "127.0.0.1",
        port: int = 8750,
        public_url: str | None = None,
        doors: Mapping[str, OpenDoor] | None = None,
        door_ports: Mapping[str, int] | None = None,
    ) -> None:
        self._backend = backend
        checked_url = None if public_url is None else check_public_url(public_url)
        self._app = App(backend, public_url=checked_url, doors=doors)
        self._socket = _listen(host, port)
        self._door_sockets: dict[str, socket.socket] = {}
        try:
            for name, door_port in (door_ports or {}).items():
                self._door_sockets[name] = _listen(host, door_port)
        except ConfigError:
            self._close_sockets()
            raise
        threads = min(32, 4 * (os.cpu_count() or 1))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="asyncsdk-objects")
        self._lock = threading.RLock()  # a signal may come while this very thread holds it
        self._loop: asyncio.AbstractEventLoop | None = None
        self._should_stop = False
        self._stopping = asyncio.Event()
        self._forced = asyncio.Event()
        self.url = _url_of(self._socket)
        self.door_urls = {name: f"{checked_url or self.url}{DOORS_PATH}{name}" for name in doors or {}}
        self.door_urls |= {name: _url_of(listening) for name, listening in self._door_sockets.items()}

    def run(self, on_ready: Callable[[str], None] | None = None) -> None:
        """Serve until `stop`, or SIGINT or SIGTERM when this is the main thread; returns when all is shut down.

        Running requests get 10 s to end. A second signal does not wait for them; a third, or a second SIGTERM, ends the
        process at once, whatever its threads are in. What was answered is durable.

        Args:
            on_ready: Called with the URL once requests are answered.
        """
        with self._signals():
            try:
                asyncio.run(self._serve(on_ready))
            finally:
                self.close()

    def stop(self) -> None:
        """Make `run` shut down; may be called from any thread."""
        self._stop(force=False)

    def close(self) -> None:
        """Close the socket and end the threads; `run` does so itself."""
        self._close_sockets()
        self._pool.shutdown(wait=True)
        self._app.close()

    def _close_sockets(self) -> None:
        for listening in (self._socket, *self._door_sockets.values()):
            listening.close()

    async def _serve(self, on_ready: Callable[[str], None] | None) -> None:
        connections = connection_limit() // (1 + len(self._door_sockets))
        limits = Limits(head_seconds=KEEP_ALIVE_SECONDS, idle_seconds=IDLE_SECONDS, connections=connections)
        objects = ObjectBytes(self._backend.objects, self._backend.signer)
        served: list[tuple[socket.socket, ASGIApplication]] = [(self._socket, self._app)]
        served += [(listening, self._app.door(name)) for name, listening in self._door_sockets.items()]
        fronts = [Front(listening, app, objects, self._pool, limits) for listening, app in served]
        with self._lock:
            self._loop = asyncio.get_running_loop()
            if self._should_stop:
                self._stopping.set()
        sweeper = asyncio.create_task(_sweep_daily(self._backend))
        try:
            for front in fronts:
                front.start()
            if on_ready is not None:
                on_ready(self.url)
            await self._stopping.wait()
        finally:
            sweeper.cancel()
            ending = [front.shut_down(seconds=SHUTDOWN_SECONDS, force=self._forced) for front in fronts]
            await asyncio.gather(*ending)
            with self._lock:
                self._loop = None
            with suppress(asyncio.CancelledError):
                await sweeper

    def _stop(self, *, force: bool) -> None:
        with self._lock:
            self._should_stop = True
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._stopping.set)
                if force:
                    self._loop.call_soon_threadsafe(self._forced.set)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        seen: list[int] = []

        def handle(number: int, frame: FrameType | None) -> None:
            if len(seen) >= 2 or (number == signal.SIGTERM and number in seen):
                os._exit(128 + number)  # as shells say it
            seen.append(number)
            self._stop(force=len(seen) > 1)

        handled = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, handle) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(
    folder: Path,
    host: str = "127.0.0.1",
    port: int = 8750,
    *,
    public_url: str | None = None,
    objects: Location | None = None,
    doors: Mapping[str, OpenDoor] | None = None,
    door_ports: Mapping[str, int] | None = None,
    on_door: Callable[[str, str], None] | None = None,
    on_ready: Callable[[str], None],
) -> None:
    """Serve the platform in *folder*; see `asyncsdk.server.http.serve`."""
    _take_all_descriptors()
    backend = Backend.open(folder, objects)
    try:
        backend.server_token()  # made on the first start, so that somebody can log in
        server = HttpServer(backend, host=host, port=port, public_url=public_url, doors=doors, door_ports=door_ports)

        def ready(url: str) -> None:
            for name, door_url in server.door_urls.items():
                if on_door is not None:
                    on_door(name, door_url)
            on_ready(url)

        server.run(ready)
    finally:
        backend.close()


def _url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def connection_limit() -> int:
    """Return how many connections leave descriptors for files and the database, whatever they all are at."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    descriptors = MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else min(soft, MAX_DESCRIPTORS)
    # A connection has three at most: its socket, and the two files of an upload in parts.
    return max(MIN_CONNECTIONS, (descriptors - RESERVED_DESCRIPTORS) // 3)


def _take_all_descriptors() -> None:
    """Let this process have as many descriptors open as it may: 1,024 are the usual start, for the sake of others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # some systems allow less than they say: it stays as it is
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


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
