"""Prediction rows go up few or many, from objects or a file, and bad ones are told by line."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asyncsdk import AsyncClient, AsyncDataset, ItemUpload
from asyncsdk.errors import ConfigError, Conflict, InvalidRow, NotFound, SourceNotFound

ITEMS = 3000


@pytest.fixture
async def dataset(client: AsyncClient) -> AsyncDataset:
    dataset = await client.datasets.create("photos")
    report = await dataset.upload(ItemUpload(b"", f"{number}.jpg") for number in range(ITEMS))
    report.raise_for_failures()
    await dataset.prediction_tasks.create("detect", kind="object-detection", categories=["car", "person"])
    return dataset


def row(number: int, **more: Any) -> dict[str, Any]:
    box = {"category": "car", "score": 0.5, "bbox": [1, 2, 3.5, 4], **more}
    return {"path": f"{number}.jpg", "predictions": [box]}


async def test_few_rows_come_back_as_they_were_given(dataset: AsyncDataset) -> None:
    report = await dataset.upload_predictions(
        "detect", [row(1, extra={"a": [1]}), {"path": "2.jpg", "predictions": []}]
    )
    assert (report.done, report.failed) == (2, 0)
    back = await dataset.predictions.list("detect").to_list()
    assert {one.path: list(one.predictions) for one in back} == {
        "1.jpg": row(1, extra={"a": [1]})["predictions"],
        "2.jpg": [],
    }


async def test_many_rows_travel_as_parts_and_come_back(dataset: AsyncDataset) -> None:
    """About 6 MiB: more than one part."""

    async def rows() -> AsyncIterator[dict[str, Any]]:
        for number in range(ITEMS):
            yield row(number, note="x" * 2000)

    (await dataset.upload_predictions("detect", rows())).raise_for_failures()
    back = {one.path: one async for one in dataset.predictions.list("detect")}
    assert len(back) == ITEMS
    assert all(len(one.predictions[0]["note"]) == 2000 for one in back.values())


@pytest.mark.parametrize("padding", [0, 3000], ids=["inline", "parts"])
async def test_bad_rows_are_told_by_line_and_the_others_are_stored(
    dataset: AsyncDataset, tmp_path: Path, padding: int
) -> None:
    lines = [json.dumps(row(number, note="x" * padding)) for number in range(200)]
    lines[3] = "not json"
    lines[7] = ""
    lines[50] = json.dumps(row(50, score=1.5))
    lines[60] = json.dumps(row(60, category="cat"))
    lines[70] = json.dumps({"path": "gone.jpg", "predictions": []})
    lines[80] = json.dumps({"path": "80.jpg", "predictions": [{"category": "car", "score": 0.1}]})
    lines[199] = json.dumps([1])
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(lines) + "\n")
    report = await dataset.upload_predictions("detect", file)
    assert (report.done, report.failed) == (200 - 7, 6)
    errors = [failure.error for failure in report.failures]
    assert all(isinstance(error, InvalidRow) for error in errors)
    assert sorted(error.line for error in errors if isinstance(error, InvalidRow)) == [4, 51, 61, 71, 81, 200]
    assert all(error.file == str(file) for error in errors if isinstance(error, InvalidRow))
    assert len(await dataset.predictions.list("detect").to_list()) == 193


async def test_a_row_for_an_item_replaces_the_earlier_one(dataset: AsyncDataset) -> None:
    await dataset.upload_predictions("detect", [row(1)])
    await dataset.upload_predictions("detect", [row(1, score=0.9), row(2)])
    assert (await dataset.predictions.get("detect", "1.jpg")).predictions[0]["score"] == 0.9
    with pytest.raises(NotFound):
        await dataset.predictions.get("detect", "3.jpg")


async def test_a_row_that_is_no_json_value_is_told_by_its_place(dataset: AsyncDataset) -> None:
    report = await dataset.upload_predictions("detect", [row(1), {"path": object()}, row(2)])  # type: ignore[dict-item]
    assert (report.done, report.failed) == (2, 1)
    assert isinstance(report.failures[0].error, InvalidRow)
    assert report.failures[0].error.line == 2


async def test_no_rows_at_all_are_fine(dataset: AsyncDataset, tmp_path: Path) -> None:
    assert (await dataset.upload_predictions("detect", [])).objects == 0
    (tmp_path / "empty.jsonl").write_bytes(b"")
    assert (await dataset.upload_predictions("detect", tmp_path / "empty.jsonl")).objects == 0
    (tmp_path / "blank.jsonl").write_bytes(b"\n\n")
    assert (await dataset.upload_predictions("detect", tmp_path / "blank.jsonl")).objects == 0


async def test_an_unknown_task_and_a_missing_file_say_so(dataset: AsyncDataset, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await dataset.upload_predictions("nope", [row(1)])
    with pytest.raises(SourceNotFound):
        await dataset.upload_predictions("detect", tmp_path / "gone.jsonl")
    with pytest.raises(NotFound):
        await dataset.predictions.list("nope").to_list()


async def test_tasks_are_named_versioned_and_deleted_with_their_rows(dataset: AsyncDataset) -> None:
    with pytest.raises(Conflict):
        await dataset.prediction_tasks.create("detect", kind="object-detection", categories=["car"])
    task = await dataset.prediction_tasks.create("detect", kind="classification", categories=["x"], exist_ok=True)
    assert (task.kind, task.version) == ("object-detection", 1)
    assert (await task.update(categories=["car", "person", "dog"])).version == 2
    await dataset.upload_predictions(task, [row(1, category="dog")])
    await task.delete()
    assert not await dataset.prediction_tasks.exists("detect")
    again = await dataset.prediction_tasks.create("detect", kind="object-detection", categories=["car"])
    assert await dataset.predictions.list(again).to_list() == []


async def test_one_text_for_categories_is_refused(dataset: AsyncDataset) -> None:
    with pytest.raises(ConfigError, match=r"\['car'\]"):
        await dataset.prediction_tasks.create("x", kind="classification", categories="car")
