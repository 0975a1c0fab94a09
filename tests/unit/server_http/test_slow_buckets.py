"""A bucket that takes its time: whoever does not need it does not wait for it, and a commit succeeds in the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from asyncsdk import AsyncClient
from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.domain.ids import make_id
from asyncsdk.engine import Outcome, Transfer, Upload
from asyncsdk.entities.committing import ItemCommits
from asyncsdk.entities.examining import PreparedItem
from asyncsdk.entities.item_uploads import ItemUpload
from asyncsdk.entities.single_objects import SingleUpload
from asyncsdk.errors import BadRequest, ChecksumMismatch, NotFound, ServerError
from asyncsdk.platforms import rest
from asyncsdk.platforms.rest import RestPlatform
from asyncsdk.protocol.checkpoints import CheckpointRecord, CommitCheckpoint, PrepareCheckpoint
from asyncsdk.protocol.datasets import CreateDataset
from asyncsdk.protocol.models import CreateModel
from asyncsdk.protocol.uploads import CommitEntry, CommitUploads, PrepareUploads, UploadEntry
from asyncsdk.protocol.users import WhoAmI
from asyncsdk.server import backend as backend_module
from asyncsdk.server.http import app as app_module
from asyncsdk.server.objects.clouds import objects as objects_module
from asyncsdk.server.objects.clouds.objects import CloudObjects
from asyncsdk.targets import PutTarget
from tests.support.memory_bucket import MemoryBucket, objects_in
from tests.support.server import RunningServer

DATA = b"0123456789" * 10
DIGEST = crc32c_hex(crc32c(DATA))


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket(verifies=False)


@pytest.fixture
def objects(bucket: MemoryBucket) -> CloudObjects:
    return objects_in(bucket)


@pytest.fixture
def served(
    tmp_path: Path, bucket: MemoryBucket, objects: CloudObjects, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningServer]:
    """A server whose objects are in the bucket, which is asked again every twentieth of a second."""
    monkeypatch.setattr(backend_module, "open_objects", lambda *_: objects)
    monkeypatch.setattr(objects_module, "CHECK_SECONDS", 0.05)
    with RunningServer(tmp_path) as running:
        yield running
        bucket.gate.set()


@pytest.fixture
async def platform(served: RunningServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RestPlatform]:
    monkeypatch.setattr(rest, "wait_seconds", lambda error, attempt: 0.05)
    made = RestPlatform(served.url, served.token)
    yield made
    await made.aclose()


async def arrived(platform: RestPlatform, bucket: MemoryBucket, objects: CloudObjects, model_id: str) -> str:
    """Bring an object to the bucket; returns its key."""
    prepared = await platform.send(PrepareCheckpoint(model_id=model_id, size_bytes=len(DATA)))
    assert prepared.key is not None
    bucket.objects[objects.name(prepared.key[:24])] = DATA
    return prepared.key


async def test_commits_whose_bytes_are_read_back_leave_threads_for_others(
    platform: RestPlatform, bucket: MemoryBucket, objects: CloudObjects, served: RunningServer
) -> None:
    """More of them than threads. Each succeeds however long it takes, and it is read once."""
    model = await platform.send(CreateModel(name="m"))
    keys = [await arrived(platform, bucket, objects, model.id) for _ in range(app_module.MESSAGES_AT_ONCE + 1)]
    bucket.gate.clear()

    async def commit(key: str) -> CheckpointRecord:
        mine = RestPlatform(served.url, served.token)
        message = CommitCheckpoint(
            model_id=model.id, checkpoint_id=make_id(), key=key, filename="w.pt", size_bytes=len(DATA), crc32c=DIGEST
        )
        try:
            return await mine.send(message)
        finally:
            await mine.aclose()

    commits = [asyncio.create_task(commit(key)) for key in keys]
    for _ in range(30):
        await asyncio.wait_for(platform.send(WhoAmI()), 20)
        await asyncio.sleep(0.05)
    assert not any(task.done() for task in commits), "more attempts than there are for failures"
    bucket.gate.set()
    records = await asyncio.gather(*commits)
    assert {record.size_bytes for record in records} == {len(DATA)}
    assert bucket.reads == len(keys)


async def test_a_bucket_that_hangs_keeps_those_who_ask_it(
    platform: RestPlatform,
    bucket: MemoryBucket,
    objects: CloudObjects,
    served: RunningServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Even before it is known what is to be read: tokens are checked, and entities made, all the same."""
    model = await platform.send(CreateModel(name="m"))
    key = await arrived(platform, bucket, objects, model.id)
    real = bucket.facts
    bucket.gate.clear()
    asked = []

    def hang(name: str) -> object:
        asked.append(name)
        assert bucket.gate.wait(60)
        return real(name)

    monkeypatch.setattr(bucket, "facts", hang)
    message = CommitCheckpoint(
        model_id=model.id, checkpoint_id=make_id(), key=key, filename="w.pt", size_bytes=len(DATA), crc32c=DIGEST
    )
    count = app_module.STORE_MESSAGES_AT_ONCE + 4
    others = [RestPlatform(served.url, served.token) for _ in range(count)]
    commits = [asyncio.create_task(other.send(message)) for other in others]
    while len(asked) < app_module.STORE_MESSAGES_AT_ONCE:
        await asyncio.sleep(0.01)
    await asyncio.wait_for(platform.send(CreateDataset(name="photos")), 20)
    bucket.gate.set()
    assert {record.id for record in await asyncio.gather(*commits)} == {message.checkpoint_id}
    for other in others:
        await other.aclose()


async def test_a_reading_that_fails_is_an_attempt_and_one_that_goes_on_is_none(
    platform: RestPlatform, bucket: MemoryBucket, objects: CloudObjects
) -> None:
    model = await platform.send(CreateModel(name="m"))
    key = await arrived(platform, bucket, objects, model.id)
    bucket.failures = 10_000
    message = CommitCheckpoint(
        model_id=model.id, checkpoint_id=make_id(), key=key, filename="w.pt", size_bytes=len(DATA), crc32c=DIGEST
    )
    with pytest.raises(ServerError) as caught:
        await platform.send(message)
    assert caught.value.server_code == "store_unavailable"
    assert bucket.reads == 4 * 3, "four attempts of the client, of three of the server"


async def test_one_object_that_is_read_slowly_keeps_no_other_item(
    platform: RestPlatform, bucket: MemoryBucket, objects: CloudObjects, served: RunningServer
) -> None:
    """Nor does one with other bytes than were told, or one that is not there."""
    dataset = await platform.send(CreateDataset(name="photos"))
    paths = ("quick", "slow", "wrong", "missing")
    entries = tuple(UploadEntry(path=path, size_bytes=len(DATA)) for path in paths)
    keys = [
        answer.key or ""
        for answer in (await platform.send(PrepareUploads(dataset_id=dataset.id, entries=entries))).entries
    ]
    names = [objects.name(key[:24]) for key in keys]
    bucket.objects |= {names[0]: DATA, names[1]: DATA, names[2]: b"other" * 20}
    facts = bucket.facts(names[0]), bucket.facts(names[2])
    for name, fact in zip((names[0], names[2]), facts, strict=True):
        assert fact is not None
        objects._checks.begin(name, fact).result(10)
    bucket.gate.clear()

    outcomes = []
    for path, key in zip(paths, keys, strict=True):
        item = PreparedItem(ItemUpload(DATA, path), path, size_bytes=len(DATA), key=key)
        transfer = Upload(DATA, PutTarget("http://host/x"), key=item, name=path)
        outcomes.append(Outcome(transfer, "done", size_bytes=len(DATA), checksum=f"crc32c:{DIGEST}"))
    async with AsyncClient(served.url, token=served.token) as client:
        commits = ItemCommits(client, dataset.id, "skip_same")
        task = asyncio.create_task(commits.commit(outcomes))
        found = client.datasets
        while (await (await found.get(dataset.id)).refresh()).item_count < 1:
            await asyncio.sleep(0.05)
        assert not task.done()
        bucket.gate.set()
        await task
        assert (await found.get(dataset.id)).item_count == 2
    assert [outcome.status for outcome in outcomes] == ["done", "done", "failed", "failed"]
    assert isinstance(outcomes[2].error, ChecksumMismatch)
    assert outcomes[2].error.retryable
    assert isinstance(outcomes[3].error, NotFound)


async def test_a_checkpoint_whose_bytes_arrived_as_others_is_a_checksum_mismatch() -> None:
    """It can be sent again, and what is known of the upload is forgotten; another refusal stays what it is."""

    class Feed(SingleUpload):
        refusal = BadRequest("checksum differs", code="bad_digest")

        async def _begin(self, size: int | None) -> Transfer:
            raise AssertionError("not asked")

        async def _commit(self, size_bytes: int, crc32c: str) -> object:
            raise self.refusal

    books = SimpleNamespace(came_out_wrong=lambda: forgotten.append(1), arrived=arrived_nowhere)
    forgotten: list[int] = []
    feed = Feed(SimpleNamespace(), "m", DATA, books)  # type: ignore[arg-type]  # nothing else is asked of them
    sent = Upload(DATA, PutTarget("http://host/x"), name="w.pt")
    (outcome,) = await feed.settle([Outcome(sent, "done", size_bytes=len(DATA), checksum=f"crc32c:{DIGEST}")])
    assert isinstance(outcome.error, ChecksumMismatch)
    assert (outcome.status, outcome.error.expected, forgotten) == ("failed", DIGEST, [1])
    Feed.refusal = BadRequest("no")
    (outcome,) = await feed.settle([Outcome(sent, "done", size_bytes=len(DATA), checksum=f"crc32c:{DIGEST}")])
    assert (outcome.error, forgotten) == (Feed.refusal, [1])


async def arrived_nowhere(crc32c: str, *, is_copy: bool) -> None:
    """Keep nothing."""


async def test_other_bytes_than_were_told_are_said_to_be_other_bytes(
    platform: RestPlatform, bucket: MemoryBucket, objects: CloudObjects
) -> None:
    """And not that nothing arrived: nobody would look for what damages them."""
    dataset = await platform.send(CreateDataset(name="photos"))
    reply = await platform.send(
        PrepareUploads(dataset_id=dataset.id, entries=(UploadEntry(path="a", size_bytes=len(DATA)),))
    )
    key = reply.entries[0].key
    assert key is not None
    bucket.objects[objects.name(key[:24])] = b"other" * 20
    entry = CommitEntry(item_id=make_id(), path="a", key=key, size_bytes=len(DATA), crc32c=DIGEST)
    (answer,) = (await platform.send(CommitUploads(dataset_id=dataset.id, entries=(entry,)))).entries
    while answer.problem is not None and answer.problem.code == "still_checking":
        (answer,) = (await platform.send(CommitUploads(dataset_id=dataset.id, entries=(entry,)))).entries
    assert answer.problem is not None
    assert answer.problem.code == "bad_digest"
    assert crc32c_hex(crc32c(b"other" * 20)) in answer.problem.message
