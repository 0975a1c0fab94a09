"""One zip becomes a dataset: items byte for byte, labels as annotations, dangers refused; on every platform."""

from __future__ import annotations

import io
import random
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from asyncsdk import AsyncClient, AsyncDataset, Client, ItemUpload
from asyncsdk.domain.shapes import Box, Polygon
from asyncsdk.engine import Progress
from asyncsdk.entities.annotations import AnnotationDraft
from asyncsdk.errors import (
    BadRequest,
    ConfigError,
    Conflict,
    InvalidArchive,
    InvalidName,
    JobFailed,
    NotFound,
    NoWorker,
    SourceNotFound,
    UnsupportedOperation,
)
from asyncsdk.platforms.registry import ADAPTERS
from asyncsdk.protocol.archives import UnpackedArchive
from tests.support.zips import make_zip, make_zip_of, yolo_files

KIND = "unpack_archive"


@pytest.fixture
async def working(client: AsyncClient) -> AsyncIterator[AsyncClient]:
    """A client whose jobs are done: the embedded platform starts a worker by itself, a server has one."""
    if client.settings.url is None:
        yield client
        return
    async with client.worker(kinds=[KIND]):
        yield client


@pytest.fixture
async def dataset(working: AsyncClient) -> AsyncDataset:
    return await working.datasets.create("digits")


def pictures(count: int) -> dict[str, bytes]:
    """Return real digits as PNG files, four of five of them to train with."""
    files = {}
    for number, pixels in enumerate(load_digits().images[:count]):
        file = io.BytesIO()
        Image.fromarray((pixels * 15).astype(np.uint8)).save(file, "PNG")
        files[f"{'val' if number % 5 == 4 else 'train'}/{number:04}"] = file.getvalue()
    return files


NAMES = [f"digit {number}" for number in range(10)]


def digits_zip(path: Path, count: int = 20, *, wrapping: str = "digits/") -> dict[str, bytes]:
    """Write an archive of digits, each with a box and an outline; returns its images by the path of their item."""
    images = pictures(count)
    classes = load_digits().target
    labels = {
        name: f"{classes[int(name[-4:])]} 0.5 0.5 0.5 0.25\n\n{classes[int(name[-4:])]} 0 0 1 0 0.5 1\n"
        for name in images
    }
    files = yolo_files(images, labels, NAMES)
    path.write_bytes(make_zip({f"{wrapping}{name}": data for name, data in files.items()}))
    return {f"images/{name}.png": data for name, data in images.items()}


async def contents(dataset: AsyncDataset) -> dict[str, bytes]:
    return {item.path: await item.read() async for item in dataset.items.list()}


async def state(dataset: AsyncDataset) -> list[object]:
    """Return everything that unpacking makes."""
    items = [item async for item in dataset.items.list(sort=["path"])]
    return [*items, *(await dataset.annotations.list().to_list())]


async def test_a_zip_becomes_items_and_annotations(dataset: AsyncDataset, tmp_path: Path) -> None:
    """Byte for byte, each item with its split, each label with its class and relative coordinates."""
    images = digits_zip(tmp_path / "digits.zip")
    job = await dataset.upload_archive(tmp_path / "digits.zip")
    result = await job
    assert result == UnpackedArchive(items=20, annotations=40)
    assert await contents(dataset) == images
    item = await dataset.items.get(path="images/val/0004.png")
    assert item.metadata == {"split": "val"}
    found = await item.annotations.list(sort=["kind"]).to_list()
    assert [one.label for one in found] == ["digit 4", "digit 4"]
    assert [one.shape for one in found] == [
        Box(x=0.25, y=0.375, width=0.5, height=0.25, unit="relative"),
        Polygon(points=((0, 0), (1, 0), (0.5, 1)), unit="relative"),
    ]
    assert [one.metadata["archive"]["line"] for one in found] == [1, 3]
    assert (await dataset.refresh()).archive_filename == "digits.zip"
    assert (await job.refresh()).subject_id == dataset.id


async def test_unpacking_again_gives_the_same_state(dataset: AsyncDataset, tmp_path: Path) -> None:
    """Whether the file is given again or the job is asked for again; packed with its folder or without."""
    digits_zip(tmp_path / "digits.zip")
    first = await (await dataset.upload_archive(tmp_path / "digits.zip"))
    before = await state(dataset)
    assert await (await dataset.upload_archive(tmp_path / "digits.zip")) == first
    assert await (await dataset.unpack_archive()) == first
    assert await state(dataset) == before


async def test_the_same_file_is_not_sent_again(dataset: AsyncDataset, tmp_path: Path) -> None:
    """The platform says that it has it."""
    digits_zip(tmp_path / "digits.zip")
    told: list[Progress] = []
    for _ in range(2):
        await dataset.upload_archive(tmp_path / "digits.zip", unpack=False, on_progress=told.append)
    first, second = [progress for progress in told if progress.is_final]
    assert (first.done, first.bytes_done) == (1, (tmp_path / "digits.zip").stat().st_size)
    assert (second.done, second.skipped, second.bytes_done) == (0, 1, 0)
    updated = (await dataset.refresh()).updated_at
    await dataset.upload_archive(tmp_path / "digits.zip", unpack=False)
    assert (await dataset.refresh()).updated_at == updated


async def test_labels_that_changed_take_the_place_of_those_before(dataset: AsyncDataset, tmp_path: Path) -> None:
    """Of the images in the archive; what somebody drew, and what belongs to other images, stays."""
    images = pictures(3)
    first, second, third = images
    labels = dict.fromkeys(images, "0 .5 .5 .1 .1\n1 .5 .5 .2 .2\n")
    path = tmp_path / "digits.zip"
    path.write_bytes(make_zip(yolo_files(images, labels, NAMES)))
    assert (await (await dataset.upload_archive(path))).annotations == 6
    drawn = AnnotationDraft("mine", Box(x=1, y=1, width=2, height=2))
    item = await dataset.items.get(path=f"images/{first}.png")
    assert await item.annotations.create(drawn) == 1
    changed = {first: "1 .5 .5 .2 .2\n2 .5 .5 .3 .3\n"}  # the other one of the two has none any more
    path.write_bytes(make_zip(yolo_files({name: images[name] for name in (first, second)}, changed, NAMES)))
    result = await (await dataset.upload_archive(path))
    assert (result.items, result.annotations, result.removed) == (2, 2, 4)
    assert {one.label for one in await item.annotations.list().to_list()} == {"digit 1", "digit 2", "mine"}
    for name, count in ((second, 0), (third, 2)):
        other = await dataset.items.get(path=f"images/{name}.png")
        assert len(await other.annotations.list().to_list()) == count


async def test_what_is_refused_is_told_and_stops_nothing(dataset: AsyncDataset, tmp_path: Path) -> None:
    """Names that lead elsewhere, broken lines, classes without a name, labels that are no text."""
    (tmp_path / "a.zip").write_bytes(
        make_zip(
            {
                "data.yaml": "names: [cat]",
                "images/a.png": b"a",
                "images/b.png": b"b",
                "labels/a.txt": "0 .5 .5 .1 .1\nnonsense\n7 .5 .5 .1 .1\n0 nan .5 .1 .1\n",
                "labels/b.txt": b"\xff\xfe\x00",
                "../../outside.txt": "x",
                "a\\b.txt": "x",
                "__MACOSX/images/._a.png": "x",
                "a.zip": make_zip({"../nested": b"x"}),
                "docs/README": "hello",
            }
        )
    )
    job = await dataset.upload_archive(tmp_path / "a.zip")
    result = await job
    assert (result.items, result.annotations, result.ignored, result.refused) == (4, 1, 1, 6)
    told = {(problem.path, problem.line): problem.code for problem in result.problems}
    assert told == {
        ("../../outside.txt", None): "invalid_name",
        ("a\\b.txt", None): "invalid_name",
        ("labels/a.txt", 2): "invalid_row",
        ("labels/a.txt", 3): "invalid_row",
        ("labels/a.txt", 4): "invalid_row",
        ("labels/b.txt", None): "invalid_archive",
    }
    assert (await contents(dataset)).keys() == {"images/a.png", "images/b.png", "a.zip", "docs/README"}
    logged = [line.text async for line in job.logs() if line.level == "warning"]
    assert len(logged) == 6
    assert any("'labels/a.txt, line 3': class 7 has no name" in line for line in logged)


async def test_a_path_that_is_file_and_folder_costs_one_of_both(dataset: AsyncDataset, tmp_path: Path) -> None:
    """An archive may hold what no file system can; the platform says which one it did not take."""
    (tmp_path / "a.zip").write_bytes(make_zip({"a": b"1", "a/b": b"2", "c": b"3"}))
    result = await (await dataset.upload_archive(tmp_path / "a.zip"))
    assert (result.items, result.refused) == (2, 1)
    assert result.problems[0].code == "conflict"


async def test_only_the_first_hundred_problems_are_kept(dataset: AsyncDataset, tmp_path: Path) -> None:
    """All of them are counted."""
    (tmp_path / "a.zip").write_bytes(make_zip_of((f"../{number}", b"") for number in range(150)))
    job = await dataset.upload_archive(tmp_path / "a.zip")
    result = await job
    assert (result.items, result.refused, len(result.problems)) == (0, 150, 100)
    assert len([line async for line in job.logs() if line.level == "warning"]) == 100


async def test_bombs_and_damage_fail_the_job(dataset: AsyncDataset, tmp_path: Path) -> None:
    """And leave the dataset as it was, with the archive to look at."""
    path = tmp_path / "bomb.zip"
    path.write_bytes(make_zip({f"{number}.bin": bytes(30 * 1024 * 1024) for number in range(10)}))
    with pytest.raises(JobFailed, match="at most 268,435,456 are unpacked") as caught:
        await (await dataset.upload_archive(path))
    assert caught.value.error_code == "invalid_archive"
    path.write_bytes(make_zip({"a": b"a"})[:-10])
    with pytest.raises(JobFailed, match="damaged"):
        await (await dataset.upload_archive(path))
    assert (await dataset.refresh()).item_count == 0
    assert (await dataset.refresh()).archive_filename == "bomb.zip"


async def test_many_files_go_in_batches(dataset: AsyncDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that is larger than a batch; every one arrives, and the scratch folder never holds more than two."""
    from asyncsdk.worker import unpacking

    monkeypatch.setattr(unpacking, "_BATCH_FILES", 7)
    monkeypatch.setattr(unpacking, "_BATCH_BYTES", 40_000)
    monkeypatch.setattr(unpacking, "_SMALL_BYTES", 5000)
    extract, most = unpacking._extract, 0

    def counted(reader: object, files: object, folder: Path) -> object:
        nonlocal most
        batch = extract(reader, files, folder)  # type: ignore[arg-type]
        most = max(most, sum(path.is_dir() for path in folder.parent.glob("batch-*")))
        return batch

    monkeypatch.setattr(unpacking, "_extract", counted)
    generator = random.Random(4)
    files = {f"f/{number:03}": generator.randbytes(generator.choice([0, 100, 9000])) for number in range(100)}
    files["large"] = generator.randbytes(100_000)
    (tmp_path / "a.zip").write_bytes(make_zip(files))
    result = await (await dataset.upload_archive(tmp_path / "a.zip"))
    assert (result.items, result.refused) == (101, 0)
    assert await contents(dataset) == files
    assert most == 2


async def test_an_archive_can_be_kept_without_unpacking(dataset: AsyncDataset, tmp_path: Path) -> None:
    """It comes back byte for byte, under its name in a folder."""
    digits_zip(tmp_path / "digits.zip", 3)
    with pytest.raises(NotFound, match="no archive"):
        await dataset.download_archive(tmp_path)
    assert await dataset.upload_archive(tmp_path / "digits.zip", unpack=False) is None
    assert (await dataset.refresh()).item_count == 0
    folder = tmp_path / "down"
    folder.mkdir()
    path = await dataset.download_archive(folder)
    assert path == folder / "digits.zip"
    assert path.read_bytes() == (tmp_path / "digits.zip").read_bytes()
    assert await dataset.download_archive(str(tmp_path / "other.zip")) == tmp_path / "other.zip"


async def test_an_archive_needs_no_worker_to_be_kept(client: AsyncClient, tmp_path: Path) -> None:
    """On every platform, services included; one that unpacks by itself says so before anything is sent."""
    dataset = await client.datasets.create("digits")
    digits_zip(tmp_path / "digits.zip", 3)
    if client.settings.platform in ADAPTERS:
        with pytest.raises(UnsupportedOperation, match="unpack"):
            await dataset.upload_archive(tmp_path / "digits.zip")
        with pytest.raises(NotFound, match="no archive"):
            await dataset.download_archive(tmp_path / "copy.zip")
    await dataset.upload_archive(tmp_path / "digits.zip", unpack=False)
    await dataset.download_archive(tmp_path / "copy.zip")
    assert (tmp_path / "copy.zip").read_bytes() == (tmp_path / "digits.zip").read_bytes()


async def test_what_is_no_archive_is_refused_before_it_is_sent(dataset: AsyncDataset, tmp_path: Path) -> None:
    """Nor is a job asked for."""
    (tmp_path / "a.zip").write_bytes(b"no zip")
    with pytest.raises(InvalidArchive, match="no zip"):
        await dataset.upload_archive(tmp_path / "a.zip")
    with pytest.raises(SourceNotFound):
        await dataset.upload_archive(tmp_path / "absent.zip")
    (tmp_path / " a.zip").write_bytes(make_zip({"a": b"a"}))
    with pytest.raises(InvalidName):
        await dataset.upload_archive(tmp_path / " a.zip")
    with pytest.raises(JobFailed, match="no archive"):
        await (await dataset.unpack_archive())


async def test_an_archive_that_was_replaced_is_not_unpacked_in_its_place(
    dataset: AsyncDataset, working: AsyncClient, tmp_path: Path
) -> None:
    """Each job means the archive it was made for; one without that takes what there is."""
    (tmp_path / "a.zip").write_bytes(make_zip({"a": b"a"}))
    await dataset.upload_archive(tmp_path / "a.zip", unpack=False)
    payload = {"dataset_id": dataset.id, "size_bytes": 1, "crc32c": "0" * 8}
    job = await working.jobs.create(KIND, payload)
    with pytest.raises(JobFailed, match="another archive now") as caught:
        await job
    assert caught.value.error_code == "conflict"
    with pytest.raises(JobFailed, match="makes no sense"):
        await (await working.jobs.create(KIND, {}))


async def test_a_read_only_dataset_takes_no_archive(dataset: AsyncDataset, tmp_path: Path) -> None:
    """Not even to keep it."""
    digits_zip(tmp_path / "digits.zip", 3)
    await dataset.update(is_readonly=True)
    with pytest.raises(Conflict, match="read-only"):
        await dataset.upload_archive(tmp_path / "digits.zip")


async def test_without_a_worker_the_archive_is_there_all_the_same(client: AsyncClient, tmp_path: Path) -> None:
    """It is unpacked when somebody can."""
    if client.settings.url is None:
        pytest.skip("the embedded platform starts a worker by itself")
    dataset = await client.datasets.create("digits")
    digits_zip(tmp_path / "digits.zip", 3)
    with pytest.raises(NoWorker):
        await dataset.upload_archive(tmp_path / "digits.zip")
    async with client.worker(kinds=[KIND]):
        assert (await (await dataset.unpack_archive())).items == 3


async def test_annotations_are_made_and_deleted(client: AsyncClient) -> None:
    """By hand: one or many, by shape or JSON; made once by their id, and refused when they are none."""
    dataset = await client.datasets.create("photos")
    await dataset.upload([ItemUpload(b"a", "a.jpg"), ItemUpload(b"b", "b.jpg")])
    item = await dataset.items.get(path="a.jpg")
    draft = AnnotationDraft("cat", Box(x=1, y=2, width=3, height=4), {"by": "me"})
    assert await item.annotations.create(draft) == 1
    assert await item.annotations.create(draft) == 0
    outline = {"kind": "polygon", "points": [[0, 0], [1, 0], [1, 1]], "unit": "relative"}
    assert await item.annotations.create(AnnotationDraft("dog", outline) for _ in range(1500)) == 1500
    (cat,) = [one async for one in dataset.annotations.list() if one.label == "cat"]
    assert (cat.item_id, cat.shape, cat.metadata) == (item.id, draft.shape, {"by": "me"})
    assert dataset.annotations.from_json(cat.to_json()) == cat
    await cat.delete()
    await cat.delete()
    dogs = await item.annotations.list().to_list()
    assert {one.label for one in dogs} == {"dog"}
    assert await dataset.annotations.delete(dogs[0]) == 1
    assert await dataset.annotations.delete([one.id for one in dogs]) == 1499
    other = await dataset.items.get(path="b.jpg")
    with pytest.raises(Conflict):
        await item.annotations.create(draft)
        await other.annotations.create(draft)
    with pytest.raises(BadRequest, match="height"):
        await item.annotations.create(AnnotationDraft("cat", {"kind": "box", "x": 1, "y": 1, "width": 1}))
    with pytest.raises(ConfigError, match="label"):
        await item.annotations.create(AnnotationDraft("", outline))
    await item.delete()
    with pytest.raises(NotFound):
        await item.annotations.create(AnnotationDraft("cat", outline))


def test_blocking_code_does_the_same(tmp_path: Path) -> None:
    """Upload, wait, look, download, annotate: without a loop."""
    images = digits_zip(tmp_path / "digits.zip", 5)
    with Client(data=tmp_path / "data") as client:
        dataset = client.datasets.create("digits")
        result = dataset.upload_archive(tmp_path / "digits.zip").wait_result()
        assert isinstance(result, UnpackedArchive)
        assert (result.items, result.annotations) == (5, 10)
        assert {item.path: item.read() for item in dataset.items.list()} == images
        item = dataset.items.get(path="images/train/0000.png")
        assert item.annotations.create([AnnotationDraft("mine", Box(x=0, y=0, width=1, height=1))]) == 1
        assert len(list(item.annotations.list())) == 3
        for annotation in dataset.annotations.list():
            annotation.delete()
        assert dataset.unpack_archive().wait_result().annotations == 10
        assert dataset.download_archive(tmp_path / "down.zip").read_bytes() == (tmp_path / "digits.zip").read_bytes()
        assert dataset.upload_archive(tmp_path / "digits.zip", unpack=False) is None
