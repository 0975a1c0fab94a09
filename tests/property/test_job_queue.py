"""The queue under any order of what its users, its workers and the clock can do."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from asyncsdk.domain.ids import make_id
from asyncsdk.errors import Conflict
from asyncsdk.protocol.jobs import (
    FINISHED,
    CancelJob,
    ClaimJob,
    CreateJob,
    FinishJob,
    GetJob,
    ReleaseJob,
    ReportJob,
    RetryJob,
)
from asyncsdk.protocol.workers import BeatWorker, CreateWorker, PeekJobs
from asyncsdk.server import backend as backend_module
from asyncsdk.server.backend import Backend
from asyncsdk.server.objects.minting import FileMinter

LEASE_SECONDS = 10


@dataclass(eq=False)
class Model:
    """What a job should be."""

    id: str
    priority: int
    max_attempts: int
    status: str = "queued"
    attempts: int = 0
    spent: int = 0
    worker: str | None = None
    lease_ends: int = 0
    is_cancel_requested: bool = False


class QueueMachine(RuleBasedStateMachine):
    """Compares the queue with a list that is looked through by hand."""

    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.patch = pytest.MonkeyPatch()
        self.now_ms = backend_module._now_ms()
        self.patch.setattr(backend_module, "_now_ms", lambda: self.now_ms)
        self.backend = Backend.open(self.folder / "data")
        self.models: list[Model] = []
        self.workers = [self.ask(CreateWorker(name=f"w{n}")).id for n in range(2)]
        self.beat()

    def teardown(self) -> None:
        self.backend.close()
        self.patch.undo()
        shutil.rmtree(self.folder)

    def ask(self, message: Any) -> Any:
        self.now_ms += 1
        return self.backend.handle(message, self.backend.owner(), FileMinter(self.backend.objects))

    def beat(self) -> None:
        for worker in self.workers:
            self.ask(BeatWorker(worker_id=worker, offers={"echo": {}}))

    def expire(self) -> None:
        """Do by hand what the clock does."""
        for model in self.models:
            if model.status == "running" and model.lease_ends <= self.now_ms:
                self.put_back(model, spent=1)

    def put_back(self, model: Model, *, spent: int) -> None:
        model.spent += spent
        if model.is_cancel_requested:
            model.status = "cancelled"
        elif spent and model.spent >= model.max_attempts:
            model.status = "lost"
        else:
            model.status = "queued"

    def is_held(self, model: Model, worker: str, attempt: int) -> bool:
        return (model.status, model.worker, model.attempts) == ("running", worker, attempt)

    # Few jobs: what matters happens to one job again and again.
    @precondition(lambda self: len(self.models) < 3)
    @rule(target=jobs, priority=st.integers(-1, 1), max_attempts=st.integers(1, 2))
    def create(self, priority: int, max_attempts: int) -> Model:
        self.beat()
        model = Model(make_id(), priority, max_attempts)
        self.ask(CreateJob(job_id=model.id, kind="echo", priority=priority, max_attempts=max_attempts))
        self.models.append(model)
        return model

    @rule(which=st.sampled_from([0, 0, 0, 1]))
    def claim(self, which: int) -> None:
        self.now_ms += 1
        self.expire()
        self.now_ms -= 1
        waiting = [model for model in self.models if model.status == "queued"]
        expected = min(waiting, key=lambda model: -model.priority, default=None)
        assert self.ask(PeekJobs(worker_id=self.workers[which])).has_jobs >= bool(waiting)
        self.expire()
        message = ClaimJob(worker_id=self.workers[which], claim_id=make_id(), lease_seconds=LEASE_SECONDS)
        found = self.ask(message)
        assert (found.job and found.job.id) == (expected and expected.id)
        if expected is not None:
            expected.status, expected.worker = "running", self.workers[which]
            expected.attempts += 1
            expected.lease_ends = self.now_ms + LEASE_SECONDS * 1000
            assert self.ask(message).job.id == expected.id

    @rule(
        model=jobs,
        who=st.sampled_from(["holder", "holder", "before", "other"]),
        what=st.sampled_from(["report", "finish", "release", "release"]),
    )
    def speak(self, model: Model, who: str, what: str) -> None:
        worker, attempt = model.worker or self.workers[0], max(1, model.attempts)
        if who == "before":  # the same worker, by an attempt that is over
            attempt = max(1, attempt - 1)
        if who == "other":
            worker = self.workers[self.workers.index(worker) - 1]
        held: dict[str, Any] = {"job_id": model.id, "worker_id": worker, "attempt": attempt}
        self.now_ms += 1
        self.expire()
        self.now_ms -= 1
        is_held = self.is_held(model, worker, attempt)
        before = model.status
        if what == "release":
            self.ask(ReleaseJob(**held))
            if is_held:
                self.put_back(model, spent=0)
            return
        message: Any = ReportJob(**held, lease_seconds=LEASE_SECONDS)
        if what == "finish":
            message = FinishJob(**held, status="succeeded")
        if is_held:
            self.ask(message)
            if what == "finish":
                model.status = "succeeded"
            else:
                model.lease_ends = self.now_ms + LEASE_SECONDS * 1000
        elif what == "finish" and before == "succeeded" and (model.worker, model.attempts) == (worker, attempt):
            assert self.ask(message).status == "succeeded"
        else:
            with pytest.raises(Conflict):
                self.ask(message)

    @rule(model=jobs)
    def cancel(self, model: Model) -> None:
        self.now_ms += 1
        self.expire()
        self.now_ms -= 1
        self.ask(CancelJob(job_id=model.id))
        if model.status == "queued":
            model.status = "cancelled"
        elif model.status == "running":
            model.is_cancel_requested = True

    @rule(model=jobs)
    def retry(self, model: Model) -> None:
        self.beat()
        self.now_ms += 1
        self.expire()
        self.now_ms -= 1
        if model.status == "succeeded":
            with pytest.raises(Conflict):
                self.ask(RetryJob(job_id=model.id))
            return
        self.ask(RetryJob(job_id=model.id))
        if model.status in FINISHED:
            model.status, model.spent, model.is_cancel_requested = "queued", 0, False

    @rule(seconds=st.sampled_from([1, 6, 11]))
    def wait(self, seconds: int) -> None:
        self.now_ms += seconds * 1000

    @invariant()
    def statuses_are_as_expected(self) -> None:
        for model in self.models:
            found = self.ask(GetJob(job_id=model.id))
            self.expire()
            assert (found.status, found.attempts) == (model.status, model.attempts)


QueueMachine.TestCase.settings = settings(
    max_examples=30, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestQueue = QueueMachine.TestCase
