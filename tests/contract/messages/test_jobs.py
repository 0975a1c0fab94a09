"""The queue: create, claim, report, finish, cancel, retry, and what becomes of leases; on every platform the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from asyncsdk.domain.filters import Condition
from asyncsdk.domain.ids import make_id
from asyncsdk.errors import AsyncSDKError, BadRequest, Conflict, NotFound, NoWorker
from asyncsdk.platforms.base import Platform
from asyncsdk.protocol.base import Problem
from asyncsdk.protocol.jobs import (
    MAX_LOG_LINES,
    MAX_PAYLOAD_BYTES,
    MAX_RESULT_BYTES,
    CancelJob,
    ClaimJob,
    CreateJob,
    DeleteJob,
    FinishJob,
    GetJob,
    JobOrders,
    JobRecord,
    ListJobLogs,
    ListJobs,
    LogLine,
    ReleaseJob,
    ReportJob,
    RetryJob,
)
from asyncsdk.protocol.workers import PeekJobs, WorkerRecord
from asyncsdk.server import backend as backend_module
from tests.support.jobs import claim, new_job, new_worker

NOBODY = "f" * 24
Later = Callable[[float], None]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    """Moves the platform's clock on, in seconds."""
    real, moved = backend_module._now_ms, [0.0]
    monkeypatch.setattr(backend_module, "_now_ms", lambda: real() + round(moved[0] * 1000))

    def move(seconds: float) -> None:
        moved[0] += seconds

    return move


@pytest.fixture
async def worker(platform: Platform) -> WorkerRecord:
    return await new_worker(platform)


async def get(platform: Platform, job: JobRecord) -> JobRecord:
    return await platform.send(GetJob(job_id=job.id))


def held(worker: WorkerRecord, job: JobRecord, attempt: int = 1) -> dict[str, Any]:
    return {"job_id": job.id, "worker_id": worker.id, "attempt": attempt}


async def refused(platform: Platform, message: Any) -> AsyncSDKError:
    with pytest.raises(AsyncSDKError) as info:
        await platform.send(message)
    return info.value


async def test_a_job_goes_its_way(platform: Platform, worker: WorkerRecord) -> None:
    """Queued, running with reports, succeeded with a result."""
    facts: dict[str, Any] = {"payload": {"a": [1]}, "priority": 3, "subject_id": NOBODY, "metadata": {"k": "v"}}
    made = await new_job(platform, **facts)
    assert {name: getattr(made, name) for name in facts} == facts
    assert (made.status, made.attempts, made.worker_id, made.started_at) == ("queued", 0, None, None)
    taken = (await claim(platform, worker)).job
    assert taken is not None
    assert (taken.id, taken.status, taken.attempts, taken.worker_id) == (made.id, "running", 1, worker.id)
    assert taken.started_at is not None
    orders = await platform.send(ReportJob(**held(worker, made), progress=0.25, stage="reading", message="one of four"))
    assert orders.is_cancel_requested is False
    assert (await claim(platform, worker)).job is None
    now = await get(platform, made)
    assert (now.progress, now.stage, now.message, now.updated_at > taken.updated_at) == (
        0.25,
        "reading",
        "one of four",
        True,
    )
    done = await platform.send(FinishJob(**held(worker, made), status="succeeded", result={"n": 1}))
    assert (done.status, done.result, done.progress) == ("succeeded", {"n": 1}, 1.0)
    assert done.ended_at is not None
    assert await get(platform, made) == done


async def test_repeating_a_message_changes_nothing_more(platform: Platform, worker: WorkerRecord) -> None:
    """Creating, claiming, finishing: each may be sent again when its reply was lost."""
    message = CreateJob(job_id=make_id(), kind="echo", payload={"n": 1})
    made = await platform.send(message)
    assert await platform.send(message) == made
    assert isinstance(await refused(platform, message.model_copy(update={"kind": "other"})), Conflict)
    taking = ClaimJob(worker_id=worker.id, claim_id=make_id())
    taken = await platform.send(taking)
    assert await platform.send(taking) == taken
    assert taken.job is not None
    assert (await claim(platform, worker)).job is None
    ending = FinishJob(**held(worker, made), status="failed", error=Problem(code="oom", message="no memory"))
    done = await platform.send(ending)
    assert done.error == Problem(code="oom", message="no memory")
    assert await platform.send(ending) == done
    assert (await refused(platform, FinishJob(**held(worker, made), status="succeeded"))).server_code == "lease_lost"
    assert (await platform.send(ListJobs(total=True))).total == 1


async def test_a_kind_that_nobody_offers_is_refused(platform: Platform, later: Later) -> None:
    """With what to do about it; also when who offered it was not heard of for a minute, or offers other formats."""
    await new_worker(platform, "other", (), other={})
    error = await refused(platform, CreateJob(job_id=make_id(), kind="predict"))
    assert isinstance(error, NoWorker)
    assert (error.code, error.retryable) == ("no_worker", False)
    assert "asyncsdk worker" in str(error)
    assert "asyncsdk[predict]" in str(error)
    await new_worker(platform, "w", (), predict={}, export={"formats": ["onnx", "torchscript"]})
    await new_job(platform, kind="predict", payload={"format": "anything"})
    await new_job(platform, kind="export", payload={"format": "onnx"})
    error = await refused(platform, CreateJob(job_id=make_id(), kind="export", payload={"format": "engine"}))
    assert isinstance(error, NoWorker)
    assert "onnx, torchscript" in str(error)
    later(61)
    assert isinstance(await refused(platform, CreateJob(job_id=make_id(), kind="predict")), NoWorker)
    unpack = await refused(platform, CreateJob(job_id=make_id(), kind="unpack_archive"))
    assert "pip install 'asyncsdk[archive]'" in str(unpack)
    assert (await platform.send(ListJobs(total=True))).total == 2


async def test_the_order_is_priority_then_age(platform: Platform, worker: WorkerRecord) -> None:
    made = [await new_job(platform, priority=priority) for priority in (0, 5, 0, -1, 5)]
    taken = [(await claim(platform, worker)).job for _ in made]
    assert [job.id for job in taken if job] == [made[n].id for n in (1, 4, 0, 2, 3)]


async def test_labels_and_formats_decide_who_takes_it(platform: Platform) -> None:
    """A worker takes what it offers and has the labels for; what it cannot do holds up nothing."""
    plain = await new_worker(platform, "plain", (), echo={}, export={"formats": ["onnx"]})
    gpu = await new_worker(platform, "gpu", ("gpu", "big"), export={"formats": ["engine"]}, echo={})
    wanting = await new_job(platform, labels=("gpu",), priority=9)
    engine = await new_job(platform, kind="export", payload={"format": "engine"}, priority=8)
    easy = await new_job(platform)
    assert (await platform.send(PeekJobs(worker_id=plain.id))).has_jobs
    job = (await claim(platform, plain)).job
    assert job is not None
    assert job.id == easy.id
    assert (await platform.send(PeekJobs(worker_id=plain.id))).has_jobs is False
    assert (await claim(platform, plain)).job is None
    found = [(await claim(platform, gpu)).job for _ in range(2)]
    assert [job.id for job in found if job] == [wanting.id, engine.id]


async def test_a_lease_that_ran_out_puts_the_job_back(platform: Platform, worker: WorkerRecord, later: Later) -> None:
    """Another worker takes it; what the first one says afterwards is refused, and changes nothing."""
    made = await new_job(platform)
    await claim(platform, worker, lease_seconds=100)
    later(90)
    orders: JobOrders = await platform.send(ReportJob(**held(worker, made), lease_seconds=100))
    assert orders.is_cancel_requested is False
    later(90)
    assert (await get(platform, made)).status == "running"
    later(20)
    assert (await get(platform, made)).status == "queued"
    assert [job.id for job in (await platform.send(ListJobs(status="queued"))).entries] == [made.id]
    assert (await platform.send(ListJobs(status="running"))).entries == ()
    assert (await refused(platform, ReportJob(**held(worker, made)))).server_code == "lease_lost"
    other = await new_worker(platform, "other")
    assert (await platform.send(PeekJobs(worker_id=other.id))).has_jobs
    taken = (await claim(platform, other)).job
    assert taken is not None
    assert (taken.id, taken.attempts, taken.worker_id) == (made.id, 2, other.id)
    for late in (ReportJob(**held(worker, made), progress=0.9), FinishJob(**held(worker, made), status="succeeded")):
        assert (await refused(platform, late)).server_code == "lease_lost"
    await platform.send(ReleaseJob(**held(worker, made)))
    now = await get(platform, made)
    assert (now.status, now.worker_id, now.progress) == ("running", other.id, None)


async def test_a_job_is_lost_when_its_attempts_are_used_up(
    platform: Platform, worker: WorkerRecord, later: Later
) -> None:
    """And a retry gives it all of them again."""
    made = await new_job(platform, max_attempts=2)
    for _ in range(2):
        assert (await claim(platform, worker, lease_seconds=10)).job is not None
        later(11)
    assert (await get(platform, made)).status == "lost"
    assert (await platform.send(PeekJobs(worker_id=worker.id))).has_jobs
    assert (await claim(platform, worker)).job is None
    lost = await get(platform, made)
    assert lost.error is not None
    assert (lost.status, lost.error.code, lost.attempts) == ("lost", "job_lost", 2)
    assert (await platform.send(RetryJob(job_id=made.id))).status == "queued"
    taken = (await claim(platform, worker, lease_seconds=10)).job
    assert taken is not None
    assert (taken.attempts, taken.error) == (3, None)
    later(11)
    assert (await get(platform, made)).status == "queued"


async def test_a_job_that_is_given_back_counts_no_attempt(platform: Platform, worker: WorkerRecord) -> None:
    made = await new_job(platform, max_attempts=1)
    for attempt in (1, 2, 3):
        assert (await claim(platform, worker)).job is not None
        await platform.send(ReleaseJob(**held(worker, made, attempt)))
        await platform.send(ReleaseJob(**held(worker, made, attempt)))
        now = await get(platform, made)
        assert (now.status, now.attempts, now.worker_id) == ("queued", attempt, None)


async def test_cancelling(platform: Platform, worker: WorkerRecord, later: Later) -> None:
    """At once when it is queued; one that runs is told, and ends as its worker says, or when nobody is heard of."""
    queued = await new_job(platform)
    assert (await platform.send(CancelJob(job_id=queued.id))).status == "cancelled"
    assert (await platform.send(CancelJob(job_id=queued.id))).status == "cancelled"
    obedient, fast, silent, leaving = [await new_job(platform) for _ in range(4)]
    for job in (obedient, fast, silent, leaving):
        taken = (await claim(platform, worker, lease_seconds=10)).job
        assert taken is not None
        asked = await platform.send(CancelJob(job_id=job.id))
        assert (taken.id, asked.status, asked.is_cancel_requested) == (job.id, "running", True)
    found = (await platform.send(PeekJobs(worker_id=worker.id))).cancelled
    assert set(found) == {job.id for job in (obedient, fast, silent, leaving)}
    assert (await platform.send(ReportJob(**held(worker, obedient)))).is_cancel_requested
    done = await platform.send(FinishJob(**held(worker, obedient), status="cancelled"))
    assert (done.status, done.ended_at is not None) == ("cancelled", True)
    await platform.send(FinishJob(**held(worker, fast), status="succeeded", result=1))
    await platform.send(ReleaseJob(**held(worker, leaving)))
    later(11)
    statuses = [(await get(platform, job)).status for job in (obedient, fast, silent, leaving)]
    assert statuses == ["cancelled", "succeeded", "cancelled", "cancelled"]
    assert (await platform.send(CancelJob(job_id=fast.id))).status == "succeeded"


async def test_retrying(platform: Platform, worker: WorkerRecord, later: Later) -> None:
    """What failed is queued afresh; what succeeded stays; and somebody must be there to do it."""
    made = await new_job(platform, payload={"n": 1})
    await claim(platform, worker)
    assert (await platform.send(RetryJob(job_id=made.id))).status == "running"
    await platform.send(ReportJob(**held(worker, made), progress=0.5, stage="s", logs=(LogLine(text="old"),)))
    await platform.send(FinishJob(**held(worker, made), status="failed"))
    again = await platform.send(RetryJob(job_id=made.id))
    assert (again.status, again.progress, again.stage, again.error, again.ended_at) == ("queued", None, "", None, None)
    assert (await platform.send(ListJobLogs(job_id=made.id))).entries == ()
    assert (await platform.send(RetryJob(job_id=made.id))).status == "queued"
    await claim(platform, worker)
    await platform.send(FinishJob(**held(worker, made, 2), status="succeeded", result=[]))
    assert isinstance(await refused(platform, RetryJob(job_id=made.id)), Conflict)
    gone = await new_job(platform)
    await platform.send(CancelJob(job_id=gone.id))
    later(61)
    assert isinstance(await refused(platform, RetryJob(job_id=gone.id)), NoWorker)


async def test_logs_are_kept_once_in_order_and_bounded(platform: Platform, worker: WorkerRecord) -> None:
    """Lines of a report that is sent again are not written twice; what is too much is left out, and told."""
    made = await new_job(platform)
    await claim(platform, worker)
    lines = tuple(LogLine(text=f"line {n}", level="debug" if n else "error") for n in range(500))
    await platform.send(ReportJob(**held(worker, made), logs=lines[:3]))
    await platform.send(ReportJob(**held(worker, made), logs=lines[:5]))
    await platform.send(ReportJob(**held(worker, made), logs=lines[5:7], first_line=6))
    page = await platform.send(ListJobLogs(job_id=made.id))
    assert [(line.sequence, line.text, line.attempt) for line in page.entries] == [
        (n + 1, f"line {n}", 1) for n in range(7)
    ]
    assert (page.entries[0].level, page.entries[1].level, page.last) == ("error", "debug", 7)
    after = await platform.send(ListJobLogs(job_id=made.id, after=5, limit=1))
    assert ([line.sequence for line in after.entries], after.last) == ([6], 6)
    for start in range(7, MAX_LOG_LINES + 400, 500):
        await platform.send(ReportJob(**held(worker, made), logs=lines, first_line=start + 1))
    page = await platform.send(ListJobLogs(job_id=made.id, after=MAX_LOG_LINES - 1))
    assert [line.sequence for line in page.entries] == [MAX_LOG_LINES, MAX_LOG_LINES + 1]
    assert "left out" in page.entries[-1].text
    with pytest.raises(NotFound):
        await platform.send(ListJobLogs(job_id=NOBODY))


async def test_what_is_too_large_or_unknown_is_refused(platform: Platform, worker: WorkerRecord) -> None:
    big = {"x": "y" * MAX_PAYLOAD_BYTES}
    assert isinstance(await refused(platform, CreateJob(job_id=make_id(), kind="echo", payload=big)), BadRequest)
    made = await new_job(platform)
    await claim(platform, worker)
    large = FinishJob(**held(worker, made), status="succeeded", result="y" * MAX_RESULT_BYTES)
    assert isinstance(await refused(platform, large), BadRequest)
    assert (await get(platform, made)).status == "running"
    for message in (
        GetJob(job_id=NOBODY),
        CancelJob(job_id=NOBODY),
        RetryJob(job_id=NOBODY),
        DeleteJob(job_id=NOBODY),
        ClaimJob(worker_id=NOBODY, claim_id=make_id()),
        PeekJobs(worker_id=NOBODY),
        ReportJob(job_id=NOBODY, worker_id=worker.id, attempt=1),
    ):
        assert isinstance(await refused(platform, message), NotFound), message
    with pytest.raises(BadRequest):
        CreateJob(job_id=make_id(), kind="Not A Kind")


async def test_listings(platform: Platform, worker: WorkerRecord) -> None:
    """Newest first, by kind, status, subject and filter; what is large is left out, and there when asked for."""
    await new_worker(platform, "other", (), other={})
    first = await new_job(platform, subject_id=NOBODY, payload={"n": 1})
    second = await new_job(platform, kind="other", payload={"x": "y" * 20_000})
    third = await new_job(platform, metadata={"k": 1})
    await claim(platform, worker)

    async def ids(**facts: Any) -> list[str]:
        return [job.id for job in (await platform.send(ListJobs(**facts))).entries]

    assert await ids() == [third.id, second.id, first.id]
    assert await ids(kind="echo") == [third.id, first.id]
    assert await ids(status="running") == [first.id]
    assert await ids(subject_id=NOBODY) == [first.id]
    assert await ids(filter=Condition("metadata.k", "eq", 1)) == [third.id]
    assert await ids(filter=Condition("status", "eq", "queued"), sort=("created_at",)) == [second.id, third.id]
    listed = {job.id: job for job in (await platform.send(ListJobs())).entries}
    assert (listed[first.id].payload, listed[first.id].is_brief) == ({"n": 1}, False)
    assert (listed[second.id].payload, listed[second.id].is_brief) == ({}, True)
    assert len(str((await get(platform, second)).payload["x"])) == 20_000
    brief = await platform.send(GetJob(job_id=first.id, brief=True))
    assert (brief.payload, brief.is_brief, brief.status) == ({}, True, "running")


async def test_a_job_is_deleted_once_it_ended(platform: Platform, worker: WorkerRecord) -> None:
    made = await new_job(platform)
    await claim(platform, worker)
    assert isinstance(await refused(platform, DeleteJob(job_id=made.id)), Conflict)
    await platform.send(ReportJob(**held(worker, made), logs=(LogLine(text="x"),)))
    await platform.send(FinishJob(**held(worker, made), status="failed"))
    await platform.send(DeleteJob(job_id=made.id))
    assert isinstance(await refused(platform, GetJob(job_id=made.id)), NotFound)
