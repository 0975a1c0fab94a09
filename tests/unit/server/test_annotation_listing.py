"""Annotations of one item are found without reading those of all others."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from asyncsdk.domain.filters import AllOf, Condition, Filter
from asyncsdk.platforms.embedded import EmbeddedPlatform
from asyncsdk.protocol.annotations import ListAnnotations
from tests.support.messages import new_dataset

ITEM = "1" * 24


@pytest.mark.parametrize(
    ("item_id", "wanted"),
    [
        (ITEM, None),
        (None, Condition("item_id", "eq", ITEM)),
        (None, Condition("item_id", "in", [ITEM, "2" * 24])),
        (None, AllOf([Condition("label", "eq", "cat"), Condition("item_id", "in", [ITEM])])),
    ],
)
async def test_the_index_of_items_is_used(tmp_path: Path, item_id: str | None, wanted: Filter | None) -> None:
    """However the item is named; the index of datasets would read the whole dataset."""
    platform = EmbeddedPlatform(tmp_path / "data")
    try:
        dataset = await new_dataset(platform)
        plans: list[str] = []

        def explain(connection: object, cursor: object, statement: str, parameters: object, *_: object) -> None:
            if "FROM annotations" in statement and not statement.startswith("EXPLAIN"):
                found = connection.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)  # type: ignore[attr-defined]
                plans.extend(row[3] for row in found)

        event.listen(Engine, "before_cursor_execute", explain)
        try:
            await platform.send(ListAnnotations(dataset_id=dataset.id, item_id=item_id, filter=wanted))
        finally:
            event.remove(Engine, "before_cursor_execute", explain)
        assert any("annotations_by_item" in plan for plan in plans), plans
    finally:
        await platform.aclose()
