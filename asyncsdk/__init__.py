"""asyncsdk: an async engine that moves bytes in bulk through signed URLs, and the entity API of ML data platforms.

Start with `AsyncClient` (or its blocking twin `Client`); the engine alone is `asyncsdk.engine`.
"""

from asyncsdk._version import __version__
from asyncsdk.client import AsyncClient
from asyncsdk.config import Settings
from asyncsdk.domain.filters import AllOf, AnyOf, Condition, Filter, Not
from asyncsdk.engine import Failure, Outcome, Progress, Report, TransferConfig
from asyncsdk.entities.checkpoints import AsyncCheckpoint
from asyncsdk.entities.datasets import AsyncDataset
from asyncsdk.entities.item_uploads import ItemTable, ItemUpload
from asyncsdk.entities.items import AsyncItem
from asyncsdk.entities.models import AsyncModel
from asyncsdk.entities.predictions import AsyncPredictionTask
from asyncsdk.entities.projects import AsyncProject
from asyncsdk.entities.verifying import Comparison, Verification
from asyncsdk.errors import AsyncSDKError
from asyncsdk.sync.client import Client
from asyncsdk.sync.entities.checkpoints import Checkpoint
from asyncsdk.sync.entities.datasets import Dataset
from asyncsdk.sync.entities.items import Item
from asyncsdk.sync.entities.models import Model
from asyncsdk.sync.entities.predictions import PredictionTask
from asyncsdk.sync.entities.projects import Project

__all__ = [
    "AllOf",
    "AnyOf",
    "AsyncCheckpoint",
    "AsyncClient",
    "AsyncDataset",
    "AsyncItem",
    "AsyncModel",
    "AsyncPredictionTask",
    "AsyncProject",
    "AsyncSDKError",
    "Checkpoint",
    "Client",
    "Comparison",
    "Condition",
    "Dataset",
    "Failure",
    "Filter",
    "Item",
    "ItemTable",
    "ItemUpload",
    "Model",
    "Not",
    "Outcome",
    "PredictionTask",
    "Progress",
    "Project",
    "Report",
    "Settings",
    "TransferConfig",
    "Verification",
    "__version__",
]
