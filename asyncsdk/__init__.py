"""asyncsdk: an async engine that moves bytes in bulk through signed URLs, and the entity API of ML data platforms.

Start with `AsyncClient` (or its blocking twin `Client`); the engine alone is `asyncsdk.engine`.

Names are brought in when they are first used: a worker process of the engine needs no entities, and starts in a third
of the time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from asyncsdk._version import __version__

if TYPE_CHECKING:
    from asyncsdk.client import AsyncClient
    from asyncsdk.config import Settings
    from asyncsdk.domain.filters import AllOf, AnyOf, Condition, Filter, Not
    from asyncsdk.domain.predicting import PredictConfig
    from asyncsdk.domain.results import Classification, Detection, PredictionResult
    from asyncsdk.domain.shapes import Box, Polygon
    from asyncsdk.engine import Failure, Outcome, Progress, Report, TransferConfig
    from asyncsdk.entities.agents import AsyncAgent
    from asyncsdk.entities.annotations import AnnotationDraft, AsyncAnnotation
    from asyncsdk.entities.checkpoints import AsyncCheckpoint
    from asyncsdk.entities.datasets import AsyncDataset
    from asyncsdk.entities.heartbeat import AsyncHeartbeat
    from asyncsdk.entities.item_uploads import ItemTable, ItemUpload
    from asyncsdk.entities.items import AsyncItem
    from asyncsdk.entities.jobs import AsyncArtifact, AsyncJob
    from asyncsdk.entities.model_work import AsyncExport
    from asyncsdk.entities.models import AsyncModel
    from asyncsdk.entities.predictions import AsyncPredictionTask
    from asyncsdk.entities.projects import AsyncProject
    from asyncsdk.entities.verifying import Comparison, Verification
    from asyncsdk.entities.workers import AsyncWorker
    from asyncsdk.errors import AsyncSDKError
    from asyncsdk.protocol.checkpoints import Retention
    from asyncsdk.sync.client import Client
    from asyncsdk.sync.entities.agents import Agent
    from asyncsdk.sync.entities.annotations import Annotation
    from asyncsdk.sync.entities.checkpoints import Checkpoint
    from asyncsdk.sync.entities.datasets import Dataset
    from asyncsdk.sync.entities.items import Item
    from asyncsdk.sync.entities.jobs import Artifact, Job
    from asyncsdk.sync.entities.model_work import Export
    from asyncsdk.sync.entities.models import Model
    from asyncsdk.sync.entities.predictions import PredictionTask
    from asyncsdk.sync.entities.projects import Project
    from asyncsdk.sync.heartbeats import Heartbeat

__all__ = [
    "Agent",
    "AllOf",
    "Annotation",
    "AnnotationDraft",
    "AnyOf",
    "Artifact",
    "AsyncAgent",
    "AsyncAnnotation",
    "AsyncArtifact",
    "AsyncCheckpoint",
    "AsyncClient",
    "AsyncDataset",
    "AsyncExport",
    "AsyncHeartbeat",
    "AsyncItem",
    "AsyncJob",
    "AsyncModel",
    "AsyncPredictionTask",
    "AsyncProject",
    "AsyncSDKError",
    "AsyncWorker",
    "Box",
    "Checkpoint",
    "Classification",
    "Client",
    "Comparison",
    "Condition",
    "Dataset",
    "Detection",
    "Export",
    "Failure",
    "Filter",
    "Heartbeat",
    "Item",
    "ItemTable",
    "ItemUpload",
    "Job",
    "Model",
    "Not",
    "Outcome",
    "Polygon",
    "PredictConfig",
    "PredictionResult",
    "PredictionTask",
    "Progress",
    "Project",
    "Report",
    "Retention",
    "Settings",
    "TransferConfig",
    "Verification",
    "__version__",
]

_PLACES = {
    "asyncsdk.client": ("AsyncClient",),
    "asyncsdk.config": ("Settings",),
    "asyncsdk.domain.filters": ("AllOf", "AnyOf", "Condition", "Filter", "Not"),
    "asyncsdk.domain.predicting": ("PredictConfig",),
    "asyncsdk.domain.results": ("Classification", "Detection", "PredictionResult"),
    "asyncsdk.domain.shapes": ("Box", "Polygon"),
    "asyncsdk.engine": ("Failure", "Outcome", "Progress", "Report", "TransferConfig"),
    "asyncsdk.entities.agents": ("AsyncAgent",),
    "asyncsdk.entities.annotations": ("AnnotationDraft", "AsyncAnnotation"),
    "asyncsdk.entities.checkpoints": ("AsyncCheckpoint",),
    "asyncsdk.entities.datasets": ("AsyncDataset",),
    "asyncsdk.entities.heartbeat": ("AsyncHeartbeat",),
    "asyncsdk.entities.item_uploads": ("ItemTable", "ItemUpload"),
    "asyncsdk.entities.items": ("AsyncItem",),
    "asyncsdk.entities.jobs": ("AsyncArtifact", "AsyncJob"),
    "asyncsdk.entities.model_work": ("AsyncExport",),
    "asyncsdk.entities.models": ("AsyncModel",),
    "asyncsdk.entities.predictions": ("AsyncPredictionTask",),
    "asyncsdk.entities.projects": ("AsyncProject",),
    "asyncsdk.entities.verifying": ("Comparison", "Verification"),
    "asyncsdk.entities.workers": ("AsyncWorker",),
    "asyncsdk.errors": ("AsyncSDKError",),
    "asyncsdk.protocol.checkpoints": ("Retention",),
    "asyncsdk.sync.client": ("Client",),
    "asyncsdk.sync.entities.agents": ("Agent",),
    "asyncsdk.sync.entities.annotations": ("Annotation",),
    "asyncsdk.sync.entities.checkpoints": ("Checkpoint",),
    "asyncsdk.sync.entities.datasets": ("Dataset",),
    "asyncsdk.sync.entities.items": ("Item",),
    "asyncsdk.sync.entities.jobs": ("Artifact", "Job"),
    "asyncsdk.sync.entities.model_work": ("Export",),
    "asyncsdk.sync.entities.models": ("Model",),
    "asyncsdk.sync.entities.predictions": ("PredictionTask",),
    "asyncsdk.sync.entities.projects": ("Project",),
    "asyncsdk.sync.heartbeats": ("Heartbeat",),
}
"""Module: its names that are public here; the same as above, for programs that run."""

_SUBMODULES = ("client", "config", "domain", "engine", "entities", "errors", "protocol", "sync")
"""What ``import asyncsdk`` lets one write as ``asyncsdk.errors`` and so on."""

_MODULES = {name: module for module, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Bring in a public name, or a module of this package, when it is first asked for."""
    if name in _MODULES:
        found = getattr(import_module(_MODULES[name]), name)
        globals()[name] = found
        return found
    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted({*globals(), *__all__, *_SUBMODULES})
