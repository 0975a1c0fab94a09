"""The client: one platform, one engine, and the entities on top."""

from __future__ import annotations

import os
import warnings
from dataclasses import replace
from os import PathLike
from types import TracebackType
from typing import Any, Self, TypeVar

from asyncsdk.config import Settings
from asyncsdk.engine import Concurrency, Engine, TransferConfig
from asyncsdk.entities.datasets import AsyncDatasets
from asyncsdk.entities.models import AsyncModels
from asyncsdk.entities.projects import AsyncProjects
from asyncsdk.errors import ConfigError, Unauthenticated
from asyncsdk.platforms.base import Platform
from asyncsdk.protocol.base import Message
from asyncsdk.protocol.users import UserRecord, WhoAmI

__all__ = ["AsyncClient"]

R = TypeVar("R")

_abandoned: list[object] = []
"""What a forked child inherited and must neither use nor close: its sockets and database belong to the parent."""


class AsyncClient:
    """Speaks to a platform: without a URL the embedded one, in this process, in a folder of this machine.

    Use it as ``async with AsyncClient() as client``, or call ``aclose()``. Nothing is opened before the first request.
    Many tasks of one event loop may use it at once. After a fork it opens anew in the child.

    Args:
        url: ``http://host:port`` of an asyncsdk server; None: ``ASYNCSDK_URL``, then the profile, then embedded.
        token: Token for that server; None: ``ASYNCSDK_TOKEN``, then the profile.
        home: Folder of profile and embedded data; None: ``ASYNCSDK_HOME``, then ``~/.asyncsdk``.
        data: Data folder of the embedded platform; None: ``ASYNCSDK_DATA``, then ``HOME/data``.
        objects: Bucket that keeps the objects of the embedded platform, ``s3://bucket/prefix`` or
            ``az://container/prefix``; None:
            ``ASYNCSDK_OBJECTS``, then wherever they are, in the folder when it is new.
        objects_endpoint: URL of the bucket's service; None: ``ASYNCSDK_OBJECTS_ENDPOINT``, then the cloud's own.
        concurrency: Requests at once, or ``auto``; None: ``ASYNCSDK_CONCURRENCY``, then the engine's default.
        part_size: Bytes per range of a large download; None: ``ASYNCSDK_PART_SIZE``, then the engine's default.
        config: All settings of the engine; the two above and the environment still win over it.

    Raises:
        ConfigError: A setting makes no sense.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        home: str | PathLike[str] | None = None,
        data: str | PathLike[str] | None = None,
        objects: str | None = None,
        objects_endpoint: str | None = None,
        concurrency: Concurrency | None = None,
        part_size: int | None = None,
        config: TransferConfig | None = None,
    ) -> None:
        self._settings = Settings.load(
            url=url,
            token=token,
            home=home,
            data=data,
            objects=objects,
            objects_endpoint=objects_endpoint,
            concurrency=concurrency,
            part_size=part_size,
        )
        self._config = _transfer_config(self._settings, config)
        self._platform: Platform | None = None
        self._engine: Engine | None = None
        self._pid = os.getpid()
        self._is_closed = False

    # --- entities --------------------------------------------------------------------------------------------

    @property
    def projects(self) -> AsyncProjects:
        """The projects of the platform."""
        return AsyncProjects(self)

    @property
    def datasets(self) -> AsyncDatasets:
        """The datasets of the platform."""
        return AsyncDatasets(self)

    @property
    def models(self) -> AsyncModels:
        """The models of the platform."""
        return AsyncModels(self)

    async def whoami(self) -> UserRecord:
        """Return the user that the token belongs to.

        Raises:
            Unauthenticated: There is no token, or not one that the server knows.
        """
        return await self.send(WhoAmI())

    # --- the session that entities use -----------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    @property
    def engine(self) -> Engine:
        """The engine that moves this client's bytes."""
        self._check_usable()
        if self._engine is None:
            self._engine = Engine(self._config)
        return self._engine

    @property
    def platform(self) -> Platform:
        """The platform that answers this client's messages."""
        self._check_usable()
        if self._platform is None:
            self._platform = _open_platform(self._settings)
        return self._platform

    async def send(self, message: Message[R]) -> R:
        """Send *message* and return the platform's reply.

        For operations that have no verb yet; the verbs of entities go through here too.

        Raises:
            UnsupportedOperation: The platform does not have the operation.
            ResponseError: It refused; the subclass says why.
            RequestError: It did not answer.
        """
        return await self.platform.send(message)

    # --- opening and closing ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._check_usable()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the engine and the platform. Calling it again does nothing."""
        self._is_closed = True
        if os.getpid() != self._pid:
            return
        engine, self._engine = self._engine, None
        platform, self._platform = self._platform, None
        try:
            if engine is not None:
                await engine.aclose()
        finally:
            if platform is not None:
                await platform.aclose()

    def __del__(self) -> None:
        # Closing needs the event loop, which may be gone: what is open is closed by its own finalisers.
        if not getattr(self, "_is_closed", True) and (self._engine or self._platform) and os.getpid() == self._pid:
            warnings.warn(
                f"{self!r} was not closed; use `async with` or aclose()", ResourceWarning, stacklevel=2, source=self
            )

    def __repr__(self) -> str:
        return f"AsyncClient({(self._settings.url or str(self._settings.data))!r})"

    def _check_usable(self) -> None:
        if self._is_closed:
            raise ConfigError("this client is closed; make a new one")
        if os.getpid() != self._pid:
            _abandoned.extend((self._engine, self._platform))
            self._engine = self._platform = None
            self._pid = os.getpid()


def _transfer_config(settings: Settings, config: TransferConfig | None) -> TransferConfig:
    base = config or TransferConfig()
    changes: dict[str, Any] = {
        name: value
        for name in ("concurrency", "part_size", "memory_bytes")
        if (value := getattr(settings, name)) is not None
    }
    return replace(base, **changes)


def _open_platform(settings: Settings) -> Platform:
    # Imported when needed: a client of a server needs no database, an embedded one no HTTP client.
    if settings.url is None:
        from asyncsdk.platforms.embedded import EmbeddedPlatform

        return EmbeddedPlatform(settings.data, objects=settings.objects, objects_endpoint=settings.objects_endpoint)
    if settings.token is None:
        raise Unauthenticated(
            f"no token for {settings.url}; give token=..., set ASYNCSDK_TOKEN, or run: asyncsdk login {settings.url}"
        )
    from asyncsdk.platforms.rest import RestPlatform

    return RestPlatform(settings.url, settings.token)
