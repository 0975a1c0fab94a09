"""The platform: which messages the service can be told, and who tells it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar, TypeVar

import httpx

from asyncsdk.errors import UnsupportedOperation, redact_url
from asyncsdk.platforms.ultralytics.calls import Calls
from asyncsdk.platforms.ultralytics.entities import Entities, People
from asyncsdk.platforms.ultralytics.records import NAME
from asyncsdk.platforms.ultralytics.training import Training
from asyncsdk.platforms.ultralytics.weights import Weights
from asyncsdk.platforms.ultralytics.work import Work
from asyncsdk.protocol.agents import BeatAgent
from asyncsdk.protocol.archives import CommitArchive, PrepareArchive, PrepareArchiveDownload
from asyncsdk.protocol.base import Message
from asyncsdk.protocol.checkpoints import (
    CommitCheckpoint,
    FindCheckpoint,
    GetCheckpoint,
    PrepareCheckpoint,
    PrepareCheckpointDownload,
)
from asyncsdk.protocol.datasets import CreateDataset, DeleteDataset, GetDataset, ListDatasets, UpdateDataset
from asyncsdk.protocol.jobs import CreateJob, GetJob, PrepareJobInputs
from asyncsdk.protocol.metrics import ListMetrics, ListMetricSeries, LogMetrics
from asyncsdk.protocol.models import CreateModel, DeleteModel, GetModel, ListModels, UpdateModel
from asyncsdk.protocol.projects import (
    CommitProjectImage,
    CreateProject,
    DeleteProject,
    GetProject,
    ListProjects,
    PrepareProjectImage,
    UpdateProject,
)
from asyncsdk.protocol.uploads import RenewUploads
from asyncsdk.protocol.users import GetUser, ListUsers, WhoAmI
from asyncsdk.transport.tls import TlsConfig
from asyncsdk.wires.ultralytics.paths import Resource

__all__ = ["UltralyticsPlatform"]

R = TypeVar("R")

Answerer = Callable[["UltralyticsPlatform", Any], Awaitable[Any]]


def _entities(resource: Resource, verb: str) -> Answerer:
    return lambda platform, message: getattr(platform.entities[resource], verb)(message)


def _of(part: str, verb: str) -> Answerer:
    return lambda platform, message: getattr(getattr(platform, part), verb)(message)


class UltralyticsPlatform:
    """Sends messages to the service, or to whatever speaks its protocol.

    A message that it has no request for, and a field that a request has no place for, raise `UnsupportedOperation`
    before anything is sent.

    Args:
        url: Root of the API.
        api_key: Of the user.
        timeout: Longest single wait, in seconds: for a connection, or for bytes to move. A prediction is waited for.
        transport: Of httpx, in place of the network; for tests.

    Raises:
        ConfigError: The URL or the key cannot be one.
    """

    name = NAME

    capabilities: ClassVar[Mapping[type[Message[Any]], Answerer]] = {
        WhoAmI: _of("people", "who_am_i"),
        GetUser: _of("people", "get"),
        ListUsers: _of("people", "list"),
        CreateProject: _entities("projects", "create"),
        GetProject: _entities("projects", "get"),
        ListProjects: _entities("projects", "list"),
        UpdateProject: _entities("projects", "update"),
        DeleteProject: _entities("projects", "delete"),
        PrepareProjectImage: _of("weights", "prepare_image"),
        CommitProjectImage: _of("weights", "commit_image"),
        CreateDataset: _entities("datasets", "create"),
        GetDataset: _entities("datasets", "get"),
        ListDatasets: _entities("datasets", "list"),
        UpdateDataset: _entities("datasets", "update"),
        DeleteDataset: _entities("datasets", "delete"),
        PrepareArchive: _of("weights", "prepare_archive"),
        CommitArchive: _of("weights", "commit_archive"),
        PrepareArchiveDownload: _of("weights", "prepare_archive_download"),
        CreateModel: _entities("models", "create"),
        GetModel: _entities("models", "get"),
        ListModels: _entities("models", "list"),
        UpdateModel: _entities("models", "update"),
        DeleteModel: _entities("models", "delete"),
        PrepareCheckpoint: _of("weights", "prepare"),
        CommitCheckpoint: _of("weights", "commit"),
        RenewUploads: _of("weights", "renew"),
        FindCheckpoint: _of("weights", "find"),
        GetCheckpoint: _of("weights", "get"),
        PrepareCheckpointDownload: _of("weights", "prepare_download"),
        LogMetrics: _of("training", "log"),
        ListMetrics: _of("training", "list"),
        ListMetricSeries: _of("training", "series"),
        BeatAgent: _of("training", "beat"),
        PrepareJobInputs: _of("work", "prepare_inputs"),
        CreateJob: _of("work", "create"),
        GetJob: _of("work", "get"),
    }
    """The messages it has, and who answers each."""

    notes: ClassVar[Mapping[type[Message[Any]], str]] = {
        WhoAmI: "where the service tells whose the key is",
        ListUsers: "no filter, no sort",
        CreateProject: "the service gives the id",
        ListProjects: "no sort, none of those deleted softly; no total of a filtered list",
        UpdateProject: "`if_updated_at` is looked at just before",
        CreateDataset: "the service gives the id; no kind",
        ListDatasets: "no sort, none of those deleted softly; no total of a filtered list",
        UpdateDataset: "not `is_readonly`; `if_updated_at` is looked at just before",
        PrepareArchive: "the service unpacks by itself",
        CommitArchive: "archives prepared by this client",
        PrepareArchiveDownload: "without the name of the file",
        CreateModel: "the service gives the id; no labels, framework, retention",
        ListModels: "no sort, none of those deleted softly; no total of a filtered list",
        UpdateModel: "no labels, framework, retention; `if_updated_at` is looked at just before",
        PrepareCheckpoint: "with an epoch; no metadata, of metrics only `map` of final weights",
        CommitCheckpoint: "weights prepared by this client; final ones are the best as well",
        RenewUploads: "uploads prepared by this client",
        FindCheckpoint: "best, last, final; not by epoch",
        GetCheckpoint: "best, last, final",
        PrepareCheckpointDownload: "best, last, final",
        LogMetrics: "with a step; without times, so that the last one sent stands",
        ListMetrics: "without times",
        ListMetricSeries: "without times",
        BeatAgent: "no goodbye, no interval",
        PrepareJobInputs: "images to predict",
        CreateJob: "predict, with the best weights; done when it answers",
        GetJob: "jobs of this client",
    }
    """What of a message the service cannot be told, for the documentation."""

    def __init__(
        self,
        url: str,
        api_key: str,
        *,
        timeout: float = 90.0,
        tls: TlsConfig | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._calls = Calls(url, api_key, timeout=timeout, tls=tls, transport=transport)
        resources: tuple[Resource, ...] = ("projects", "datasets", "models")
        self.entities = {resource: Entities(self._calls, resource) for resource in resources}
        self.people = People(self._calls)
        self.weights = Weights(self._calls)
        self.training = Training(self._calls)
        self.work = Work(self._calls, self.weights)

    def __repr__(self) -> str:
        return f"UltralyticsPlatform({redact_url(self._calls.url)!r})"

    async def send(self, message: Message[R]) -> R:
        """Return the reply; see `asyncsdk.platforms.base.Platform.send`."""
        answerer = self.capabilities.get(type(message))
        if answerer is None:
            raise UnsupportedOperation(self.name, type(message).__name__)
        reply: R = await answerer(self, message)
        return reply

    @classmethod
    def supports(cls, message_type: type[Message[Any]]) -> bool:
        """Whether the platform has the operation."""
        return message_type in cls.capabilities

    async def aclose(self) -> None:
        """Close the connections. Calling it again does nothing."""
        await self.work.aclose()
        await self._calls.aclose()
