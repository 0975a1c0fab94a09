"""Moving bytes and asking in one line, for tests that speak to a platform in messages, without the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import httpx

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.domain.ids import make_id
from asyncsdk.errors import response_error
from asyncsdk.platforms.base import Platform
from asyncsdk.protocol.datasets import CreateDataset, DatasetRecord
from asyncsdk.protocol.items import ItemRecord, ListItems
from asyncsdk.protocol.uploads import (
    CommitEntry,
    CommittedUpload,
    CommitUploads,
    OnExisting,
    PreparedUpload,
    PrepareUploads,
    UploadEntry,
)
from asyncsdk.targets import BlobTarget, FileOrigin, FileTarget, FormTarget, PutTarget, UrlOrigin

__all__ = [
    "Stored",
    "checksum",
    "commit_entry",
    "list_all",
    "new_dataset",
    "prepare",
    "put",
    "put_file",
    "read",
    "upload",
]

Stored = Callable[[], int]
"""Counts the objects that a platform keeps, committed or not."""


def checksum(data: bytes) -> str:
    return crc32c_hex(crc32c(data))


def put_file(target: FileTarget, data: bytes) -> None:
    """Do what the engine does with a file target."""
    target.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.path(checksum(data)).write_bytes(data)


async def put(target: Any, data: bytes) -> None:
    """Send bytes to a target of one request, or to a file."""
    if isinstance(target, FileTarget):
        put_file(target, data)
        return
    if isinstance(target, FormTarget):
        await _put_form(target, data)
        return
    if isinstance(target, BlobTarget):
        headers = {"x-ms-blob-type": "BlockBlob", "x-ms-version": target.version, **target.headers}
        target = PutTarget(target.url, headers)
    assert isinstance(target, PutTarget)
    async with httpx.AsyncClient(trust_env=False) as client:
        reply = await client.request(target.method, target.url, headers=dict(target.headers), content=data)
        assert reply.is_success, reply.text


async def _put_form(target: FormTarget, data: bytes) -> None:
    """Send a form as the engine does; whoever takes it may refuse it as an ordinary message."""
    file = (target.file_name or "file", data)
    async with httpx.AsyncClient(trust_env=False) as client:
        reply = await client.request(
            target.method,
            target.url,
            headers=dict(target.headers),
            data=dict(target.fields),
            files={target.file_field: file},
        )
    if reply.status_code not in target.success:
        raise response_error(reply.status_code, reply.text)


async def read(origin: Any) -> bytes:
    """Read all bytes of an origin."""
    if isinstance(origin, FileOrigin):
        return Path(origin.path).read_bytes()
    assert isinstance(origin, UrlOrigin)
    async with httpx.AsyncClient(trust_env=False) as client:
        reply = await client.get(origin.url, headers=dict(origin.headers))
        assert reply.is_success, reply.text
        return reply.content


async def new_dataset(platform: Platform, name: str = "photos") -> DatasetRecord:
    return await platform.send(CreateDataset(name=name))


async def prepare(
    platform: Platform, dataset_id: str, entries: Iterable[UploadEntry], on_existing: OnExisting = "skip_same"
) -> Sequence[PreparedUpload]:
    message = PrepareUploads(dataset_id=dataset_id, entries=tuple(entries), on_existing=on_existing)
    return (await platform.send(message)).entries


def commit_entry(path: str, key: str | None, data: bytes, **facts: Any) -> CommitEntry:
    assert key is not None
    given = {"item_id": make_id(), "size_bytes": len(data), "crc32c": checksum(data), **facts}
    return CommitEntry(path=path, key=key, **given)


async def upload(
    platform: Platform, dataset_id: str, files: dict[str, bytes], on_existing: OnExisting = "overwrite", **facts: Any
) -> Sequence[CommittedUpload]:
    """Prepare, send and commit *files*; every one must be accepted when it is prepared."""
    asked = [UploadEntry(path=path, size_bytes=len(data), crc32c=checksum(data)) for path, data in files.items()]
    prepared = await prepare(platform, dataset_id, asked, on_existing)
    entries = []
    for (path, data), reply in zip(files.items(), prepared, strict=True):
        assert reply.verdict == "upload", reply
        await put(reply.target, data)
        entries.append(commit_entry(path, reply.key, data, **facts))
    message = CommitUploads(dataset_id=dataset_id, entries=tuple(entries), on_existing=on_existing)
    return (await platform.send(message)).entries


async def list_all(platform: Platform, dataset_id: str, **facts: Any) -> list[ItemRecord]:
    """Return the items of a dataset, page by page."""
    found: list[ItemRecord] = []
    cursor = None
    while True:
        page = await platform.send(ListItems(dataset_id=dataset_id, cursor=cursor, **facts))
        found.extend(page.entries)
        cursor = page.cursor
        if cursor is None:
            return found
