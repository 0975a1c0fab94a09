"""Comparing in order: bounded memory, folders of any size, cancellation at any moment."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import threading
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.entities import verifying_folder, verifying_order
from asyncsdk.entities.globs import PathFilter
from asyncsdk.entities.verifying import Comparison, Verification
from asyncsdk.entities.verifying_folder import verify_folder
from asyncsdk.entities.verifying_order import LocalPath, walk_in_order
from asyncsdk.errors import MalformedResponse
from asyncsdk.protocol.base import Page
from asyncsdk.protocol.items import ItemRecord, ListItems
from tests.support.suspensions import cancel_at

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def record(path: str, size_bytes: int = 1, crc32c: str = "00000000") -> ItemRecord:
    return ItemRecord.model_construct(
        id="i" * 24, dataset_id="d" * 24, position=0, path=path, size_bytes=size_bytes, crc32c=crc32c, etag="e",
        created_at=NOW, updated_at=NOW, metadata={},
    )  # fmt: skip


class Lister:
    """A session that lists *count* items, made as they are asked for."""

    def __init__(self, count: int, *, backwards: bool = False) -> None:
        self._count = count
        self._backwards = backwards
        self.engine: Any = None

    async def send(self, message: Any) -> Any:
        assert isinstance(message, ListItems)
        assert message.sort == ("path",)
        await asyncio.sleep(0)
        start = int(message.cursor or 0)
        stop = min(start + message.limit, self._count)
        names = [f"{number:09}" for number in range(start, stop)]
        entries = tuple(map(record, reversed(names) if self._backwards else names))
        return Page[ItemRecord].model_construct(
            entries=entries, total=None, cursor=str(stop) if stop < self._count else None
        )


async def verify(session: Any, folder: Path, **options: Any) -> Verification:
    values: dict[str, Any] = {"filter": None, "paths": PathFilter(), "on_comparison": None, "on_progress": None}
    return await verify_folder(session, "d" * 24, folder, **(values | options))


def descriptors() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


def walk(folder: Path) -> list[str]:
    found = list(walk_in_order(folder, PathFilter()))
    assert all(isinstance(one, LocalPath) for one in found)
    keys = [one.key for one in found]
    assert keys == sorted(keys)
    return [one.path for one in found]


@pytest.mark.parametrize("run_names", [1, 2, 7, 20_000])
def test_order_is_that_of_bytes_whatever_is_spilled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_names: int
) -> None:
    """Folders sort as their paths do; names that are sorted in runs come out in the same order, none lost."""
    monkeypatch.setattr(verifying_order, "_RUN_NAMES", run_names)
    monkeypatch.setattr(verifying_order, "_READ_BYTES", 5)
    names = {"a", "a-", "a.d/x", "a0", "b/a/c", "b/a0", "b/ä", "b/z" * 9, "Z", ".h/.h"}
    names |= {f"many/{random.randrange(10**6)}{'x' * random.randrange(20)}" for _ in range(50)}
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "many")
    (tmp_path / "circle").symlink_to("circle")
    assert walk(tmp_path) == sorted({*names, "circle"}, key=os.fsencode)


def test_leaving_early_closes_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders and temporary files that are open when nobody reads on."""
    monkeypatch.setattr(verifying_order, "_RUN_NAMES", 2)
    for number in range(10):
        (tmp_path / "sub").mkdir(exist_ok=True)
        (tmp_path / "sub" / str(number)).touch()
        (tmp_path / f"a{number}").touch()
    before = descriptors()
    walking = walk_in_order(tmp_path, PathFilter())
    for _ in range(12):
        next(walking)
    assert len(descriptors()) > len(before)
    walking.close()
    assert descriptors() == before


async def test_memory_does_not_grow_with_the_number_of_items(tmp_path: Path) -> None:
    """Six times the items, the same peak."""
    peaks = []
    for count in (5_000, 30_000):
        gc.collect()
        tracemalloc.start()
        try:
            assert (await verify(Lister(count), tmp_path)).missing_locally == count
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < peaks[0] + 512 * 1024


async def test_several_files_are_summed_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there are threads; the result is in order all the same."""
    together = threading.Barrier(verifying_folder._THREADS)

    def wait_for_all(path: Path | str, size: int, *, on_read: object) -> str:
        together.wait(30)
        return "00000000"

    monkeypatch.setattr(verifying_folder, "_BATCH_FILES", 1)
    monkeypatch.setattr(verifying_folder, "checksum_of_file", wait_for_all)
    count = 2 * verifying_folder._THREADS
    for number in range(count):
        (tmp_path / f"{number:09}").write_bytes(b"x")
    seen: list[Comparison] = []
    assert (await verify(Lister(count), tmp_path, on_comparison=seen.append)).same == count
    assert [one.path for one in seen] == [f"{number:09}" for number in range(count)]


async def test_a_listing_in_another_order_is_refused(tmp_path: Path) -> None:
    """Side by side, it would make files look missing."""
    with pytest.raises(MalformedResponse):
        await verify(Lister(3, backwards=True), tmp_path)


async def test_nothing_is_left_whenever_it_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No task, no descriptor, no thread that still reads."""
    monkeypatch.setattr(verifying_order, "_RUN_NAMES", 100)
    for number in range(300):
        (tmp_path / f"{number:09}").write_bytes(b"x")
    before, tasks = descriptors(), asyncio.all_tasks()
    k, has_ended = 0, False
    while not has_ended:
        k += 1
        has_ended = await cancel_at(k, lambda: _verify_and_forget(tmp_path))
        await asyncio.sleep(0)
        assert asyncio.all_tasks() <= tasks
        for thread in threading.enumerate():
            if thread.name.startswith("asyncsdk verify"):
                thread.join(30)
                assert not thread.is_alive()
        assert descriptors() == before
    assert k > 5


async def _verify_and_forget(folder: Path) -> None:
    await verify(Lister(400), folder)


async def test_cancelling_does_not_wait_for_a_large_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread that reads it stops at its next piece, and that is nobody's error."""
    pieces = 0
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def read_for_ever(path: Path, size: int, *, on_read: Any) -> str:
        nonlocal pieces
        while True:
            pieces += 1
            loop.call_soon_threadsafe(begun.set)
            on_read(1)

    monkeypatch.setattr(verifying_folder, "checksum_of_file", read_for_ever)
    (tmp_path / f"{0:09}").write_bytes(b"x")
    task = asyncio.create_task(verify(Lister(1), tmp_path))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    read = pieces
    await asyncio.sleep(0.01)
    assert pieces == read
    del task
    gc.collect()
    assert not caplog.records
