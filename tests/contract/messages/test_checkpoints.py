"""Checkpoints: prepare, commit, find, list, delete, on every platform the same."""

from __future__ import annotations

from typing import Any

import pytest

from asyncsdk.domain.filters import Condition
from asyncsdk.domain.ids import make_id
from asyncsdk.errors import BadRequest, Conflict, NotFound, PermissionDenied
from asyncsdk.platforms.base import Platform
from asyncsdk.protocol.checkpoints import (
    CheckpointRecord,
    CommitCheckpoint,
    DeleteCheckpoint,
    FindCheckpoint,
    GetCheckpoint,
    ListCheckpoints,
    PrepareCheckpoint,
    PrepareCheckpointDownload,
)
from asyncsdk.protocol.models import CreateModel, ModelRecord
from tests.support.messages import Stored, checksum, put, read

NOBODY = "f" * 24


@pytest.fixture
async def model(platform: Platform) -> ModelRecord:
    return await platform.send(CreateModel(name="detector"))


async def send(platform: Platform, model_id: str, data: bytes, **facts: Any) -> CommitCheckpoint:
    known = {"size_bytes": len(data), "crc32c": checksum(data)}
    prepared = await platform.send(PrepareCheckpoint(model_id=model_id, **known))
    assert prepared.verdict == "upload"
    await put(prepared.target, data)
    return CommitCheckpoint(model_id=model_id, checkpoint_id=make_id(), key=prepared.key, **known, **facts)


async def save(platform: Platform, model_id: str, data: bytes, **facts: Any) -> CheckpointRecord:
    return await platform.send(await send(platform, model_id, data, **facts))


async def find(platform: Platform, model_id: str, **facts: Any) -> CheckpointRecord:
    return await platform.send(FindCheckpoint(model_id=model_id, **facts))


async def test_a_checkpoint_comes_back(platform: Platform, model: ModelRecord) -> None:
    facts: dict[str, Any] = {"filename": "last.pt", "epoch": 3, "metrics": {"map": 0.61}, "metadata": {"k": [1]}}
    made = await save(platform, model.id, b"weights", is_best=True, **facts)
    assert {name: getattr(made, name) for name in facts} == facts
    assert (made.is_best, made.is_final, made.size_bytes, made.crc32c) == (True, False, 7, checksum(b"weights"))
    assert await platform.send(GetCheckpoint(model_id=model.id, checkpoint_id=made.id)) == made
    where = PrepareCheckpointDownload(model_id=model.id, checkpoint_id=made.id)
    assert await read((await platform.send(where)).origin) == b"weights"


async def test_committing_again_is_the_same_checkpoint(platform: Platform, model: ModelRecord) -> None:
    """Although the staged bytes are gone; the id of another checkpoint is a conflict."""
    message = await send(platform, model.id, b"one", epoch=1, is_best=True)
    made = await platform.send(message)
    assert await platform.send(message) == made
    other = await send(platform, model.id, b"two")
    with pytest.raises(Conflict):
        await platform.send(other.model_copy(update={"checkpoint_id": made.id}))
    assert (await platform.send(ListCheckpoints(model_id=model.id, total=True))).total == 1


async def test_best_last_final_and_epochs_are_found(platform: Platform, model: ModelRecord) -> None:
    """The last committed as such; at most one is best, at most one final."""
    for which in ("best", "last", "final"):
        with pytest.raises(NotFound, match=which):
            await find(platform, model.id, which=which)
    first = await save(platform, model.id, b"1", epoch=7, is_best=True, is_final=True)
    second = await save(platform, model.id, b"2", epoch=1, is_best=True)
    third = await save(platform, model.id, b"3")
    assert (await find(platform, model.id, which="best")).id == second.id
    assert (await find(platform, model.id, which="last")).id == third.id
    assert (await find(platform, model.id, which="final")).id == first.id
    assert (await find(platform, model.id, epoch=7)).id == first.id
    kept = await platform.send(GetCheckpoint(model_id=model.id, checkpoint_id=first.id))
    assert (kept.is_best, kept.is_final, kept.updated_at > first.updated_at) == (False, True, True)
    with pytest.raises(NotFound):
        await find(platform, model.id, epoch=2)
    for facts in ({}, {"which": "best", "epoch": 1}):
        with pytest.raises(BadRequest):
            await find(platform, model.id, **facts)


async def test_an_epoch_has_one_checkpoint(platform: Platform, model: ModelRecord, count_objects: Stored) -> None:
    """A new one replaces it, and its bytes leave the disk; those without an epoch stand side by side."""
    old = await save(platform, model.id, b"old", epoch=1)
    new = await save(platform, model.id, b"newer", epoch=1)
    await save(platform, model.id, b"a")
    await save(platform, model.id, b"b")
    with pytest.raises(NotFound):
        await platform.send(GetCheckpoint(model_id=model.id, checkpoint_id=old.id))
    assert (await find(platform, model.id, epoch=1)).id == new.id
    assert count_objects() == 3


async def test_they_are_listed_in_order_of_commit(platform: Platform, model: ModelRecord) -> None:
    """Whatever their ids and epochs say."""
    late, early = [await send(platform, model.id, b, epoch=e) for b, e in ((b"1", 9), (b"2", 2))]
    for message in (early, late):
        await platform.send(message)
    none = await save(platform, model.id, b"3")
    found: list[str] = []
    cursor = None
    for _ in range(3):
        page = await platform.send(ListCheckpoints(model_id=model.id, limit=1, cursor=cursor))
        found += [checkpoint.id for checkpoint in page.entries]
        cursor = page.cursor
    assert (found, cursor) == ([early.checkpoint_id, late.checkpoint_id, none.id], None)
    sort = ListCheckpoints(model_id=model.id, sort=("-epoch",), filter=Condition("epoch", "exists", True))
    assert [c.epoch for c in (await platform.send(sort)).entries] == [9, 2]
    with pytest.raises(BadRequest, match="sequence"):
        await platform.send(ListCheckpoints(model_id=model.id, sort=("sequence",)))


async def test_a_deleted_checkpoint_is_gone(platform: Platform, model: ModelRecord, count_objects: Stored) -> None:
    made = await save(platform, model.id, b"1", is_best=True)
    message = DeleteCheckpoint(model_id=model.id, checkpoint_id=made.id)
    await platform.send(message)
    for gone in (message, PrepareCheckpointDownload(model_id=model.id, checkpoint_id=made.id)):
        with pytest.raises(NotFound):
            await platform.send(gone)
    assert count_objects() == 0


async def test_what_cannot_be_committed_is_refused(platform: Platform, model: ModelRecord) -> None:
    """Bytes that never arrived, other bytes than said, a key of another model, no such model."""
    prepared = await platform.send(PrepareCheckpoint(model_id=model.id))
    unsent = CommitCheckpoint(
        model_id=model.id, checkpoint_id=make_id(), key=prepared.key, size_bytes=1, crc32c="00000000"
    )
    with pytest.raises(NotFound, match="never arrived"):
        await platform.send(unsent)
    good = await send(platform, model.id, b"one")
    with pytest.raises(NotFound, match="never arrived"):
        await platform.send(good.model_copy(update={"size_bytes": 4}))
    other = await platform.send(CreateModel(name="other"))
    with pytest.raises(PermissionDenied):
        await platform.send(good.model_copy(update={"model_id": other.id}))
    with pytest.raises(NotFound):
        await platform.send(PrepareCheckpoint(model_id=NOBODY))
    assert (await platform.send(ListCheckpoints(model_id=model.id))).entries == ()
    assert (await platform.send(good)).size_bytes == 3
