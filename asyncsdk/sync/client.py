# Generated from asyncsdk/client.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""The client: one platform, one engine, and the entities on top."""

from __future__ import annotations

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
from asyncsdk.sync.entities.models import Models
from asyncsdk.sync.entities.projects import Projects
from asyncsdk.sync.loop import closed_at_exit
from asyncsdk.sync.twins import BlockingTwin

__all__ = ["Client"]


class Client(BlockingTwin[AsyncClient]):
    """Speaks to a platform: without a URL the embedded one, in this process, in a folder of this machine.

    Use it as ``with Client() as client``, or call ``close()``. Nothing is opened before the first request.
    Many threads may use it at once. After a fork it opens anew in the child.

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
        super().__init__(
            AsyncClient(
                url,
                token=token,
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

    def send(self, message: Message[R]) -> R:
        """Send *message* and return the platform's reply.

        For operations that have no verb yet; the verbs of entities go through here too.

        Raises:
            UnsupportedOperation: The platform does not have the operation.
            ResponseError: It refused; the subclass says why.
            RequestError: It did not answer.
        """
        return run(self._twin.send, message)

    def __enter__(self) -> Self:
        run(self._twin.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run(self._twin.__aexit__, kind, error, trace)

    def close(self) -> None:
        """Close the engine and the platform. Calling it again does nothing."""
        run(self._twin.aclose)

    def __repr__(self) -> str:
        return repr(self._twin).replace("AsyncClient", "Client")
