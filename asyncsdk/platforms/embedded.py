"""The platform inside this process: a data folder, no port, no daemon.

Several processes may have the folder open, embedded or serving it over HTTP: they see the same entities and the same
objects.
"""

from __future__ import annotations

import threading
from asyncio import Lock, sleep
from pathlib import Path
from typing import Any, Self, TypeVar

from asyncsdk.errors import ConfigError, ServerError, UnsupportedOperation
from asyncsdk.protocol.base import Message
from asyncsdk.protocol.uploads import STILL_CHECKING
from asyncsdk.server.backend import Backend
from asyncsdk.server.handlers import registrations
from asyncsdk.server.objects.clouds.location import Location
from asyncsdk.transport.threads import Threads

__all__ = ["EmbeddedPlatform"]

R = TypeVar("R")

_MAX_THREADS = 8
"""Messages handled at once: reads side by side, and writes that queue. More would only hold more connections."""


class EmbeddedPlatform:
    """Answers messages from a data folder, one worker-thread hop each. The principal is the folder's owner.

    Nothing is touched until the first message, or `open`. A message that was sent is handled to its end even when its
    sender is cancelled, which waits for it: it is one transaction, and repeating it is safe. So nothing goes on, and
    nothing stays open, once a cancelled call has ended and `aclose` was called.

    Args:
        folder: The data folder; made when missing.
        objects: The bucket that keeps the objects, ``s3://bucket/prefix``; None: wherever they are, in the folder when
            it is new.
        objects_endpoint: URL of the bucket's service; None: the cloud's own, or the one that was given before.

    Raises:
        ConfigError: *objects* names no bucket.
    """

    name = "embedded"

    def __init__(self, folder: Path, *, objects: str | None = None, objects_endpoint: str | None = None) -> None:
        self._folder = folder
        self._objects = None if objects is None else Location.parse(objects, objects_endpoint)
        self._opening: Lock | None = None
        self._threads = Threads(_MAX_THREADS)
        self._backend: Backend | None = None
        self._is_closed = False
        self._closing = threading.Lock()

    @classmethod
    async def open(cls, folder: Path) -> Self:
        """Return a platform whose folder is open already.

        Raises:
            StoreError: The folder cannot be used.
        """
        platform = cls(folder)
        try:
            await platform._ready()
        except BaseException:  # closed whatever ended it, then raised again
            await platform.aclose()
            raise
        return platform

    async def send(self, message: Message[R]) -> R:
        """Return the reply; raises as `Platform.send`, and `StoreError` when the folder cannot be used.

        A commit whose bytes are still being read from a bucket waits for that, however long it takes.
        """
        if not self.supports(type(message)):
            raise UnsupportedOperation(self.name, type(message).__name__)
        while True:
            backend = await self._ready()
            try:
                return await self._threads.run(backend.handle, message, backend.owner(), backend.minter(None))
            except ServerError as error:
                if error.server_code != STILL_CHECKING:
                    raise
                await sleep(error.retry_after or 1.0)  # reading goes on, or fails

    def supports(self, message_type: type[Message[Any]]) -> bool:
        """Whether the platform has the operation."""
        return message_type in registrations

    async def aclose(self) -> None:
        """Close the folder, once what is under way is through. Calling it again does nothing.

        Messages sent afterwards are refused. When it is cancelled, it is closed all the same.
        """
        self._is_closed = True
        closing = Threads(1)
        try:
            await closing.run(self._close)
        finally:
            closing.close()

    def _close(self) -> None:
        with self._closing:  # whoever closes meanwhile waits, too
            self._threads.close(wait=True)  # after that, nobody opens the folder or uses it
            backend, self._backend = self._backend, None
            if backend is not None:
                backend.close()

    async def _ready(self) -> Backend:
        if self._opening is None:  # made here: it belongs to the running loop
            self._opening = Lock()
        async with self._opening:
            self._check_open()
            # Kept in the thread that opens it: a call that is cancelled leaves it to the next one, or to `aclose`.
            backend = self._backend
            if backend is None:
                backend = await self._threads.run(self._open)
        self._check_open()  # it may have been closed meanwhile
        return backend

    def _check_open(self) -> None:
        if self._is_closed:
            raise ConfigError("this platform is closed; make a new client")

    def _open(self) -> Backend:
        backend = Backend.open(self._folder, self._objects)
        try:
            backend.sweep_if_due()
        except BaseException:  # closed whatever ended it, then raised again
            backend.close()
            raise
        self._backend = backend
        return backend
