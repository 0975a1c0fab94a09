"""A loss of power: the last of what a journal was told may be missing, and files may have lost their bytes.

What SQLite guarantees then is a prefix of its log, so every prefix is tried. (Files that have their size and not their
bytes: tests/contract/entities/test_resuming.py.)
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from asyncsdk import AsyncClient
from asyncsdk.engine import Outcome
from asyncsdk.engine.journal import journal_folder
from asyncsdk.engine.journal.claims import transaction
from asyncsdk.engine.journal.store import KnownPart, Store
from asyncsdk.server.objects import minting, parts
from tests.support.server import RunningServer

SMALL, LARGE_BYTES = 60, 20 * 1024 * 1024
PART_BYTES = 1024 * 1024
PULLED_AFTER = 12
LOG_HEAD, FRAME = 32, 24 + 4096


class PulledPlug(Exception):
    """The moment at which everything stops."""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = random.Random(7)
    for number in range(SMALL):
        (folder / f"{number:02d}.jpg").write_bytes(rng.randbytes(rng.randint(1, 3000)))
    (folder / "99-large.bin").write_bytes(rng.randbytes(LARGE_BYTES))
    for path in folder.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return folder


@contextmanager
def journal_left(home: Path, left: Path) -> Iterator[None]:
    """Copy the journal to *left* as it is when its run ends, its log not yet written back."""
    release = Store.release

    def keep(store: Store, state: str) -> None:
        if not left.exists():
            # Whatever a transaction wrote is in the log now.
            with transaction(store._connection):
                shutil.copytree(journal_folder(home), left)
        release(store, state)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Store, "release", keep)
        yield


async def interrupted(home: Path, platform: Path, photos: Path, after: int) -> Path:
    """Upload until *after* objects are final; return the journal as it was then."""
    left = home / "left"
    done = [0]

    def pull(outcome: Outcome) -> None:
        done[0] += outcome.ok
        if done[0] >= after:
            raise PulledPlug

    with journal_left(home, left):
        async with AsyncClient(data=platform) as client:
            dataset = await client.datasets.create("d")
            with pytest.raises(PulledPlug):
                await dataset.upload(photos, on_outcome=pull)
    return left


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("after", "cuts"),
    [(20, 6), (SMALL + 1, 6), pytest.param(40, 1000, marks=pytest.mark.slow)],
    ids=["in the middle", "at the end", "everywhere"],
)
async def test_whatever_of_the_last_rows_is_missing_nothing_is_lost_and_nothing_double(
    tmp_path: Path, home: Path, photos: Path, after: int, cuts: int
) -> None:
    platform = tmp_path / "platform"
    left = await interrupted(home, platform, photos, after)
    shutil.copytree(platform, tmp_path / "platform.then")
    (log,) = left.glob("*-wal")
    whole = log.read_bytes()
    frames = (len(whole) - LOG_HEAD) // FRAME
    assert frames > 10
    known = set()
    for frame in sorted({round(cut * frames / cuts) for cut in range(cuts + 1)}):
        for part in (0, 100):  # between two frames, and within one
            for folder, then in ((platform, tmp_path / "platform.then"), (journal_folder(home), left)):
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(then, folder)
            (journal_folder(home) / log.name).write_bytes(whole[: LOG_HEAD + frame * FRAME + part])
            async with AsyncClient(data=platform) as client:
                dataset = await client.datasets.get(name="d")
                seen: list[str] = []
                report = await dataset.upload(photos, on_event=lambda event, seen=seen: seen.append(event.kind))  # type: ignore[misc]
                assert (report.failed, report.done + report.skipped) == (0, SMALL + 1)
                known.add("resuming" in seen)
                items = [item async for item in dataset.items.list()]
                assert sorted(item.path for item in items) == sorted(path.name for path in photos.iterdir())
                report = await dataset.download(tmp_path / "copy", resume=False)
                assert report.failed == 0
            for path in photos.iterdir():
                assert (tmp_path / "copy" / path.name).read_bytes() == path.read_bytes()
            shutil.rmtree(tmp_path / "copy")
            assert not list(journal_folder(home).glob("*.sqlite3"))
    assert known == {False, True}, "some logs know something, and the shortest do not"


async def pulled_amid_parts(dataset: Any, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Upload until so many parts of the large one are in the journal."""
    loop, uploading = asyncio.get_running_loop(), asyncio.create_task(dataset.upload(photos))
    told = [0]
    add_parts = Store.add_parts

    def count(store: Store, name: str, parts: Sequence[KnownPart]) -> None:
        add_parts(store, name, parts)
        told[0] += len(parts)
        if told[0] == PULLED_AFTER:
            loop.call_soon_threadsafe(uploading.cancel)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "add_parts", count)
        with pytest.raises(asyncio.CancelledError):
            await uploading


@pytest.mark.timeout(300)
@pytest.mark.parametrize("cuts", [5, pytest.param(60, marks=pytest.mark.slow)], ids=["few", "many"])
async def test_whatever_of_the_last_parts_is_missing_the_object_comes_out_right(
    tmp_path: Path, home: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, cuts: int
) -> None:
    """Over HTTP, where a large object goes in parts. Each cut is through the log of a run of its own."""
    monkeypatch.setattr(parts, "MIN_PART_SIZE", PART_BYTES)
    monkeypatch.setattr(minting, "MULTIPART_THRESHOLD", 2 * PART_BYTES)
    for number in range(8, SMALL):
        (photos / f"{number:02d}.jpg").unlink()
    names = sorted(path.name for path in photos.iterdir())
    recalled: list[int] = []
    large = Store.large

    def look(store: Store, name: str) -> Any:
        found = large(store, name)
        recalled.append(0 if found is None else len(found[1]))
        return found

    monkeypatch.setattr(Store, "large", look)
    with RunningServer(tmp_path / "platform") as served:
        for cut in range(cuts + 1):
            left = home / f"left{cut}"
            async with AsyncClient(served.url, token=served.token) as client:
                dataset = await client.datasets.create(f"d{cut}")
                with journal_left(home, left):
                    await pulled_amid_parts(dataset, photos, monkeypatch)
            (log,) = left.glob("*-wal")
            frames = (log.stat().st_size - LOG_HEAD) // FRAME
            os.truncate(log, LOG_HEAD + round(cut * frames / cuts) * FRAME + 100 * (cut % 2))
            shutil.rmtree(journal_folder(home))
            shutil.copytree(left, journal_folder(home))
            async with AsyncClient(served.url, token=served.token) as client:
                dataset = await client.datasets.get(dataset.id)
                report = await dataset.upload(photos)
                assert (report.failed, report.done + report.skipped) == (0, len(names))
                assert sorted([item.path async for item in dataset.items.list()]) == names
                report = await dataset.download(tmp_path / "copy", resume=False)
                assert report.failed == 0
            for name in names:
                assert (tmp_path / "copy" / name).read_bytes() == (photos / name).read_bytes()
            shutil.rmtree(tmp_path / "copy")
            assert not list(journal_folder(home).glob("*.sqlite3"))
    assert len(set(recalled)) > 2, "some logs know more parts than others"
    assert max(recalled) >= PULLED_AFTER
