"""The operations of a platform as typed messages, and the records they carry. Pure data, no I/O."""

from asyncsdk.protocol import (
    agents,
    annotations,
    archives,
    artifacts,
    checkpoints,
    datasets,
    items,
    jobs,
    metrics,
    models,
    predictions,
    projects,
    uploads,
    users,
    workers,
)
from asyncsdk.protocol.base import Message, Page, Problem, Record, all_messages

__all__ = [
    "Message",
    "Page",
    "Problem",
    "Record",
    "agents",
    "all_messages",
    "annotations",
    "archives",
    "artifacts",
    "checkpoints",
    "datasets",
    "items",
    "jobs",
    "metrics",
    "models",
    "predictions",
    "projects",
    "uploads",
    "users",
    "workers",
]
