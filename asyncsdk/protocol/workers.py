"""Workers: programs that take jobs, and what they offer."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, JsonValue

from asyncsdk.domain.ids import Id
from asyncsdk.domain.paths import Name
from asyncsdk.protocol.base import (
    Delete,
    Empty,
    EntityRecord,
    Get,
    ListMessage,
    Message,
    Metadata,
    Post,
    Record,
    Timestamp,
)
from asyncsdk.protocol.jobs import JobKind, JobLabels

__all__ = [
    "BeatWorker",
    "CreateWorker",
    "DeleteWorker",
    "GetWorker",
    "ListWorkers",
    "PeekJobs",
    "QueueState",
    "WorkerOffers",
    "WorkerRecord",
]

ONLINE_SECONDS = 60
"""A worker that was not heard of for so long counts as away: new jobs are not left to it."""

WorkerOffers = Annotated[dict[JobKind, dict[str, JsonValue]], Field(max_length=256)]
"""Kinds of jobs, and what can be done of each: ``{"export": {"formats": ["onnx"]}}``."""


class WorkerRecord(EntityRecord):
    """A worker.

    Attributes:
        name: Unique on the platform.
        labels: Words that jobs may ask for.
        offers: Kinds of jobs it does, and what it can do of each.
        last_seen_at: When it was last heard of; None: never.
        is_online: Whether it was heard of within a minute and offers something.
        is_temporary: Whether it goes by itself: with its program, or when it was not heard of for a day.
    """

    name: str
    labels: tuple[str, ...] = ()
    offers: dict[str, dict[str, JsonValue]] = {}
    last_seen_at: Timestamp | None = None
    is_online: bool = False
    is_temporary: bool = False


class CreateWorker(Message[WorkerRecord]):
    """Make a worker known; when there is one of that name, that one is the answer, unchanged."""

    route: ClassVar = Post("/workers")
    name: Name
    worker_id: Id | None = None
    labels: JobLabels = ()
    is_temporary: bool = False
    metadata: Metadata = {}


class GetWorker(Message[WorkerRecord]):
    """Return one worker."""

    route: ClassVar = Get("/workers/{worker_id}")
    worker_id: Id


class ListWorkers(ListMessage[WorkerRecord]):
    """List workers, by name unless sorted otherwise."""

    route: ClassVar = Get("/workers")


class BeatWorker(Message[WorkerRecord]):
    """Say that a worker is there and what it offers; labels that are not given stay as they are.

    Without offers it counts as away, until it beats again.
    """

    route: ClassVar = Post("/workers/{worker_id}/beat")
    worker_id: Id
    offers: WorkerOffers
    labels: JobLabels | None = None


class DeleteWorker(Message[Empty]):
    """Forget a worker; jobs that it has are queued again at once, and the attempts do not count."""

    route: ClassVar = Delete("/workers/{worker_id}")
    worker_id: Id


class QueueState(Record):
    """What waits for a worker.

    Attributes:
        has_jobs: Whether claiming is worth it: there is a job for it, or one whose lease ran out.
        cancelled: Of the jobs that it has, those that are to stop.
    """

    has_jobs: bool
    cancelled: tuple[Id, ...] = ()


class PeekJobs(Message[QueueState]):
    """Look whether something waits for a worker. Takes no job and writes nothing: made to be asked often."""

    route: ClassVar = Get("/workers/{worker_id}/peek")
    worker_id: Id
