"""Items go up and come back through the entity API, on every platform the same."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asyncsdk import AsyncClient, AsyncDataset, Condition, ItemTable, ItemUpload, Outcome, Progress
from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.errors import BadRequest, Conflict, InvalidName, NotFound, SourceNotFound, SourceUnreadable

BIG = 20 * 1024 * 1024 + 12345
"""More than one part on the served platform, and a last part that is short."""


@pytest.fixture
async def dataset(client: AsyncClient) -> AsyncDataset:
    return await client.datasets.create("photos")


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def read(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FILES = {
    "a.jpg": b"A" * 1000,
    "empty": b"",
    "deep/er/b.png": os.urandom(70_000),
    "deep/.hidden": b"h",
    "big.bin": os.urandom(BIG),
    unicodedata.normalize("NFC", "é.txt"): b"composed",
    unicodedata.normalize("NFD", "é.txt"): b"decomposed",
    "with space & %41?#.txt": b"odd",
}


async def test_a_folder_comes_back_byte_for_byte(dataset: AsyncDataset, tmp_path: Path) -> None:
    source = write(tmp_path / "source", FILES)
    report = await dataset.upload(source)
    report.raise_for_failures()
    assert (report.done, report.skipped, report.failed) == (len(FILES), 0, 0)
    assert report.bytes_done == sum(map(len, FILES.values()))
    back = await dataset.download(tmp_path / "copy")
    back.raise_for_failures()
    assert back.done == len(FILES)
    assert read(tmp_path / "copy") == FILES


async def test_items_carry_what_the_files_are(dataset: AsyncDataset, tmp_path: Path) -> None:
    await dataset.upload(write(tmp_path / "source", {"a": b"1", "b": b"22"}))
    items = await dataset.items.list().to_list()
    assert [(item.path, item.position, item.size_bytes, item.crc32c) for item in items] == [
        ("a", 0, 1, crc32c_hex(crc32c(b"1"))),
        ("b", 1, 2, crc32c_hex(crc32c(b"22"))),
    ]
    assert items[0].etag != items[1].etag
    assert items[0].created_at.tzinfo is not None
    fresh = await dataset.refresh()
    assert (fresh.item_count, fresh.size_bytes) == (2, 3)


async def test_uploading_again_sends_nothing_and_changed_files_only(dataset: AsyncDataset, tmp_path: Path) -> None:
    source = write(tmp_path / "source", FILES)
    await dataset.upload(source)
    before = {item.path: item for item in await dataset.items.list().to_list()}
    again = await dataset.upload(source)
    assert (again.done, again.skipped, again.failed, again.bytes_done) == (0, len(FILES), 0, 0)
    changed = bytearray(FILES["big.bin"])
    changed[BIG // 2] ^= 1
    write(source, {"big.bin": bytes(changed), "a.jpg": b"B" * 1000})
    third = await dataset.upload(source)
    assert (third.done, third.skipped, third.failed) == (2, len(FILES) - 2, 0)
    after = {item.path: item for item in await dataset.items.list().to_list()}
    assert after["big.bin"].id == before["big.bin"].id
    assert after["big.bin"].position == before["big.bin"].position
    assert after["big.bin"].etag != before["big.bin"].etag
    assert after["empty"] == before["empty"]
    assert await after["a.jpg"].read() == b"B" * 1000


async def test_fail_refuses_what_exists_and_overwrite_replaces_it(dataset: AsyncDataset, tmp_path: Path) -> None:
    source = write(tmp_path / "source", {"a": b"1"})
    await dataset.upload(source)
    write(source, {"b": b"2"})
    refused = await dataset.upload(source, on_existing="fail")
    assert (refused.done, refused.failed) == (1, 1)
    assert refused.failures_by_code == {"conflict": 1}
    with pytest.raises(ExceptionGroup, match="1 of 2 failed") as caught:
        refused.raise_for_failures()
    assert isinstance(caught.value.exceptions[0], Conflict)
    assert (await dataset.upload(source, on_existing="overwrite")).done == 2


async def test_downloading_again_fetches_nothing_and_damaged_files_only(dataset: AsyncDataset, tmp_path: Path) -> None:
    files = {"a": b"1" * 10, "b": b"2" * 10, "c/d": b"3" * 10}
    await dataset.upload(write(tmp_path / "source", files))
    copy = tmp_path / "copy"
    await dataset.download(copy)
    (copy / "a").write_bytes(b"x" * 10)
    (copy / "b").unlink()
    again = await dataset.download(copy)
    assert (again.done, again.skipped) == (2, 1)
    assert read(copy) == files
    (copy / "a").write_bytes(b"mine")
    refused = await dataset.download(copy, on_existing="fail")
    assert refused.failures_by_code == {"conflict": 3}
    assert (copy / "a").read_bytes() == b"mine"


async def test_patterns_choose_what_goes_up_and_what_comes_back(dataset: AsyncDataset, tmp_path: Path) -> None:
    source = write(tmp_path / "source", {"x/a.jpg": b"1", "x/b.png": b"2", "y/c.jpg": b"3", "y/d.txt": b"4"})
    assert (await dataset.upload(source, include=["*.jpg", "*.png"], exclude=["y"])).done == 2
    assert (await dataset.download(tmp_path / "copy", include=["*.png"])).done == 1
    assert read(tmp_path / "copy") == {"x/b.png": b"2"}
    filtered = await dataset.download(tmp_path / "filtered", filter=Condition("path", "prefix", "x/a"))
    assert filtered.done == 1


async def test_a_dry_run_says_what_it_would_do_and_does_nothing(dataset: AsyncDataset, tmp_path: Path) -> None:
    source = write(tmp_path / "source", {"a": b"1", "b": b"2"})
    replies: list[Any] = []
    report = await dataset.upload(source, dry_run=True, on_outcome=lambda outcome: replies.append(outcome.reply))
    assert (report.done, report.skipped) == (0, 2)
    assert replies == ["would_send", "would_send"]
    assert await dataset.items.list().to_list() == []
    await dataset.upload(source)
    assert (await dataset.download(tmp_path / "copy", dry_run=True)).skipped == 2
    assert not (tmp_path / "copy").exists()


async def test_items_come_from_bytes_streams_open_files_and_paths_at_once(
    dataset: AsyncDataset, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"path")
    (tmp_path / "opened").write_bytes(b"..opened")
    big = os.urandom(BIG)

    async def stream() -> AsyncIterator[bytes]:
        for start in range(0, BIG, 1_000_000):
            yield big[start : start + 1_000_000]

    async def nothing() -> AsyncIterator[bytes]:
        return
        yield b""

    with (tmp_path / "opened").open("rb") as opened:
        opened.seek(2)
        report = await dataset.upload(
            [
                ItemUpload(b"bytes", "1", {"n": 1}),
                ItemUpload(memoryview(b"view"), "2"),
                ItemUpload(stream(), "3"),
                ItemUpload(opened, "4"),
                tmp_path / "file",
                ItemUpload(nothing(), "5"),
            ]
        )
    report.raise_for_failures()
    await dataset.download(tmp_path / "copy")
    expected = {"1": b"bytes", "2": b"view", "3": big, "4": b"opened", "5": b"", "file": b"path"}
    assert read(tmp_path / "copy") == expected
    assert (await dataset.items.get(path="1")).metadata == {"n": 1}


async def test_an_asynchronous_iterable_of_items_is_pulled_lazily(dataset: AsyncDataset) -> None:
    async def items() -> AsyncIterator[ItemUpload]:
        for number in range(1500):
            yield ItemUpload(str(number).encode(), f"{number:04}")

    assert (await dataset.upload(items())).done == 1500
    assert [item.path async for item in dataset.items.list(sort=["-path"], limit=2)] == ["1499", "1498"]
    assert len(await dataset.items.list().to_list()) == 1500


async def test_a_table_brings_its_metadata(dataset: AsyncDataset, tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": b"1", "b.jpg": b"2", "t.csv": b"source,path,weather\na.jpg,x/a,rain\nb.jpg,x/b,sun\n"})
    (await dataset.upload(ItemTable(tmp_path / "t.csv"))).raise_for_failures()
    rainy = await dataset.items.list(filter=Condition("metadata.weather", "eq", "rain")).to_list()
    assert [item.path for item in rainy] == ["x/a"]


async def test_outcomes_and_progress_account_for_every_object(dataset: AsyncDataset, tmp_path: Path) -> None:
    outcomes: list[Outcome] = []
    events: list[Progress] = []
    await dataset.upload(write(tmp_path / "s", FILES), on_outcome=outcomes.append, on_progress=events.append)
    assert sorted(outcome.name for outcome in outcomes) == sorted(FILES)
    assert all(outcome.ok and outcome.checksum for outcome in outcomes)
    assert all(crc32c_hex(crc32c(FILES[outcome.name])) == outcome.crc32c for outcome in outcomes)
    assert events[-1].is_final
    assert events[-1].bytes_done == sum(map(len, FILES.values()))
    assert sum(event.is_final for event in events) == 1


# --- bad input -----------------------------------------------------------------------------------------------


async def test_bad_names_are_refused_one_by_one_and_the_rest_goes_on(dataset: AsyncDataset) -> None:
    bad = ["../up", "/absolute", "a/../b", "nul\0", "", "a//b", ".", "x" * 300, "y/" + "z" * 256, "trail/"]
    bad += ["no utf-8 \udcff", "no unicode \ud800"]
    odd: Any = [Path("a.txt"), 3]
    bad += odd
    outcomes: list[Outcome] = []
    items = [ItemUpload(b"x", path) for path in bad]
    report = await dataset.upload([*items, ItemUpload(b"good", "good")], on_outcome=outcomes.append)
    assert (report.done, report.failed) == (1, len(bad))
    assert {type(outcome.error) for outcome in outcomes if not outcome.ok} == {InvalidName}
    assert [item.path async for item in dataset.items.list()] == ["good"]


async def test_missing_files_and_folders_in_a_batch_are_refused_with_what_to_do(
    dataset: AsyncDataset, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "good").write_bytes(b"1")
    outcomes: dict[str, Outcome] = {}
    await dataset.upload(
        [tmp_path / "gone", tmp_path / "folder", tmp_path / "good"],
        on_outcome=lambda outcome: outcomes.update({outcome.name: outcome}),
    )
    assert isinstance(outcomes["gone"].error, SourceNotFound)
    assert isinstance(outcomes["folder"].error, SourceUnreadable)
    assert "dataset.upload" in str(outcomes["folder"].error)
    assert outcomes["good"].ok


async def test_names_of_sources_and_destinations_that_no_file_can_have_fail_alone(
    dataset: AsyncDataset, tmp_path: Path
) -> None:
    odd = [Path("nul\0"), Path("no unicode \ud800")]
    outcomes: list[Outcome] = []
    items = [ItemUpload(path, f"{number}") for number, path in enumerate(odd)]
    report = await dataset.upload([*items, ItemUpload(b"good", "good")], on_outcome=outcomes.append)
    assert (report.done, report.failed) == (1, 2)
    assert {type(outcome.error) for outcome in outcomes if not outcome.ok} == {SourceUnreadable}
    assert str(report.failures[1].error).encode()
    assert (await dataset.download(tmp_path / "nul\0")).failures_by_code == {"destination_unwritable": 1}


async def test_a_path_given_twice_is_refused_the_second_time(dataset: AsyncDataset) -> None:
    report = await dataset.upload([ItemUpload(b"1", "a"), ItemUpload(b"2", "a"), ItemUpload(b"3", "b")])
    assert (report.done, report.failures_by_code) == (2, {"conflict": 1})
    assert await (await dataset.items.get(path="a")).read() == b"1"


async def test_a_file_where_another_item_has_a_folder_is_refused(dataset: AsyncDataset) -> None:
    await dataset.upload([ItemUpload(b"1", "a/b")])
    report = await dataset.upload([ItemUpload(b"2", "a"), ItemUpload(b"3", "a/b/c"), ItemUpload(b"4", "a/c")])
    assert (report.done, report.failures_by_code) == (1, {"conflict": 2})


async def test_metadata_that_is_no_json_is_refused_and_the_rest_goes_on(dataset: AsyncDataset) -> None:
    bad: Any = [{"x": float("nan")}, {"x": object()}, {1: "x"}, {"x": 2**70}, {"x": "\ud800"}, ["a list"]]
    items = [ItemUpload(b"1", f"bad{n}", metadata) for n, metadata in enumerate(bad)]
    report = await dataset.upload([*items, ItemUpload(b"2", "good", {"x": [1, None, {"y": "z"}]})])
    assert (report.done, report.failures_by_code) == (1, {BadRequest.code: len(bad)})


async def test_patterns_hold_for_a_single_file_too(dataset: AsyncDataset, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"1")
    with pytest.raises(SourceNotFound, match="no file"):
        await dataset.upload(tmp_path / "a.txt", include=["*.jpg"])
    assert (await dataset.upload(tmp_path / "a.txt", include=["*.txt"])).done == 1


async def test_a_table_that_is_no_utf8_is_told_by_line(dataset: AsyncDataset, tmp_path: Path) -> None:
    write(tmp_path, {"a": b"1", "t.csv": b"source,note\na,fine\nb,\xe9\n"})
    report = await dataset.upload(ItemTable(tmp_path / "t.csv"))
    assert report.failures_by_code == {"invalid_row": 1}
    assert "UTF-8" in str(report.failures[0].error)


@pytest.mark.parametrize("kind", ["missing", "empty", "no match"])
async def test_a_folder_with_nothing_to_upload_says_so(dataset: AsyncDataset, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "folder"
    if kind != "missing":
        (folder / "sub").mkdir(parents=True)
    if kind == "no match":
        (folder / "a.txt").write_bytes(b"1")
    with pytest.raises(SourceNotFound, match=r"no file|no such folder"):
        await dataset.upload(folder, include=["*.jpg"] if kind == "no match" else None)


async def test_a_deleted_dataset_is_not_found(dataset: AsyncDataset, tmp_path: Path) -> None:
    await dataset.delete()
    with pytest.raises(NotFound):
        await dataset.upload([ItemUpload(b"1", "a")])
    with pytest.raises(NotFound):
        await dataset.download(tmp_path / "copy")


async def test_a_readonly_dataset_refuses_uploads(dataset: AsyncDataset) -> None:
    closed = await dataset.update(is_readonly=True)
    with pytest.raises(Conflict):
        await closed.upload([ItemUpload(b"1", "a")])


async def test_a_file_where_the_destination_needs_a_folder_fails_that_item_only(
    dataset: AsyncDataset, tmp_path: Path
) -> None:
    await dataset.upload([ItemUpload(b"1", "a/b"), ItemUpload(b"2", "c")])
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "a").write_bytes(b"a file")
    report = await dataset.download(tmp_path / "copy")
    assert (report.done, report.failures_by_code) == (1, {"destination_unwritable": 1})
    assert read(tmp_path / "copy") == {"a": b"a file", "c": b"2"}
