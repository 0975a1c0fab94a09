"""Annotations: made in bulk, once; listed by dataset and by item; gone with what they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from asyncsdk.domain.filters import AllOf, Condition
from asyncsdk.domain.ids import make_id
from asyncsdk.domain.shapes import Box, Polygon, UnknownShape
from asyncsdk.errors import Conflict, NotFound
from asyncsdk.platforms.base import Platform
from asyncsdk.protocol.annotations import (
    AnnotationEntry,
    AnnotationRecord,
    CreateAnnotations,
    CreatedAnnotation,
    DeleteAnnotations,
    ListAnnotations,
)
from asyncsdk.protocol.datasets import DatasetRecord, DeleteDataset, UpdateDataset
from asyncsdk.protocol.items import DeleteItems
from tests.support.messages import new_dataset, upload

BOX = Box(x=0.1, y=0.2, width=0.3, height=0.4, unit="relative")
OUTLINE = Polygon(points=((0, 0), (10.5, 0), (5, 7)))
CUBE = UnknownShape.model_validate({"kind": "cube", "corners": [[1, 2, 3]]})


@pytest.fixture
async def item_ids(platform: Platform, dataset: DatasetRecord) -> list[str]:
    """Two items."""
    replies = await upload(platform, dataset.id, {"a.jpg": b"a", "b.jpg": b"b"})
    return [str(reply.item_id) for reply in replies]


def entry(item_id: str, label: str = "cat", **facts: Any) -> AnnotationEntry:
    return AnnotationEntry(**{"annotation_id": make_id(), "item_id": item_id, "label": label, "shape": BOX, **facts})


async def create(platform: Platform, dataset: DatasetRecord, *entries: AnnotationEntry) -> Sequence[CreatedAnnotation]:
    return (await platform.send(CreateAnnotations(dataset_id=dataset.id, entries=entries))).entries


async def list_all(platform: Platform, dataset: DatasetRecord, **facts: Any) -> list[AnnotationRecord]:
    return list((await platform.send(ListAnnotations(dataset_id=dataset.id, **facts))).entries)


async def test_every_shape_comes_back_as_it_was(
    platform: Platform, dataset: DatasetRecord, item_ids: list[str]
) -> None:
    """Also of kinds that this release does not know; labels are any text."""
    given = [
        entry(item_ids[0], "Desk/Table", shape=BOX, metadata={"by": "hand"}),
        entry(item_ids[0], " ", shape=OUTLINE),
        entry(item_ids[1], "ä" * 255, shape=CUBE),
    ]
    replies = await create(platform, dataset, *given)
    assert [reply.verdict for reply in replies] == ["created"] * 3
    found = {record.id: record for record in await list_all(platform, dataset)}
    assert list(found) == sorted(found)
    for wanted in given:
        record = found[wanted.annotation_id]
        assert (record.dataset_id, record.item_id, record.label) == (dataset.id, wanted.item_id, wanted.label)
        assert (record.shape, record.metadata) == (wanted.shape, wanted.metadata)
        assert record.created_by is not None


async def test_making_them_again_changes_nothing(
    platform: Platform, dataset: DatasetRecord, item_ids: list[str]
) -> None:
    """By their ids; also twice in one message."""
    one = entry(item_ids[0])
    assert [reply.verdict for reply in await create(platform, dataset, one, one)] == ["created", "exists"]
    before = await list_all(platform, dataset)
    assert [reply.verdict for reply in await create(platform, dataset, one)] == ["exists"]
    assert await list_all(platform, dataset) == before


async def test_entries_are_judged_one_by_one(platform: Platform, dataset: DatasetRecord, item_ids: list[str]) -> None:
    """No such item, an item of another dataset, an id that is taken; the others are made."""
    other = await new_dataset(platform, "other")
    (foreign,) = await upload(platform, other.id, {"x.jpg": b"x"})
    taken = entry(item_ids[0])
    await create(platform, dataset, taken)
    replies = await create(
        platform,
        dataset,
        entry(make_id()),
        entry(str(foreign.item_id)),
        entry(item_ids[0], "dog", annotation_id=taken.annotation_id),
        entry(item_ids[1], annotation_id=taken.annotation_id),
        entry(item_ids[1]),
    )
    assert [reply.verdict for reply in replies] == ["refused"] * 4 + ["created"]
    codes = [reply.problem.code for reply in replies if reply.problem is not None]
    assert codes == ["not_found", "not_found", "conflict", "conflict"]
    assert len(await list_all(platform, dataset)) == 2


async def test_they_are_listed_by_item_label_kind_and_metadata(
    platform: Platform, dataset: DatasetRecord, item_ids: list[str]
) -> None:
    """With pages, filters and sorting as every listing."""
    await create(
        platform,
        dataset,
        entry(item_ids[0], "cat", metadata={"n": 1}),
        entry(item_ids[0], "dog", shape=OUTLINE),
        entry(item_ids[1], "cat", shape=CUBE),
    )
    assert {one.label for one in await list_all(platform, dataset, item_id=item_ids[0])} == {"cat", "dog"}
    for condition, count in (
        (Condition("label", "eq", "cat"), 2),
        (Condition("kind", "eq", "polygon"), 1),
        (Condition("item_id", "in", item_ids), 3),
        (Condition("metadata.n", "eq", 1), 1),
    ):
        assert len(await list_all(platform, dataset, filter=condition)) == count
    both = AllOf([Condition("item_id", "eq", item_ids[0]), Condition("kind", "eq", "box")])
    assert [one.label for one in await list_all(platform, dataset, filter=both)] == ["cat"]
    other = await new_dataset(platform, "other")
    assert await list_all(platform, other, filter=both) == []
    assert await list_all(platform, other, item_id=item_ids[0]) == []
    page = await platform.send(ListAnnotations(dataset_id=dataset.id, sort=("-label", "id"), limit=2, total=True))
    assert (page.total, page.entries[0].label) == (3, "dog")
    rest = await platform.send(
        ListAnnotations(dataset_id=dataset.id, sort=("-label", "id"), limit=2, cursor=page.cursor)
    )
    assert [one.label for one in rest.entries] == ["cat"]


async def test_deleting_counts_what_was_there(platform: Platform, dataset: DatasetRecord, item_ids: list[str]) -> None:
    """Unknown ids, and those of other datasets, are passed over."""
    one, two = entry(item_ids[0]), entry(item_ids[0])
    await create(platform, dataset, one, two)
    other = await new_dataset(platform, "other")
    ids = (one.annotation_id, one.annotation_id, make_id())
    assert (await platform.send(DeleteAnnotations(dataset_id=other.id, annotation_ids=ids))).count == 0
    assert (await platform.send(DeleteAnnotations(dataset_id=dataset.id, annotation_ids=ids))).count == 1
    assert [found.id for found in await list_all(platform, dataset)] == [two.annotation_id]


async def test_they_go_with_their_item_and_dataset(
    platform: Platform, dataset: DatasetRecord, item_ids: list[str]
) -> None:
    """And do not keep either from being deleted."""
    await create(platform, dataset, entry(item_ids[0]), entry(item_ids[1]))
    await platform.send(DeleteItems(dataset_id=dataset.id, item_ids=(item_ids[0],)))
    assert [found.item_id for found in await list_all(platform, dataset)] == [item_ids[1]]
    await platform.send(DeleteDataset(dataset_id=dataset.id))
    with pytest.raises(NotFound):
        await list_all(platform, dataset)


async def test_a_read_only_dataset_keeps_its_annotations(
    platform: Platform, dataset: DatasetRecord, item_ids: list[str]
) -> None:
    """None is made, none deleted; they can be listed."""
    one = entry(item_ids[0])
    await create(platform, dataset, one)
    await platform.send(UpdateDataset(dataset_id=dataset.id, is_readonly=True))
    with pytest.raises(Conflict, match="read-only"):
        await create(platform, dataset, entry(item_ids[0]))
    with pytest.raises(Conflict, match="read-only"):
        await platform.send(DeleteAnnotations(dataset_id=dataset.id, annotation_ids=(one.annotation_id,)))
    assert len(await list_all(platform, dataset)) == 1
