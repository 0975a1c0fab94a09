"""What feeds read ahead is drawn from the byte budget, and two of them never wait for each other."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncsdk import AsyncClient, ItemUpload, TransferConfig
from asyncsdk.engine.budget import process_budget
from asyncsdk.engine.config import MiB
from asyncsdk.entities import uploading
from asyncsdk.entities.drawn import Drawn
from tests.support.server import RunningServer

WAIT_SECONDS = 60


@pytest.fixture
def small_budget() -> Iterator[int]:
    """A budget of 16 MiB."""
    budget, limit = process_budget(), process_budget().limit_bytes
    budget.resize(16 * MiB)
    yield 16 * MiB
    assert budget.leased_bytes == 0
    budget.resize(limit)


async def test_what_is_held_is_drawn_and_given_back(small_budget: int) -> None:
    drawn = Drawn(8 * MiB)
    await drawn.reserve(3 * MiB)
    assert process_budget().leased_bytes == 3 * MiB
    drawn.held_bytes += MiB
    drawn.trim()
    assert process_budget().leased_bytes == MiB
    await drawn.reserve(MiB)
    assert process_budget().leased_bytes == 2 * MiB
    drawn.release()
    drawn.release()
    assert process_budget().leased_bytes == 0


async def test_at_most_a_quarter_is_held_before_nothing_more_is_read(small_budget: int) -> None:
    drawn = Drawn(100 * MiB)
    await drawn.reserve(5 * MiB)
    drawn.held_bytes += 5 * MiB
    waiting = asyncio.create_task(drawn.reserve(1))
    await asyncio.sleep(0)
    assert not waiting.done()
    drawn.held_bytes -= 2 * MiB
    drawn.trim()
    await asyncio.wait_for(waiting, WAIT_SECONDS)
    drawn.release()


async def test_two_that_hold_something_wait_for_their_own_only(small_budget: int) -> None:
    """Each holds a part and wants more than is left: the first to give its own back goes on, then the other."""
    first, second = Drawn(100 * MiB), Drawn(100 * MiB)
    for one in (first, second):
        await one.reserve(4 * MiB)
        one.held_bytes += 4 * MiB
    wanting = [asyncio.create_task(one.reserve(9 * MiB)) for one in (first, second)]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in wanting)
    first.held_bytes = 0
    first.trim()
    await asyncio.sleep(0.01)
    second.held_bytes = 0
    second.trim()
    await asyncio.wait_for(wanting[0], WAIT_SECONDS)
    first.release()
    await asyncio.wait_for(wanting[1], WAIT_SECONDS)
    second.release()


async def test_who_is_cancelled_while_it_waits_holds_nothing(small_budget: int) -> None:
    with await process_budget().take(16 * MiB):
        waiting = asyncio.create_task(Drawn(MiB).reserve(MiB))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


@pytest.mark.parametrize("with_streams", [False, True], ids=["files", "files and streams"])
async def test_many_small_files_fit_through_a_small_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_streams: bool
) -> None:
    """Read ahead is never more than drawn, whatever else in the run wants memory."""
    (tmp_path / "files").mkdir()
    for number in range(400):
        (tmp_path / "files" / f"{number}").write_bytes(os.urandom(60_000))
    most = 0
    examine = uploading.examine

    def watched(items: Any, most_bytes: int) -> Any:
        nonlocal most
        leased = process_budget().leased_bytes
        found = examine(items, most_bytes)
        held = sum(one.held_bytes for one in found[0])
        assert held <= min(most_bytes, leased)
        most = max(most, held)
        return found

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield os.urandom(100_000)

    monkeypatch.setattr(uploading, "examine", watched)
    limit = process_budget().limit_bytes
    config = TransferConfig(memory_bytes=8 * MiB, part_size=MiB)
    try:
        with RunningServer(tmp_path / "platform") as served:
            async with AsyncClient(served.url, token=served.token, config=config) as client:
                dataset = await client.datasets.create("d")
                items = [ItemUpload(path, path.name) for path in (tmp_path / "files").iterdir()]
                if with_streams:
                    items += [ItemUpload(pieces(), f"stream{number}") for number in range(8)]
                report = await asyncio.wait_for(dataset.upload(items), WAIT_SECONDS)
                report.raise_for_failures()
                assert report.done == len(items)
        assert 0 < most <= 2 * MiB
        assert process_budget().leased_bytes == 0
    finally:
        process_budget().resize(limit)


async def test_rows_are_drawn_and_given_back(tmp_path: Path, small_budget: int) -> None:
    """Many parts go through, also when their rows come of downloads into memory."""
    blob = os.urandom(9 * MiB)
    async with AsyncClient(data=tmp_path) as client:
        dataset = await client.datasets.create("d")
        await dataset.upload([ItemUpload(blob, "blob"), *(ItemUpload(b"%d" % n, f"{n}") for n in range(40))])
        await dataset.prediction_tasks.create("t", kind="object-detection", categories=["car"])
        item = await dataset.items.get(path="blob")

        async def rows() -> AsyncIterator[dict[str, Any]]:
            for number in range(40):
                if number % 10 == 0:
                    assert await item.read() == blob
                yield {
                    "path": f"{number}",
                    "predictions": [{"category": "car", "score": 0.5, "bbox": [1, 2, 3, 4], "note": "x" * 400_000}],
                }

        report = await asyncio.wait_for(dataset.upload_predictions("t", rows()), WAIT_SECONDS)
        assert (report.done, report.failed) == (40, 0)
