"""asyncsdk: an async engine that moves bytes in bulk through signed URLs, and the entity API of ML data platforms.

Start with `AsyncClient` (or its blocking twin `Client`); the engine alone is `asyncsdk.engine`.
"""

from asyncsdk._version import __version__
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
