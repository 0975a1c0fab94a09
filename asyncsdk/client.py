"""The client: one platform, one engine, and the entities on top."""

from __future__ import annotations

import os
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio.to_thread

from asyncsdk.config import Settings, write_profile
from asyncsdk.engine import Concurrency, Engine, TlsConfig, TransferConfig
from asyncsdk.entities.datasets import AsyncDatasets
from asyncsdk.entities.job_signals import signals_of
from asyncsdk.entities.jobs import AsyncJobs
from asyncsdk.entities.models import AsyncModels
from asyncsdk.entities.patience import presence_of
from asyncsdk.entities.projects import AsyncProjects
from asyncsdk.entities.users import AsyncUsers
from asyncsdk.entities.workers import AsyncWorker, AsyncWorkers
from asyncsdk.errors import ConfigError, RequestError, ResponseError, Unauthenticated
from asyncsdk.os_errors import os_errors
from asyncsdk.platforms.base import Platform
from asyncsdk.protocol.base import Message
from asyncsdk.protocol.users import UserRecord, WhoAmI

if TYPE_CHECKING:
    from asyncsdk.worker.local import LocalWorkers

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
        platform: The service behind *url*, by its name; None: ``ASYNCSDK_PLATFORM``, then an asyncsdk server
            (``rest``), without a URL the ``embedded`` platform.
        api_key: Key for that service; None: ``ASYNCSDK_API_KEY``.
        home: Folder of profile and embedded data; None: ``ASYNCSDK_HOME``, then ``~/.asyncsdk``.
        data: Data folder of the embedded platform; None: ``ASYNCSDK_DATA``, then ``HOME/data``.
        objects: Bucket that keeps the objects of the embedded platform, ``s3://bucket/prefix``,
            ``gs://bucket/prefix`` or ``az://container/prefix``; None: ``ASYNCSDK_OBJECTS``, then wherever they are, in
            the folder when it is new.
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
        platform: str | None = None,
        api_key: str | None = None,
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
            platform=platform,
            api_key=api_key,
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
        self._local_workers: LocalWorkers | None = None
        self._job_signals = signals_of(self)
        self._presence = presence_of(self)
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

    @property
    def users(self) -> AsyncUsers:
        """The users of the platform: its team."""
        return AsyncUsers(self)

    async def login(self, *, token: str | None = None, api_key: str | None = None) -> UserRecord:
        """Check a token with the server, keep both in the profile, and use them from now on.

        The profile is ``ASYNCSDK_HOME/profile.json``, mode 0600; clients and commands without a URL and token of
        their own use it. When the server does not know the token, nothing is changed.

        Args:
            token: The token.
            api_key: The same by the name that services give it; one of the two.

        Returns:
            The user that the token belongs to.

        Raises:
            Unauthenticated: The server does not know the token.
            DestinationFull, DestinationUnwritable: The profile cannot be written; the token is not used.
            ConfigError: None or both are given; the platform is the embedded one, which needs no login, or a service.
        """
        if (token is None) == (api_key is None):
            raise ConfigError("give either token=... or api_key=...")
        if self._settings.url is None:
            raise ConfigError("the embedded platform needs no login; make the client with the URL of a server")
        if self._settings.platform not in {None, "rest"}:
            raise ConfigError(
                "only tokens of an asyncsdk server are kept; give the client of a service its api_key=..."
            )
        self._check_usable()
        wanted = Settings.model_validate({**dict(self._settings), "token": token if api_key is None else api_key})
        if wanted.token is None:
            raise ConfigError("the token is empty")
        platform = _open_platform(wanted, self._config.tls)
        try:
            user = await platform.send(WhoAmI())
            await anyio.to_thread.run_sync(_keep, wanted)
            self._check_usable()  # it may have been closed meanwhile
        except BaseException:  # closed whatever ended it, then raised again
            await platform.aclose()
            raise
        before, self._platform, self._settings = self._platform, platform, wanted
        if before is not None:
            await before.aclose()
        return user

    @property
    def jobs(self) -> AsyncJobs:
        """The jobs of the platform: long work, done by workers."""
        return AsyncJobs(self)

    @property
    def workers(self) -> AsyncWorkers:
        """The workers of the platform."""
        return AsyncWorkers(self)

    @asynccontextmanager
    async def worker(
        self,
        *,
        name: str | None = None,
        labels: Sequence[str] | None = None,
        kinds: Sequence[str] | None = None,
        concurrency: int = 1,
    ) -> AsyncIterator[AsyncWorker]:
        """Do jobs of the platform in this process, for as long as the block runs.

        At its end, jobs that are not done are given back, and are queued again at once.

        Args:
            name: Unique on the platform; a worker of that name that is known already is gone on with. None: a name of
                its own, forgotten at the end.
            labels: Words that jobs may ask for; None: those that the platform knows of the name.
            kinds: Kinds of jobs to take; None: all that something is installed for.
            concurrency: Jobs at once.

        Raises:
            RunnerUnavailable: No job could be done here; the message says what to install.
            Exception: At the end of the block, what ended the worker before; the log told of it at once.
        """
        from asyncsdk.worker.worker import Worker

        async with Worker(self, name=name, labels=labels, kinds=kinds, concurrency=concurrency) as worker:
            yield AsyncWorker._bind(worker.record, self)

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
            self._platform = _open_platform(self._settings, self._config.tls)
        return self._platform

    async def ensure_worker(self, kind: str, *, start: bool = True) -> bool:
        """Let jobs of a kind be done in this process, on the embedded platform; does nothing on others.

        The verbs that create jobs and wait for them call this; a worker that was started ends with the client.

        Args:
            kind: Kind of the jobs.
            start: Whether to start a worker when none runs.

        Returns:
            Whether one runs now.

        Raises:
            RunnerUnavailable: What does such jobs is not installed, or something that it needs is not.
        """
        self._check_usable()
        if self._settings.url is not None or (self._local_workers is None and not start):
            return False
        if self._local_workers is None:
            from asyncsdk.worker.local import LocalWorkers

            self._local_workers = LocalWorkers(self)
        return await self._local_workers.ensure(kind, start=start)

    async def send(self, message: Message[R]) -> R:
        """Send *message* and return the platform's reply.

        For operations that have no verb yet; the verbs of entities go through here too.

        Raises:
            UnsupportedOperation: The platform does not have the operation.
            ResponseError: It refused; the subclass says why.
            RequestError: It did not answer.
        """
        try:
            reply = await self.platform.send(message)
        except (RequestError, ResponseError) as error:
            self._presence.failed(error)
            raise
        self._presence.answered()
        self._job_signals.sent(message, reply)
        return reply

    # --- opening and closing ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._check_usable()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the engine and the platform. Calling it again does nothing.

        Jobs that workers of this client have not done are given back.
        """
        if os.getpid() != self._pid:
            self._is_closed = True
            return
        try:
            if self._local_workers is not None:
                await self._local_workers.aclose()  # they take leave of a platform that is still open
        finally:  # and when that is cancelled, too
            self._is_closed = True
            with anyio.CancelScope(shield=True):
                await self._close()

    async def _close(self) -> None:
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
            _abandoned.extend((self._engine, self._platform, self._local_workers))
            self._engine = self._platform = self._local_workers = None
            self._pid = os.getpid()


def _transfer_config(settings: Settings, config: TransferConfig | None) -> TransferConfig:
    base = config or TransferConfig()
    changes: dict[str, Any] = {
        name: value
        for name in ("concurrency", "part_size", "memory_bytes")
        if (value := getattr(settings, name)) is not None
    }
    return replace(base, **changes)


def _keep(settings: Settings) -> None:
    assert settings.url is not None
    assert settings.token is not None
    with os_errors("destination", destination=str(settings.home)):
        write_profile(settings.home, url=settings.url, token=settings.token)


def _open_platform(settings: Settings, tls: TlsConfig) -> Platform:
    # Imported when needed: a client of a server needs no database, an embedded one no HTTP client.
    name = settings.platform or ("embedded" if settings.url is None else "rest")
    if name not in {"embedded", "rest"}:
        return _open_adapter(name, settings, tls)
    if (settings.url is None) != (name == "embedded"):
        needed = "no url=..." if name == "embedded" else "url=... or ASYNCSDK_URL"
        raise ConfigError(f"the platform {name!r} needs {needed}")
    if settings.url is None:
        from asyncsdk.platforms.embedded import EmbeddedPlatform

        return EmbeddedPlatform(settings.data, objects=settings.objects, objects_endpoint=settings.objects_endpoint)
    if settings.token is None:
        raise Unauthenticated(
            f"no token for {settings.url}; give token=..., set ASYNCSDK_TOKEN, or run: asyncsdk login {settings.url}"
        )
    from asyncsdk.platforms.rest import RestPlatform

    return RestPlatform(settings.url, settings.token, tls=tls)


def _open_adapter(name: str, settings: Settings, tls: TlsConfig) -> Platform:
    from asyncsdk.platforms.registry import adapter_class, open_adapter

    adapter_class(name)
    if settings.url is None:
        raise ConfigError(f"the platform {name!r} needs url=... or ASYNCSDK_URL: the root of its API")
    if settings.api_key is None:
        raise Unauthenticated(f"no API key for {settings.url}; give api_key=... or set ASYNCSDK_API_KEY")
    return open_adapter(name, settings.url, settings.api_key, tls=tls)
