"""Clients of an embedded platform that are killed or stopped amid a large file: the copy goes on where it was."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from asyncsdk import AsyncClient, AsyncDataset
from asyncsdk.engine.config import MiB
from asyncsdk.engine.journal import journal_folder, large
from asyncsdk.engine.journal.catalogue import forget, summaries
from asyncsdk.engine.received import COPIED_BYTES
from asyncsdk.engine.sources import FileSource
from asyncsdk.engine.temporaries import is_temporary
from asyncsdk.entities import upload_books
from asyncsdk.errors import AsyncSDKError, RequestError, SourceUnreadable
from asyncsdk.protocol.checkpoints import CommitCheckpoint
from asyncsdk.protocol.uploads import CommitUploads
from asyncsdk.server.backend import Backend
from tests.support.killing import ROOT, random_seed

pytestmark = pytest.mark.timeout(300)

LARGE_BYTES = 64 * MiB + 321
KILLED_AT = 40 * MiB
"""Within the third range: two are there."""

COMMAND = [sys.executable, "-m", "tests.support.killed_copy"]
END_SECONDS = 120


def copied(verb: str, data: Path, entity_id: str, path: Path, limit_bytes: int = 0) -> int | None:
    """Run a client; returns how many bytes it read of what it copies, None when it was killed."""
    ended = subprocess.run(
        [*COMMAND, verb, str(data), entity_id, str(path), str(limit_bytes)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        capture_output=True,
        timeout=END_SECONDS,
        check=False,
    )
    assert ended.returncode in {0, -9}, ended.stderr.decode()
    return None if ended.returncode else int(ended.stdout)


def unfinished(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if is_temporary(path.name)]


def journals(home: Path) -> list[Path]:
    folder = journal_folder(home)
    return list(folder.iterdir()) if folder.exists() else []


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = random.Random(5)
    (folder / "large.bin").write_bytes(rng.randbytes(LARGE_BYTES))
    for name in ("a.bin", "b.bin"):
        (folder / name).write_bytes(rng.randbytes(1000))
    for path in folder.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def made_dataset(data: Path) -> str:
    async with AsyncClient(data=data) as client:
        return (await client.datasets.create("d")).id


async def downloaded(data: Path, dataset_id: str, folder: Path) -> dict[str, bytes]:
    async with AsyncClient(data=data) as client:
        dataset = await client.datasets.get(dataset_id)
        (await dataset.download(folder, resume=False)).raise_for_failures()
    return contents(folder)


async def test_a_killed_upload_copies_what_is_missing(tmp_path: Path, home: Path, photos: Path) -> None:
    """It goes on behind the ranges that are there, and nothing stays in the data folder."""
    data = tmp_path / "data"
    dataset_id = await made_dataset(data)
    assert copied("upload", data, dataset_id, photos, KILLED_AT) is None
    assert len(unfinished(data)) == 1
    rest = copied("upload", data, dataset_id, photos)
    assert rest is not None
    assert rest <= LARGE_BYTES - 2 * COPIED_BYTES + 2000
    assert not unfinished(data)
    assert not journals(home)
    assert await downloaded(data, dataset_id, tmp_path / "copy") == contents(photos)
    assert sum(path.stat().st_size for path in (data / "objects").rglob("*.*")) == LARGE_BYTES + 2000


async def test_a_killed_download_copies_what_is_missing(tmp_path: Path, home: Path, photos: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    async with AsyncClient(data=data) as client:
        dataset = await client.datasets.create("d")
        (await dataset.upload(photos, resume=False)).raise_for_failures()
    assert copied("download", data, dataset.id, copy, KILLED_AT) is None
    (left,) = unfinished(copy)
    with left.open("r+b") as file:  # as a loss of power may leave it
        file.seek(COPIED_BYTES + 5)
        file.write(b"torn")
    rest = copied("download", data, dataset.id, copy)
    assert rest is not None
    assert rest <= LARGE_BYTES - COPIED_BYTES + 2000
    assert contents(copy) == contents(photos)
    assert not journals(home)


@contextmanager
def stopped_at(limit_bytes: int, error: AsyncSDKError) -> Iterator[list[int]]:
    """Let copying from *limit_bytes* on fail with *error*; gives how many bytes were read of files."""
    read_at = FileSource.read_at
    sizes: list[int] = []

    def failing(source: FileSource, size_bytes: int, offset: int) -> bytes:
        if offset >= limit_bytes:
            raise error
        data = read_at(source, size_bytes, offset)
        sizes.append(len(data))
        return data

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FileSource, "read_at", failing)
        yield sizes


async def upload_half(client: AsyncClient, photos: Path) -> AsyncDataset:
    dataset = await client.datasets.create("d")
    with stopped_at(KILLED_AT, SourceUnreadable("the disk hums", source="large.bin")):
        report = await dataset.upload(photos)
    assert [outcome.name for outcome in report.failures] == ["large.bin"]
    return dataset


async def test_a_changed_file_is_copied_anew_and_what_was_there_removed(
    tmp_path: Path, home: Path, photos: Path
) -> None:
    data = tmp_path / "data"
    async with AsyncClient(data=data) as client:
        dataset = await upload_half(client, photos)
        (left,) = unfinished(data)
        with (photos / "large.bin").open("r+b") as file:
            file.write(b"other")
        os.utime(photos / "large.bin", (1_700_000_001, 1_700_000_001))
        with stopped_at(MiB, SourceUnreadable("the disk hums", source="large.bin")):
            assert not (await dataset.upload(photos)).ok
        assert left not in unfinished(data)
        with stopped_at(LARGE_BYTES, SourceUnreadable("none", source="")) as sizes:
            (await dataset.upload(photos)).raise_for_failures()
    assert sum(sizes) == LARGE_BYTES
    assert not unfinished(data)
    assert not journals(home)
    assert await downloaded(data, dataset.id, tmp_path / "copy") == contents(photos)


@pytest.mark.parametrize("how", ["forgotten", "not kept", "gone"])
async def test_what_is_abandoned_is_removed_at_once(tmp_path: Path, home: Path, photos: Path, how: str) -> None:
    data, folder = tmp_path / "data", journal_folder(home)
    async with AsyncClient(data=data) as client:
        dataset = await upload_half(client, photos)
        assert len(unfinished(data)) == 1
        (run,) = summaries(folder)
        assert run.half_received == 1
        assert run.half_received_bytes >= 2 * COPIED_BYTES
        if how == "forgotten":
            assert forget(folder, run.run_id).files == 1
        elif how == "gone":
            (photos / "large.bin").unlink()
            (await dataset.upload(photos)).raise_for_failures()
        else:
            forget(folder, run.run_id)
            with stopped_at(KILLED_AT, SourceUnreadable("the disk hums", source="large.bin")):
                assert not (await dataset.upload(photos, resume=False)).ok
    assert not unfinished(data)
    assert not journals(home)


@pytest.mark.parametrize("what", ["item", "checkpoint"])
@pytest.mark.parametrize("is_another_boot", [True, False])
@pytest.mark.parametrize("size", [5 * MiB, COPIED_BYTES + MiB])
async def test_what_was_never_synced_is_not_committed_after_a_loss_of_power(
    tmp_path: Path,
    home: Path,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    is_another_boot: bool,
    size: int,
) -> None:
    """It was whole and not committed; its file has its size then, and perhaps not its bytes."""
    data, source = tmp_path / "data", photos / "large.bin"
    os.truncate(source, size)
    os.utime(source, (1_700_000_000, 1_700_000_000))
    async with AsyncClient(data=data) as client:
        dataset, model = await client.datasets.create("d"), await client.models.create("m")

        async def upload() -> None:
            if what == "item":
                (await dataset.upload(photos)).raise_for_failures()
            else:
                await model.upload_checkpoint(source)

        with monkeypatch.context() as patched:
            patched.setattr(Backend, "handle", _refusing(Backend.handle))
            with pytest.raises((AsyncSDKError, ExceptionGroup)):
                await upload()
        (arrived,) = [path for path in (data / "objects").rglob("*") if path.is_file() and _size(path) > MiB]
        if is_another_boot:
            for module in (large, upload_books):
                monkeypatch.setattr(module, "boot_number", lambda: 4711)
            with arrived.open("r+b") as file:
                file.write(bytes(4096))
        with stopped_at(LARGE_BYTES, SourceUnreadable("none", source="")) as sizes:
            await upload()
        assert (sum(sizes) >= source.stat().st_size) is is_another_boot
        if what == "item":
            (await dataset.download(tmp_path / "copy", resume=False)).raise_for_failures()
            assert contents(tmp_path / "copy") == contents(photos)
        else:
            await model.download_checkpoint(tmp_path / "copy", which="last", resume=False)
            assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    assert not journals(home)


def _size(path: Path) -> int:
    return path.stat().st_size


def _refusing(handle: Callable[..., Any]) -> Callable[..., Any]:
    def refusing(backend: Backend, message: Any, *arguments: Any) -> Any:
        if isinstance(message, (CommitUploads, CommitCheckpoint)):
            raise RequestError("no reply")
        return handle(backend, message, *arguments)

    return refusing


@pytest.mark.slow
async def test_checkpoints_go_on_wherever_they_are_killed(
    tmp_path: Path, home: Path, photos: Path, record_property: pytest.FixtureRequest
) -> None:
    data, copy, source = tmp_path / "data", tmp_path / "copy.bin", photos / "large.bin"
    rng = random.Random(random_seed(record_property))
    async with AsyncClient(data=data) as client:
        model_id = (await client.models.create("m")).id
    for verb, path in (("upload_checkpoint", source), ("download_checkpoint", copy)):
        read = left = LARGE_BYTES
        kills = 0
        while True:
            limit = rng.randrange(1, 40) * MiB
            rest = copied(verb, data, model_id, path, limit if kills < 8 else 0)
            if rest is not None:
                assert rest <= left
                break
            kills += 1
            left = LARGE_BYTES - (LARGE_BYTES - left + limit) // COPIED_BYTES * COPIED_BYTES
            assert len(unfinished(tmp_path)) == 1
        assert kills
        assert read >= rest
        assert not unfinished(tmp_path)
        assert not journals(home)
    assert copy.read_bytes() == source.read_bytes()
