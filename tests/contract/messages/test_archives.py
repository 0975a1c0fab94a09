"""The archive of a dataset: prepared, sent, committed, read back, replaced, gone with its dataset."""

from __future__ import annotations

from typing import Any

import pytest

from asyncsdk.errors import BadRequest, Conflict, NotFound, PermissionDenied
from asyncsdk.platforms.base import Platform
from asyncsdk.protocol.archives import (
    CommitArchive,
    PrepareArchive,
    PrepareArchiveDownload,
    UnpackPayload,
)
from asyncsdk.protocol.datasets import DatasetRecord, DeleteDataset, GetDataset, UpdateDataset
from tests.support.messages import Stored, checksum, new_dataset, put, read
from tests.support.zips import make_zip

ZIP = make_zip({"a.txt": b"a"})
OTHER = make_zip({"b.txt": b"bcd" * 100})


async def sent(platform: Platform, dataset_id: str, data: bytes, filename: str = "coco8.zip") -> CommitArchive:
    """Prepare and send *data*; returns the message that makes it the archive."""
    prepared = await platform.send(PrepareArchive(dataset_id=dataset_id, size_bytes=len(data), filename=filename))
    assert prepared.verdict == "upload"
    await put(prepared.target, data)
    return CommitArchive(
        dataset_id=dataset_id, key=prepared.key, size_bytes=len(data), crc32c=checksum(data), filename=filename
    )


async def archive_of(platform: Platform, dataset_id: str) -> bytes:
    return await read((await platform.send(PrepareArchiveDownload(dataset_id=dataset_id))).origin)


async def test_an_archive_comes_back_as_it_was(platform: Platform, dataset: DatasetRecord) -> None:
    """And nothing else is made of it yet."""
    with pytest.raises(NotFound, match="no archive"):
        await archive_of(platform, dataset.id)
    record = await platform.send(await sent(platform, dataset.id, ZIP))
    assert (record.dataset_id, record.filename) == (dataset.id, "coco8.zip")
    assert (record.size_bytes, record.crc32c) == (len(ZIP), checksum(ZIP))
    assert await archive_of(platform, dataset.id) == ZIP
    assert (await platform.send(GetDataset(dataset_id=dataset.id))).item_count == 0
    assert UnpackPayload.of(record) == UnpackPayload(dataset_id=dataset.id, size_bytes=len(ZIP), crc32c=checksum(ZIP))


async def test_an_archive_keeps_its_name(platform: Platform, dataset: DatasetRecord) -> None:
    """By it the dataset tells that it has one."""
    assert dataset.archive_filename is None
    await platform.send(await sent(platform, dataset.id, ZIP))
    changed = await platform.send(GetDataset(dataset_id=dataset.id))
    assert changed.archive_filename == "coco8.zip"
    assert changed.updated_at > dataset.updated_at
    prepared = await platform.send(PrepareArchiveDownload(dataset_id=dataset.id))
    assert prepared.filename == "coco8.zip"


async def test_committing_an_archive_again_changes_nothing(platform: Platform, dataset: DatasetRecord) -> None:
    """A reply that was lost."""
    message = await sent(platform, dataset.id, ZIP)
    first = await platform.send(message)
    before = await platform.send(GetDataset(dataset_id=dataset.id))
    assert await platform.send(message) == first
    assert await platform.send(GetDataset(dataset_id=dataset.id)) == before


async def test_the_archive_before_is_let_go(platform: Platform, dataset: DatasetRecord, count_objects: Stored) -> None:
    """One dataset, one archive, one object; none when the dataset is deleted."""
    await platform.send(await sent(platform, dataset.id, ZIP))
    await platform.send(await sent(platform, dataset.id, OTHER, "next.zip"))
    assert await archive_of(platform, dataset.id) == OTHER
    assert count_objects() == 1
    await platform.send(DeleteDataset(dataset_id=dataset.id))
    assert count_objects() == 0


async def test_the_same_archive_need_not_be_sent_again(platform: Platform, dataset: DatasetRecord) -> None:
    """By size and checksum; by size alone nobody can say; under another name it is another."""

    async def verdict(**facts: Any) -> str:
        return (await platform.send(PrepareArchive(dataset_id=dataset.id, **facts))).verdict

    assert await verdict(size_bytes=len(ZIP)) == "upload"
    await platform.send(await sent(platform, dataset.id, ZIP))
    assert await verdict(size_bytes=len(ZIP)) == "compare"
    assert await verdict(size_bytes=len(ZIP), crc32c=checksum(ZIP)) == "skip"
    assert await verdict(size_bytes=len(ZIP), crc32c=checksum(ZIP), filename="coco8.zip") == "skip"
    assert await verdict(size_bytes=len(ZIP), crc32c=checksum(OTHER)) == "upload"
    assert await verdict(size_bytes=len(ZIP), crc32c=checksum(ZIP), filename="other.zip") == "upload"
    assert await verdict(size_bytes=len(ZIP) + 1) == "upload"
    assert await verdict() == "upload"


async def test_what_is_no_zip_is_no_archive(platform: Platform, dataset: DatasetRecord) -> None:
    """Nor is what never arrived, or arrived for another dataset."""
    with pytest.raises(BadRequest, match="no zip"):
        await platform.send(await sent(platform, dataset.id, b"GIF89a no archive"))
    prepared = await platform.send(PrepareArchive(dataset_id=dataset.id, size_bytes=len(ZIP)))
    facts = {"size_bytes": len(ZIP), "crc32c": checksum(ZIP), "filename": "a.zip"}
    with pytest.raises(NotFound):
        await platform.send(CommitArchive(dataset_id=dataset.id, key=prepared.key, **facts))
    message = await sent(platform, dataset.id, ZIP)
    other = await new_dataset(platform, "other")
    with pytest.raises(PermissionDenied, match="key"):
        await platform.send(message.model_copy(update={"dataset_id": other.id}))
    assert (await platform.send(GetDataset(dataset_id=dataset.id))).archive_filename is None


async def test_a_read_only_dataset_keeps_its_archive(platform: Platform, dataset: DatasetRecord) -> None:
    """It can be read, not replaced."""
    await platform.send(await sent(platform, dataset.id, ZIP))
    message = await sent(platform, dataset.id, OTHER)
    await platform.send(UpdateDataset(dataset_id=dataset.id, is_readonly=True))
    with pytest.raises(Conflict, match="read-only"):
        await platform.send(message)
    with pytest.raises(Conflict, match="read-only"):
        await platform.send(PrepareArchive(dataset_id=dataset.id))
    assert await archive_of(platform, dataset.id) == ZIP
