"""The operations of a platform as typed messages, and the records they carry. Pure data, no I/O."""

from asyncsdk.protocol import checkpoints, datasets, items, models, predictions, projects, uploads, users
from asyncsdk.protocol.base import Message, Page, Problem, Record, all_messages

__all__ = [
    "Message",
    "Page",
    "Problem",
    "Record",
    "all_messages",
    "checkpoints",
    "datasets",
    "items",
    "models",
    "predictions",
    "projects",
    "uploads",
    "users",
]
