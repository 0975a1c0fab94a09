"""What the platform does about each message: one module per entity, all registered in one place."""

from asyncsdk.server.handlers import (
    checkpoints,
    commits,
    datasets,
    items,
    models,
    prediction_tasks,
    predictions,
    projects,
    uploads,
    users,
)
from asyncsdk.server.handlers.registry import Context, Registration, registrations

__all__ = [
    "Context",
    "Registration",
    "checkpoints",
    "commits",
    "datasets",
    "items",
    "models",
    "prediction_tasks",
    "predictions",
    "projects",
    "registrations",
    "uploads",
    "users",
]
