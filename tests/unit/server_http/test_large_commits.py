"""Uploads whose metadata together is larger than the body that the server takes."""

from __future__ import annotations

import pytest

from asyncsdk import AsyncClient, ItemUpload
from asyncsdk.domain.ids import make_id
from asyncsdk.entities import committing
from asyncsdk.server.http.api import MAX_BODY_BYTES
from tests.support.server import RunningServer

MiB = 1024 * 1024


def items(count: int, size_bytes: int) -> list[ItemUpload]:
    return [ItemUpload(b"%d" % n, f"{n}", {"text": "x" * size_bytes}) for n in range(count)]


async def test_entries_that_are_too_much_for_one_message_are_committed_in_several(server: RunningServer) -> None:
    async with AsyncClient(server.url, token=server.token) as client:
        dataset = await client.datasets.create(make_id())
        report = await dataset.upload(items(5, 5 * MiB))
        report.raise_for_failures()
        found = await dataset.items.list().to_list()
    assert [(item.path, len(str(item.metadata["text"]))) for item in found] == [(f"{n}", 5 * MiB) for n in range(5)]


async def test_a_message_that_was_too_large_all_the_same_is_halved(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The estimate leaves out paths and keys; only the server knows what it takes."""
    monkeypatch.setattr(committing, "metadata_bytes", lambda _: 0)
    async with AsyncClient(server.url, token=server.token) as client:
        dataset = await client.datasets.create(make_id())
        report = await dataset.upload(items(5, 5 * MiB))
        report.raise_for_failures()
        assert (await dataset.refresh()).item_count == 5


async def test_one_entry_too_large_for_any_message_fails_alone(server: RunningServer) -> None:
    given = [*items(2, 10), ItemUpload(b"large", "large", {"text": "x" * MAX_BODY_BYTES})]
    given.append(ItemUpload(b"odd", "odd", {"number": 2**70}))
    async with AsyncClient(server.url, token=server.token) as client:
        dataset = await client.datasets.create(make_id())
        report = await dataset.upload(given)
        assert (report.done, report.failed) == (2, 2)
        assert {failure.name: type(failure.error).__name__ for failure in report.failures} == {
            "large": "BadRequest",
            "odd": "BadRequest",
        }
        assert [item.path for item in await dataset.items.list().to_list()] == ["0", "1"]
