"""The platform inside this process: a data folder, no port, no daemon.

Several processes may have the folder open, embedded or serving it over HTTP: they see the same entities and the same
objects.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self, TypeVar

import anyio
import anyio.to_thread

from asyncsdk.errors import ConfigError, UnsupportedOperation
from asyncsdk.protocol.base import Message
from asyncsdk.server.backend import Backend
from asyncsdk.server.handlers import registrations
from asyncsdk.server.objects.clouds.location import Location
from asyncsdk.server.objects.minting import Minter

__all__ = ["EmbeddedPlatform"]

R = TypeVar("R")

_MAX_THREADS = 8
"""Messages handled at once: reads side by side, and writes that queue. More would only hold more connections."""


class EmbeddedPlatform:
    """Answers messages from a data folder, one worker-thread hop each. The principal is the folder's owner.

    Nothing is touched until the first message, or `open`. A message that was sent is handled to its end even when its
    sender is cancelled: it is one transaction, and repeating it is safe.

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
        self._opening: anyio.Lock | None = None
        self._limiter: anyio.CapacityLimiter | None = None
        self._backend: Backend | None = None
        self._is_closed = False

    @classmethod
    async def open(cls, folder: Path) -> Self:
        """Return a platform whose folder is open already.

        Raises:
            StoreError: The folder cannot be used.
        """
        platform = cls(folder)
        await platform._ready()
        return platform

    async def send(self, message: Message[R]) -> R:
        """Return the reply; raises as `Platform.send`, and `StoreError` when the folder cannot be used."""
        if not self.supports(type(message)):
            raise UnsupportedOperation(self.name, type(message).__name__)
        backend, minter, limiter = await self._ready()
        return await anyio.to_thread.run_sync(backend.handle, message, backend.owner(), minter, limiter=limiter)

    def supports(self, message_type: type[Message[Any]]) -> bool:
        """Whether the platform has the operation."""
        return message_type in registrations

    async def aclose(self) -> None:
        """Close the folder. Calling it again does nothing; messages sent afterwards are refused."""
        self._is_closed = True
        backend, self._backend = self._backend, None
        if backend is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(backend.close)

    async def _ready(self) -> tuple[Backend, Minter, anyio.CapacityLimiter]:
        if self._opening is None or self._limiter is None:  # made here: they belong to the running loop
            self._opening, self._limiter = anyio.Lock(), anyio.CapacityLimiter(_MAX_THREADS)
        async with self._opening:
            if self._is_closed:
                raise ConfigError("this platform is closed; make a new client")
            if self._backend is None:
                self._backend = await anyio.to_thread.run_sync(
                    _open, self._folder, self._objects, limiter=self._limiter
                )
            return self._backend, self._backend.minter(None), self._limiter


def _open(folder: Path, objects: Location | None) -> Backend:
    backend = Backend.open(folder, objects)
    try:
        backend.sweep_if_due()
    except BaseException:  # closed whatever ended it, then raised again
        backend.close()
        raise
    return backend
