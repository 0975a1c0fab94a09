"""Folders and files are compared with what a platform has, on every platform the same, and nothing is moved."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asyncsdk import AsyncClient, AsyncDataset, Comparison, Condition, ItemUpload, Progress, Verification
from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.errors import NotFound, SourceNotFound, SourceUnreadable, VerificationFailed

FILES = {
    "a.b/c": b"point sorts before slash",
    "a/b": b"",
    "a0": b"slash sorts before zero",
    "big": os.urandom(6_000_000),
    "grün/ä": b"Umlaut",
    "z/.hidden": b"h",
}


@pytest.fixture
async def dataset(client: AsyncClient) -> AsyncDataset:
    return await client.datasets.create("photos")


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


async def compare(dataset: AsyncDataset, folder: Path, **options: object) -> tuple[Verification, dict[str, str]]:
    seen: list[Comparison] = []
    result = await dataset.verify(folder, on_comparison=seen.append, **options)  # type: ignore[arg-type]
    paths = [one.path for one in seen]
    assert paths == sorted(paths, key=os.fsencode)
    assert len(set(paths)) == len(paths) == result.objects
    assert [one for one in seen if not one.ok][:1000] == result.differences
    return result, {one.path: one.verdict for one in seen}


async def test_a_folder_that_was_uploaded_is_the_same(dataset: AsyncDataset, tmp_path: Path) -> None:
    """Every byte is read; nothing differs."""
    source = write(tmp_path / "source", FILES)
    (await dataset.upload(source)).raise_for_failures()
    result, verdicts = await compare(dataset, source)
    assert verdicts == dict.fromkeys(FILES, "same")
    assert (result.ok, result.same, result.bytes_read) == (True, len(FILES), sum(map(len, FILES.values())))
    result.raise_for_differences()


async def test_every_kind_of_difference_is_told(dataset: AsyncDataset, tmp_path: Path) -> None:
    """Missing here, missing there, another size, one other bit, unreadable."""
    source = write(tmp_path / "source", FILES)
    (await dataset.upload(source)).raise_for_failures()
    (source / "a/b").unlink()
    write(source, {"a0": b"short", "new": b"n", "grün/neu": b"n"})
    flipped = bytearray(FILES["big"])
    flipped[-1] ^= 1
    write(source, {"big": bytes(flipped)})
    (source / "z/.hidden").unlink()
    os.mkfifo(source / "z/.hidden")
    (source / "nowhere").symlink_to("nothing")
    result, verdicts = await compare(dataset, source)
    assert verdicts == {
        "a.b/c": "same",
        "a/b": "missing_locally",
        "a0": "different",
        "big": "different",
        "grün/neu": "missing_remotely",
        "grün/ä": "same",
        "new": "missing_remotely",
        "nowhere": "unreadable",
        "z/.hidden": "unreadable",
    }
    found = {one.path: one for one in result.differences}
    assert (found["a0"].size_local, found["a0"].size_remote, found["a0"].crc32c_local) == (5, len(FILES["a0"]), None)
    assert found["big"].crc32c_local == crc32c_hex(crc32c(bytes(flipped)))
    assert found["big"].crc32c_remote == crc32c_hex(crc32c(FILES["big"]))
    assert isinstance(found["z/.hidden"].error, SourceUnreadable)
    with pytest.raises(VerificationFailed, match="9 objects compared, 2 the same, 1 missing locally, 2 missing"):
        result.raise_for_differences()
    again = await dataset.upload(source, exclude=["nowhere", ".hidden"], dry_run=True)
    assert (again.skipped, again.done) == (6, 0)  # nothing was sent


async def test_patterns_and_filters_choose(dataset: AsyncDataset, tmp_path: Path) -> None:
    """Patterns mean both sides; with a filter, files without an item are nobody's business."""
    source = write(tmp_path / "source", FILES)
    (await dataset.upload(source)).raise_for_failures()
    await dataset.upload([ItemUpload(b"x", "there.jpg"), ItemUpload(b"x", "a/there.jpg")])
    write(source, {"here.jpg": b"x"})
    assert (await compare(dataset, source, include=["*.jpg"], exclude=["/a"]))[1] == {
        "here.jpg": "missing_remotely",
        "there.jpg": "missing_locally",
    }
    only = Condition("path", "in", ["a0", "there.jpg"])
    assert (await compare(dataset, source, filter=only))[1] == {"a0": "same", "there.jpg": "missing_locally"}


async def test_a_closed_folder_is_not_taken_for_missing_files(
    dataset: AsyncDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies below a folder that cannot be listed is unreadable, not missing."""
    source = write(tmp_path / "source", FILES)
    (await dataset.upload(source)).raise_for_failures()
    scandir = os.scandir

    def closed(folder: bytes | int) -> object:
        if isinstance(folder, bytes) and folder.endswith(b"z/"):
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", closed)
    result, verdicts = await compare(dataset, source)
    assert (verdicts["z/"], verdicts["z/.hidden"]) == ("unreadable", "unreadable")
    assert (result.unreadable, result.missing_locally) == (2, 0)


async def test_pages_and_empty_sides(dataset: AsyncDataset, tmp_path: Path) -> None:
    """More items than one page holds; an empty dataset; an empty folder; no folder."""
    empty = write(tmp_path / "empty", {})
    empty.mkdir()
    assert (await compare(dataset, empty))[0].objects == 0
    many = {f"{number // 100:02}/{number}": b"%d" % number for number in range(1500)}
    source = write(tmp_path / "many", many)
    assert (await compare(dataset, source))[0].missing_remotely == 1500
    (await dataset.upload(source)).raise_for_failures()
    seen: list[Progress] = []
    assert (await compare(dataset, source, on_progress=seen.append))[0].same == 1500
    assert (seen[-1].is_final, seen[-1].done, seen[-1].bytes_done) == (True, 1500, sum(map(len, many.values())))
    result, _ = await compare(dataset, empty)
    assert (result.missing_locally, len(result.differences)) == (1500, 1000)
    with pytest.raises(SourceNotFound):
        await dataset.verify(tmp_path / "nobody")
    with pytest.raises(SourceUnreadable):
        await dataset.verify(source / "00" / "0")


async def test_what_the_callback_raises_ends_it(dataset: AsyncDataset, tmp_path: Path) -> None:
    """Unchanged, and in no group."""
    source = write(tmp_path / "source", FILES)

    def stop(comparison: Comparison) -> None:
        raise KeyError(comparison.path)

    with pytest.raises(KeyError, match=r"a\.b/c"):
        await dataset.verify(source, on_comparison=stop)


async def test_a_checkpoint_is_compared(client: AsyncClient, tmp_path: Path) -> None:
    """The file, or the one in a folder; which one is chosen as for a download."""
    model = await client.models.create("detector")
    weights = write(tmp_path, {"last.pt": os.urandom(3_000_000)}) / "last.pt"
    await model.upload_checkpoint(weights, epoch=1, is_best=True)
    assert (await model.verify_checkpoint(weights)).ok
    assert (await model.verify_checkpoint(tmp_path, which=1)).same == 1
    with weights.open("r+b") as file:
        file.write(b"\0\1\2\3")
    found = await model.verify_checkpoint(weights)
    assert [(one.path, one.verdict) for one in found.differences] == [("last.pt", "different")]
    assert (await model.verify_checkpoint(tmp_path / "gone.pt")).missing_locally == 1
    with pytest.raises(NotFound):
        await model.verify_checkpoint(weights, which=7)
