# Generated from asyncsdk/client.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""The client: one platform, one engine, and the entities on top."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from types import TracebackType
from typing import Self

from asyncsdk.client import AsyncClient, R
from asyncsdk.config import Settings
from asyncsdk.engine import Concurrency, TransferConfig
from asyncsdk.protocol.base import Message
from asyncsdk.protocol.users import UserRecord
from asyncsdk.sync.bridge import run
from asyncsdk.sync.entities.datasets import Datasets
from asyncsdk.sync.entities.jobs import Jobs
from asyncsdk.sync.entities.models import Models
from asyncsdk.sync.entities.projects import Projects
from asyncsdk.sync.entities.users import Users
from asyncsdk.sync.entities.workers import Worker, Workers
from asyncsdk.sync.iteration import context
from asyncsdk.sync.loop import closed_at_exit
from asyncsdk.sync.twins import BlockingTwin, blocking

__all__ = ["Client"]


class Client(BlockingTwin[AsyncClient]):
    """Speaks to a platform: without a URL the embedded one, in this process, in a folder of this machine.

    Use it as ``with Client() as client``, or call ``close()``. Nothing is opened before the first request.
    Many threads may use it at once. After a fork it opens anew in the child.

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
        super().__init__(
            AsyncClient(
                url,
                token=token,
                platform=platform,
                api_key=api_key,
                home=home,
                data=data,
                objects=objects,
                objects_endpoint=objects_endpoint,
                concurrency=concurrency,
                part_size=part_size,
                config=config,
            )
        )
        closed_at_exit(self._twin)

    @property
    def projects(self) -> Projects:
        """The projects of the platform."""
        return Projects._of(self._twin.projects)

    @property
    def datasets(self) -> Datasets:
        """The datasets of the platform."""
        return Datasets._of(self._twin.datasets)

    @property
    def models(self) -> Models:
        """The models of the platform."""
        return Models._of(self._twin.models)

    @property
    def users(self) -> Users:
        """The users of the platform: its team."""
        return Users._of(self._twin.users)

    def login(self, *, token: str | None = None, api_key: str | None = None) -> UserRecord:
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
        return run(self._twin.login, token=token, api_key=api_key)

    @property
    def jobs(self) -> Jobs:
        """The jobs of the platform: long work, done by workers."""
        return Jobs._of(self._twin.jobs)

    @property
    def workers(self) -> Workers:
        """The workers of the platform."""
        return Workers._of(self._twin.workers)

    @contextmanager
    def worker(
        self,
        *,
        name: str | None = None,
        labels: Sequence[str] | None = None,
        kinds: Sequence[str] | None = None,
        concurrency: int = 1,
    ) -> Iterator[Worker]:
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
        with context(
            self._twin.worker(name=name, labels=labels, kinds=kinds, concurrency=concurrency), Worker._of
        ) as value:
            yield value

    def whoami(self) -> UserRecord:
        """Return the user that the token belongs to.

        Raises:
            Unauthenticated: There is no token, or not one that the server knows.
        """
        return run(self._twin.whoami)

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._twin.settings

    def ensure_worker(self, kind: str, *, start: bool = True) -> bool:
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
        return run(self._twin.ensure_worker, kind, start=start)

    def send(self, message: Message[R]) -> R:
        """Send *message* and return the platform's reply.

        For operations that have no verb yet; the verbs of entities go through here too.

        Raises:
            UnsupportedOperation: The platform does not have the operation.
            ResponseError: It refused; the subclass says why.
            RequestError: It did not answer.
        """
        return blocking(run(self._twin.send, message))

    def __enter__(self) -> Self:
        run(self._twin.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run(self._twin.__aexit__, kind, error, trace)

    def close(self) -> None:
        """Close the engine and the platform. Calling it again does nothing.

        Jobs that workers of this client have not done are given back.
        """
        run(self._twin.aclose)

    def __repr__(self) -> str:
        return repr(self._twin).replace("AsyncClient", "Client")
