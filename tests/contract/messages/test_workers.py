"""Workers and the files of jobs: create, beat, list, delete; prepare, commit, read; on every platform the same."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.domain.filters import Condition
from asyncsdk.domain.ids import make_id
from asyncsdk.errors import BadRequest, Conflict, NotFound, PermissionDenied
from asyncsdk.platforms.base import Platform
from asyncsdk.protocol.artifacts import (
    CommitArtifact,
    GetArtifact,
    ListArtifacts,
    PrepareArtifact,
    PrepareArtifactDownload,
)
from asyncsdk.protocol.jobs import (
    CreateJob,
    DeleteJob,
    FinishJob,
    GetJob,
    JobInput,
    JobRecord,
    PlannedInput,
    PrepareJobInputs,
    RetryJob,
)
from asyncsdk.protocol.uploads import RenewEntry, RenewUploads
from asyncsdk.protocol.workers import BeatWorker, CreateWorker, DeleteWorker, GetWorker, ListWorkers, WorkerRecord
from asyncsdk.server import backend as backend_module
from asyncsdk.server.backend import Backend
from tests.support.jobs import claim, new_job, new_worker
from tests.support.messages import Stored, checksum, put, read

NOBODY = "f" * 24
DAY_MS = 24 * 60 * 60 * 1000


async def test_a_worker_is_known_by_its_name(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    """Creating it again gives the same; it is online while it beats and offers something."""
    made = await platform.send(CreateWorker(name="gpu-1", labels=("gpu", "a"), metadata={"rack": 3}))
    assert (made.labels, made.is_online, made.last_seen_at, made.metadata) == (("a", "gpu"), False, None, {"rack": 3})
    assert await platform.send(CreateWorker(name="gpu-1", labels=("other",))) == made
    beaten = await platform.send(BeatWorker(worker_id=made.id, offers={"echo": {"formats": ["x"]}}))
    assert (beaten.is_online, beaten.labels, beaten.offers) == (True, ("a", "gpu"), {"echo": {"formats": ["x"]}})
    again = await platform.send(BeatWorker(worker_id=made.id, offers={"echo": {"formats": ["x"]}}, labels=("b",)))
    assert (again.labels, again.updated_at > beaten.updated_at) == (("b",), True)
    assert (await platform.send(GetWorker(worker_id=made.id))).is_online
    assert (await platform.send(BeatWorker(worker_id=made.id, offers={}))).is_online is False
    await platform.send(BeatWorker(worker_id=made.id, offers={"echo": {}}))
    later = backend_module._now_ms() + 61_000
    with monkeypatch.context() as patch:
        patch.setattr(backend_module, "_now_ms", lambda: later)
        assert (await platform.send(GetWorker(worker_id=made.id))).is_online is False


async def test_workers_are_listed_and_forgotten(platform: Platform) -> None:
    """What a forgotten one had is queued again at once, and the attempt does not count."""
    first, second = await new_worker(platform, "b"), await new_worker(platform, "a")
    await platform.send(CreateWorker(name="c"))
    page = await platform.send(ListWorkers(total=True))
    assert ([worker.name for worker in page.entries], page.total) == (["a", "b", "c"], 3)
    online = await platform.send(ListWorkers(filter=Condition("is_online", "eq", True), sort=("-name",)))
    assert [worker.name for worker in online.entries] == ["b", "a"]
    made = await new_job(platform, max_attempts=1)
    await claim(platform, first)
    await platform.send(DeleteWorker(worker_id=first.id))
    assert (await platform.send(GetJob(job_id=made.id))).status == "queued"
    assert (await claim(platform, second)).job is not None
    for message in (GetWorker(worker_id=first.id), BeatWorker(worker_id=first.id, offers={})):
        with pytest.raises(NotFound):
            await platform.send(message)


async def test_one_claim_wins(platform: Platform) -> None:
    """However many ask at once, a job is taken by one."""
    workers = [await new_worker(platform, f"w{n}") for n in range(8)]
    made = {(await new_job(platform)).id for _ in range(5)}
    claims = await asyncio.gather(*(claim(platform, worker) for worker in workers))
    taken = [claimed.job.id for claimed in claims if claimed.job is not None]
    assert len(taken) == 5
    assert set(taken) == made


# --- files ---


@pytest.fixture
async def worker(platform: Platform) -> WorkerRecord:
    return await new_worker(platform)


async def send_inputs(platform: Platform, job_id: str, **files: bytes) -> tuple[JobInput, ...]:
    planned = tuple(PlannedInput(name=name, size_bytes=len(data)) for name, data in files.items())
    replies = (await platform.send(PrepareJobInputs(job_id=job_id, entries=planned))).entries
    result = []
    for (name, data), reply in zip(files.items(), replies, strict=True):
        assert reply.verdict == "upload"
        await put(reply.target, data)
        result.append(JobInput(name=name, key=reply.key or "", size_bytes=len(data), crc32c=checksum(data)))
    return tuple(result)


async def send_output(
    platform: Platform, worker: WorkerRecord, job: JobRecord, data: bytes, name: str = "out", attempt: int = 1
) -> CommitArtifact:
    held: dict[str, Any] = {"job_id": job.id, "worker_id": worker.id, "attempt": attempt}
    prepared = await platform.send(PrepareArtifact(**held, size_bytes=len(data)))
    await put(prepared.target, data)
    known = {"size_bytes": len(data), "crc32c": checksum(data)}
    return CommitArtifact(**held, artifact_id=make_id(), name=name, key=prepared.key, **known)


async def test_inputs_go_in_and_outputs_come_out(platform: Platform, worker: WorkerRecord) -> None:
    job_id = make_id()
    inputs = await send_inputs(platform, job_id, a=b"one", b=b"")
    message = CreateJob(job_id=job_id, kind="echo", inputs=inputs)
    made = await platform.send(message)
    assert await platform.send(message) == made
    claimed = await claim(platform, worker)
    assert [(file.name, file.direction, file.size_bytes) for file in claimed.inputs] == [
        ("a", "input", 3),
        ("b", "input", 0),
    ]
    where = PrepareArtifactDownload(job_id=job_id, artifact_id=claimed.inputs[0].id)
    assert await read((await platform.send(where)).origin) == b"one"
    commit = await send_output(platform, worker, made, b"result")
    output = await platform.send(commit.model_copy(update={"metadata": {"k": 1}}))
    assert (output.name, output.direction, output.metadata) == ("out", "output", {"k": 1})
    assert await platform.send(commit) == output
    assert await platform.send(GetArtifact(job_id=job_id, artifact_id=output.id)) == output
    page = await platform.send(ListArtifacts(job_id=job_id, total=True))
    assert ([file.name for file in page.entries], page.total) == (["a", "b", "out"], 3)
    only = await platform.send(ListArtifacts(job_id=job_id, direction="output", sort=("-size_bytes",)))
    assert [file.id for file in only.entries] == [output.id]
    where = PrepareArtifactDownload(job_id=job_id, artifact_id=output.id)
    assert await read((await platform.send(where)).origin) == b"result"


async def test_files_belong_to_the_attempt_that_sent_them(
    platform: Platform, worker: WorkerRecord, count_objects: Stored
) -> None:
    """A name is replaced; the next attempt begins without outputs; with the job its files go."""
    job_id = make_id()
    made = await platform.send(
        CreateJob(job_id=job_id, kind="echo", inputs=await send_inputs(platform, job_id, a=b"in"))
    )
    await claim(platform, worker)
    await platform.send(await send_output(platform, worker, made, b"1"))
    await platform.send(await send_output(platform, worker, made, b"22"))
    await platform.send(await send_output(platform, worker, made, b"333", name="other"))
    assert count_objects() == 3
    late = await send_output(platform, worker, made, b"late", name="late")
    await platform.send(FinishJob(job_id=job_id, worker_id=worker.id, attempt=1, status="failed"))
    with pytest.raises(Conflict) as info:
        await platform.send(late)
    assert info.value.server_code == "lease_lost"
    await platform.send(RetryJob(job_id=job_id))
    assert [file.name for file in (await platform.send(ListArtifacts(job_id=job_id))).entries] == ["a"]
    assert [file.name for file in (await claim(platform, worker)).inputs] == ["a"]
    assert count_objects() == 2  # the input, and what was sent late: the sweep takes it
    await platform.send(FinishJob(job_id=job_id, worker_id=worker.id, attempt=2, status="succeeded"))
    await platform.send(DeleteJob(job_id=job_id))
    assert count_objects() == 1


async def test_files_that_cannot_be_are_refused(platform: Platform, worker: WorkerRecord) -> None:
    """Bytes that never came, keys of another job, two of one name; none of that leaves a job behind."""
    job_id, other_id = make_id(), make_id()
    (good,) = await send_inputs(platform, job_id, a=b"one")
    unsent = good.model_copy(update={"size_bytes": 4})
    with pytest.raises(NotFound, match="never arrived"):
        await platform.send(CreateJob(job_id=job_id, kind="echo", inputs=(unsent,)))
    with pytest.raises(BadRequest, match="same name"):
        await platform.send(CreateJob(job_id=job_id, kind="echo", inputs=(good, good)))
    with pytest.raises(PermissionDenied):
        await platform.send(CreateJob(job_id=other_id, kind="echo", inputs=(good,)))
    with pytest.raises(NotFound):
        await platform.send(GetJob(job_id=job_id))
    renewed = await platform.send(RenewUploads(scope_id=job_id, entries=(RenewEntry(key=good.key),)))
    assert len(renewed.targets) == 1
    made = await platform.send(CreateJob(job_id=job_id, kind="echo", inputs=(good,)))
    with pytest.raises(Conflict):
        await platform.send(PrepareArtifact(job_id=job_id, worker_id=worker.id, attempt=1))
    await claim(platform, worker)
    first = await send_output(platform, worker, made, b"1")
    done = await platform.send(first)
    second = await send_output(platform, worker, made, b"2")
    with pytest.raises(Conflict):
        await platform.send(second.model_copy(update={"artifact_id": done.id}))
    for message in (
        GetArtifact(job_id=job_id, artifact_id=NOBODY),
        PrepareArtifactDownload(job_id=job_id, artifact_id=NOBODY),
        ListArtifacts(job_id=NOBODY),
    ):
        with pytest.raises(NotFound):
            await platform.send(message)


async def test_old_jobs_and_workers_that_are_gone_are_swept(
    platform: Platform, data: Path, worker: WorkerRecord, count_objects: Stored
) -> None:
    """30 days after its end a job goes with its logs and files; temporary workers go after a day."""
    job_id = make_id()
    await platform.send(CreateJob(job_id=job_id, kind="echo", inputs=await send_inputs(platform, job_id, a=b"in")))
    await claim(platform, worker)
    await platform.send(FinishJob(job_id=job_id, worker_id=worker.id, attempt=1, status="succeeded"))
    waiting = await new_job(platform)
    await platform.send(CreateWorker(name="temporary", is_temporary=True))
    backend = Backend.open(data)
    try:
        backend.sweep(now_ms=backend_module._now_ms() + 29 * DAY_MS)
        assert (await platform.send(GetJob(job_id=job_id))).status == "succeeded"
        assert [one.name for one in (await platform.send(ListWorkers())).entries] == ["w"]
        backend.sweep(now_ms=backend_module._now_ms() + 31 * DAY_MS)
    finally:
        backend.close()
    with pytest.raises(NotFound):
        await platform.send(GetJob(job_id=job_id))
    assert (await platform.send(GetJob(job_id=waiting.id))).status == "queued"
    assert count_objects() == 0
