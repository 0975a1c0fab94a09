"""Prediction rows: inline and in parts, good and bad ones, on every platform the same."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from asyncsdk.domain.filters import Condition
from asyncsdk.errors import BadRequest, Conflict, NotFound, PermissionDenied
from asyncsdk.platforms.base import Platform
from asyncsdk.protocol.datasets import DatasetRecord
from asyncsdk.protocol.items import DeleteItems
from asyncsdk.protocol.predictions import (
    CommitPredictionParts,
    CreatePredictionTask,
    DeletePredictionTask,
    IngestedRows,
    ListPredictions,
    PrepareRowParts,
    RowPart,
    SentRowPart,
    UploadPredictionRows,
)
from tests.support.messages import Stored, checksum, list_all, new_dataset, put, upload

BOX = {"category": "car", "score": 0.5, "bbox": [1, 2, 3.5, 4]}


@pytest.fixture
async def dataset(platform: Platform) -> DatasetRecord:
    """Five items and a task to detect cars and persons."""
    dataset = await new_dataset(platform)
    await upload(platform, dataset.id, {f"{n}.jpg": f"{n}".encode() for n in range(5)})
    await platform.send(
        CreatePredictionTask(
            dataset_id=dataset.id, name="detect", kind="object-detection", categories=("car", "person")
        )
    )
    return dataset


def row(name: str, *predictions: Any) -> dict[str, Any]:
    return {"path": name, "predictions": list(predictions) or [BOX]}


async def send_part(platform: Platform, dataset_id: str, content: bytes, first_line: int = 1) -> SentRowPart:
    facts: dict[str, Any] = {"size_bytes": len(content), "crc32c": checksum(content)}
    prepared = await platform.send(PrepareRowParts(dataset_id=dataset_id, parts=(RowPart(**facts),)))
    await put(prepared.entries[0].target, content)
    return SentRowPart(key=prepared.entries[0].key, first_line=first_line, **facts)


def ndjson(*rows: Any) -> bytes:
    return b"".join(line if isinstance(line, bytes) else orjson.dumps(line) + b"\n" for line in rows)


async def inline(platform: Platform, dataset_id: str, *rows: Any, **facts: Any) -> IngestedRows:
    return await platform.send(UploadPredictionRows(dataset_id=dataset_id, task="detect", rows=rows, **facts))


async def stored(platform: Platform, dataset_id: str, **facts: Any) -> dict[str, tuple[Any, ...]]:
    found: dict[str, tuple[Any, ...]] = {}
    cursor = None
    while True:
        page = await platform.send(
            ListPredictions(dataset_id=dataset_id, task="detect", limit=2, cursor=cursor, **facts)
        )
        found.update({entry.path: entry.predictions for entry in page.entries})
        cursor = page.cursor
        if cursor is None:
            return found


async def test_rows_come_back_by_position(platform: Platform, dataset: DatasetRecord) -> None:
    """Whatever order they came in, with every key they had."""
    rich = {**BOX, "mask": {"counts": [1, 2]}, "note": "\u00e9", "none": None}
    reply = await inline(
        platform, dataset.id, row("4.jpg"), row("0.jpg", rich, BOX), {"path": "2.jpg", "predictions": []}
    )
    assert (reply.accepted, reply.refused, reply.problems) == (3, 0, ())
    found = await stored(platform, dataset.id)
    assert found == {"0.jpg": (rich, BOX), "2.jpg": (), "4.jpg": (BOX,)}
    assert list(found) == ["0.jpg", "2.jpg", "4.jpg"]
    items = {item.path: item.id for item in await list_all(platform, dataset.id)}
    (entry,) = (
        await platform.send(
            ListPredictions(dataset_id=dataset.id, task="detect", filter=Condition("path", "eq", "4.jpg"))
        )
    ).entries
    assert entry.item_id == items["4.jpg"]


async def test_a_later_row_for_an_item_replaces_the_earlier(platform: Platform, dataset: DatasetRecord) -> None:
    person = {**BOX, "category": "person"}
    await inline(platform, dataset.id, row("0.jpg"))
    reply = await inline(platform, dataset.id, row("0.jpg", BOX, BOX), row("0.jpg", person))
    assert reply.accepted == 2
    assert await stored(platform, dataset.id) == {"0.jpg": (person,)}


BAD_ROWS: list[tuple[Any, str]] = [
    ({"path": "no.jpg", "predictions": []}, "no item 'no.jpg'"),
    ("text", "object"),
    ([1], "object"),
    ({}, "path"),
    ({"path": "0.jpg"}, "predictions"),
    (row("0.jpg", {**BOX, "category": "dog"}), "dog"),
    (row("0.jpg", {**BOX, "score": 2}), "score"),
    (row("0.jpg", {**BOX, "bbox": [1, 2, 3]}), "bbox"),
    (row("0.jpg", {"category": "car", "score": 1}), "bbox"),
    ({**row("0.jpg"), "extra": 1}, "extra"),
]


async def test_bad_rows_are_told_by_line_and_stop_nothing(platform: Platform, dataset: DatasetRecord) -> None:
    bad = [what for what, _ in BAD_ROWS]
    reply = await inline(platform, dataset.id, row("0.jpg"), *bad, row("1.jpg"), first_line=10)
    assert (reply.accepted, reply.refused) == (2, len(bad))
    assert [problem.line for problem in reply.problems] == list(range(11, 11 + len(bad)))
    assert {problem.code for problem in reply.problems} == {"invalid_row"}
    for problem, (_, said) in zip(reply.problems, BAD_ROWS, strict=True):
        assert said in problem.message
    assert set(await stored(platform, dataset.id)) == {"0.jpg", "1.jpg"}


async def test_none_among_rows_stands_for_a_blank_line(platform: Platform, dataset: DatasetRecord) -> None:
    """It counts and is no row, as in a file."""
    reply = await inline(platform, dataset.id, row("0.jpg"), None, row("no.jpg"))
    assert (reply.accepted, [problem.line for problem in reply.problems]) == (1, [3])


async def test_numbers_that_json_does_not_have_are_refused(platform: Platform, dataset: DatasetRecord) -> None:
    """In rows from memory as in parts: they would come back as null."""
    content = b'{"path": "0.jpg", "predictions": [{"category": "car", "score": NaN, "bbox": [0, 0, 1, 1]}]}\n'
    part = await send_part(platform, dataset.id, content)
    reply = await platform.send(CommitPredictionParts(dataset_id=dataset.id, task="detect", parts=(part,)))
    assert (reply.accepted, reply.refused) == (0, 1)
    assert "JSON" in reply.problems[0].message
    if platform.name == "embedded":
        odd = row("0.jpg", {**BOX, "note": float("nan")})
        reply = await inline(platform, dataset.id, odd, row("1.jpg", {**BOX, "note": {1, 2}}))
        assert (reply.accepted, reply.refused) == (0, 2)
    assert await stored(platform, dataset.id) == {}


async def test_parts_are_stored_and_lines_counted_across_them(
    platform: Platform, dataset: DatasetRecord, count_objects: Stored
) -> None:
    """Blank lines count and are no rows; the last line needs no end; the parts are removed."""
    before = count_objects()
    first = await send_part(platform, dataset.id, ndjson(row("0.jpg"), b"\n", b"  \r\n", b"{broken\n", row("1.jpg")))
    second = await send_part(platform, dataset.id, ndjson(row("9.jpg"), row("2.jpg")).rstrip(), first_line=6)
    message = CommitPredictionParts(dataset_id=dataset.id, task="detect", parts=(first, second))
    reply = await platform.send(message)
    assert (reply.accepted, reply.refused) == (3, 2)
    assert [problem.line for problem in reply.problems] == [4, 6]
    assert set(await stored(platform, dataset.id)) == {"0.jpg", "1.jpg", "2.jpg"}
    assert count_objects() == before


async def test_a_row_nested_too_deeply_to_be_stored_is_refused_alone(
    platform: Platform, dataset: DatasetRecord
) -> None:
    """JSON can be read 1,024 levels deep and written 254."""

    def nested(levels: int) -> bytes:
        deep = b"[" * levels + b"]" * levels
        return b'{"path":"1.jpg","predictions":[{"category":"car","score":1,"bbox":[1,2,3,4],"x":' + deep + b"}]}\n"

    part = await send_part(platform, dataset.id, ndjson(row("0.jpg"), nested(251), nested(300), row("2.jpg")))
    result = await platform.send(CommitPredictionParts(dataset_id=dataset.id, task="detect", parts=(part,)))
    assert (result.accepted, result.refused) == (3, 1)
    assert [problem.line for problem in result.problems] == [3]
    page = await platform.send(ListPredictions(dataset_id=dataset.id, task="detect"))
    assert [one.path for one in page.entries] == ["0.jpg", "1.jpg", "2.jpg"]


async def test_committing_parts_again_gives_the_same_answer(platform: Platform, dataset: DatasetRecord) -> None:
    """Although they are gone; and what was stored since is not overwritten."""
    part = await send_part(platform, dataset.id, ndjson(row("0.jpg"), b"[]\n"))
    message = CommitPredictionParts(dataset_id=dataset.id, task="detect", parts=(part,))
    reply = await platform.send(message)
    person = {**BOX, "category": "person"}
    await inline(platform, dataset.id, row("0.jpg", person))
    assert await platform.send(message) == reply
    assert await stored(platform, dataset.id) == {"0.jpg": (person,)}


async def test_parts_that_cannot_be_stored_are_refused(platform: Platform, dataset: DatasetRecord) -> None:
    """Never sent, of another dataset, or of another size: nothing of the call is stored."""
    good = await send_part(platform, dataset.id, ndjson(row("0.jpg")))
    other = await new_dataset(platform, "other")
    foreign = await send_part(platform, other.id, ndjson(row("1.jpg")))
    for bad, error in (
        (foreign, PermissionDenied),
        (good.model_copy(update={"size_bytes": 1}), NotFound),
        (good.model_copy(update={"crc32c": "00000000"}), (NotFound, BadRequest)),  # in a bucket: other bytes
    ):
        with pytest.raises(error):
            await platform.send(CommitPredictionParts(dataset_id=dataset.id, task="detect", parts=(good, bad))
                                if bad is foreign else
                                CommitPredictionParts(dataset_id=dataset.id, task="detect", parts=(bad,)))  # fmt: skip
    assert await stored(platform, dataset.id) == {}
    with pytest.raises(NotFound, match="'nothing'"):
        await platform.send(CommitPredictionParts(dataset_id=dataset.id, task="nothing", parts=(good,)))
    reply = await platform.send(CommitPredictionParts(dataset_id=dataset.id, task="detect", parts=(good,)))
    assert reply.accepted == 1


async def test_problems_are_bounded(platform: Platform, dataset: DatasetRecord) -> None:
    """The first 1,000 in full, the rest counted; over more rows than one batch."""
    rows = [row("no.jpg", BOX)] * 3000 + [row("0.jpg")] + [row("no.jpg")] * 3000
    part = await send_part(platform, dataset.id, ndjson(*rows))
    reply = await platform.send(CommitPredictionParts(dataset_id=dataset.id, task="detect", parts=(part,)))
    assert (reply.accepted, reply.refused, len(reply.problems)) == (1, 6000, 1000)
    assert [problem.line for problem in reply.problems] == list(range(1, 1001))


async def test_tasks_keep_their_rows_apart(platform: Platform, dataset: DatasetRecord) -> None:
    other = await platform.send(
        CreatePredictionTask(dataset_id=dataset.id, name="classify", kind="classification", categories=("x",))
    )
    rows = (row("0.jpg", {"category": "x", "score": 1}),)
    await platform.send(UploadPredictionRows(dataset_id=dataset.id, task="classify", rows=rows))
    await inline(platform, dataset.id, row("0.jpg"), row("1.jpg"))
    await platform.send(DeletePredictionTask(dataset_id=dataset.id, task_id=other.id))
    assert set(await stored(platform, dataset.id)) == {"0.jpg", "1.jpg"}
    for message in (
        ListPredictions(dataset_id=dataset.id, task="classify"),
        UploadPredictionRows(dataset_id=dataset.id, task="classify", rows=rows),
    ):
        with pytest.raises(NotFound, match="classify"):
            await platform.send(message)


async def test_predictions_go_with_their_item(platform: Platform, dataset: DatasetRecord) -> None:
    await inline(platform, dataset.id, row("0.jpg"), row("1.jpg"))
    first = (await list_all(platform, dataset.id))[0]
    await platform.send(DeleteItems(dataset_id=dataset.id, item_ids=(first.id,)))
    assert set(await stored(platform, dataset.id)) == {"1.jpg"}


async def test_the_listing_says_what_it_can_be_sorted_by(platform: Platform, dataset: DatasetRecord) -> None:
    await inline(platform, dataset.id, row("0.jpg"), row("1.jpg"), row("2.jpg"))
    assert list(await stored(platform, dataset.id, sort=("-path",))) == ["2.jpg", "1.jpg", "0.jpg"]
    with pytest.raises(BadRequest, match="item_id, path, position, updated_at"):
        await stored(platform, dataset.id, sort=("score",))


async def test_rows_for_a_task_that_is_taken_by_name_only(platform: Platform, dataset: DatasetRecord) -> None:
    """Names are exact: another case is another task."""
    with pytest.raises(NotFound):
        await platform.send(UploadPredictionRows(dataset_id=dataset.id, task="Detect", rows=(row("0.jpg"),)))
    with pytest.raises(Conflict):
        await platform.send(
            CreatePredictionTask(dataset_id=dataset.id, name="detect", kind="classification", categories=("x",))
        )
