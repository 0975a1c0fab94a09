"""What users may give: items, tables, iterables; and the batches they become."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.engine import Refused
from asyncsdk.entities.globs import PathFilter
from asyncsdk.entities.item_source import batches_of
from asyncsdk.entities.item_uploads import ItemTable, ItemUpload
from asyncsdk.entities.recent import RecentNames
from asyncsdk.errors import ConfigError, InvalidRow


def rows_of(table: ItemTable) -> list[ItemUpload | Refused]:
    return list(table.rows())


def test_a_csv_table_takes_its_other_columns_as_metadata(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("source,path,weather\na.jpg,x/a.jpg,rain\nb.jpg,,sun\n")
    assert rows_of(ItemTable(tmp_path / "t.csv")) == [
        ItemUpload(tmp_path / "a.jpg", "x/a.jpg", {"weather": "rain"}),
        ItemUpload(tmp_path / "b.jpg", None, {"weather": "sun"}),
    ]


def test_a_csv_row_with_a_column_too_many_or_too_few_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("source,path\na.jpg\nb.jpg,b,c\nc.jpg,c\n")
    short, long, good = rows_of(ItemTable(tmp_path / "t.csv"))
    assert isinstance(short, Refused)
    assert isinstance(short.error, InvalidRow)
    assert short.error.line == 2
    assert isinstance(long, Refused)
    assert isinstance(good, ItemUpload)


def test_a_jsonl_table_refuses_bad_lines_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"source": "a", "n": 1}\nnope\n\n[1]\n{"path": "x"}\n{"source": "b"}\n')
    found = rows_of(ItemTable(tmp_path / "t.jsonl"))
    refused = [one.error for one in found if isinstance(one, Refused)]
    assert [error.line for error in refused if isinstance(error, InvalidRow)] == [2, 4, 5]
    assert [one.item_path for one in found if isinstance(one, ItemUpload)] == ["a", "b"]


def test_columns_and_data_frames_are_tables(tmp_path: Path) -> None:
    class Frame:
        def to_dict(self, orient: str) -> dict[str, list[Any]]:
            assert orient == "list"
            return {"source": ["a"], "label": [3]}

    expected = [ItemUpload(tmp_path / "a", None, {"label": 3})]
    assert rows_of(ItemTable({"source": ["a"], "label": [3]}, base=tmp_path)) == expected
    assert rows_of(ItemTable(Frame(), base=tmp_path)) == expected


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"path": ["a"]}, "column 'source'"),
        ({"source": ["a"], "n": [1, 2]}, "equally long"),
        ("t.parquet", r"\.csv"),
        (3, "data frame"),
    ],
)
def test_what_is_no_table_is_refused(table: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ItemTable(table)


async def all_of(source: Any, want: int = 10, **patterns: list[str]) -> list[list[Any]]:
    batches = batches_of(source, PathFilter(**patterns))
    result = []
    while batch := await batches.next(want):
        result.append(batch)
    await batches.aclose()
    return result


async def test_iterables_of_paths_and_items_are_filtered_and_cut_into_batches() -> None:
    items = [ItemUpload(b"x", f"{n}.txt") for n in range(5)] + ["y.jpg"]
    batches = await all_of(items, want=4, include=["*.txt"])
    assert [[one.item_path for one in batch] for batch in batches] == [["0.txt", "1.txt", "2.txt", "3.txt"], ["4.txt"]]


async def test_a_quiet_asynchronous_iterable_gives_what_came_without_waiting_for_more() -> None:
    more = asyncio.Event()

    async def items() -> AsyncIterator[ItemUpload]:
        yield ItemUpload(b"1", "1")
        yield ItemUpload(b"2", "2")
        await more.wait()
        yield ItemUpload(b"3", "3")

    batches = batches_of(items(), PathFilter())
    assert [one.item_path for one in await batches.next(10)] == ["1", "2"]  # type: ignore[union-attr]
    more.set()
    assert [one.item_path for one in await batches.next(10)] == ["3"]  # type: ignore[union-attr]
    assert await batches.next(10) == []
    await batches.aclose()


async def test_closing_closes_the_users_generator_even_while_it_waits() -> None:
    closed = asyncio.Event()

    async def items() -> AsyncIterator[ItemUpload]:
        try:
            yield ItemUpload(b"1", "1")
            await asyncio.Event().wait()
        finally:
            closed.set()

    batches = batches_of(items(), PathFilter())
    await batches.next(10)
    await batches.aclose()
    assert closed.is_set()


async def test_bytes_without_a_path_are_refused_and_the_rest_goes_on() -> None:
    ((refused, good),) = await all_of([ItemUpload(b"x"), ItemUpload(b"y", "y")])
    assert isinstance(refused, Refused)
    assert "path" in str(refused.error)
    assert isinstance(good, ItemUpload)


@pytest.mark.parametrize("source", [b"bytes", 3, None])
def test_what_cannot_be_uploaded_is_refused(source: Any) -> None:
    with pytest.raises(ConfigError):
        batches_of(source, PathFilter())


def test_an_open_file_is_not_taken_for_lines() -> None:
    with pytest.raises(ConfigError, match="ItemUpload"):
        batches_of(io.BytesIO(b"a\nb\n"), PathFilter())  # type: ignore[arg-type]


def test_recent_names_remembers_a_window_and_stays_small() -> None:
    recent = RecentNames(window=100)
    assert all(recent.add(str(number)) for number in range(1000))
    assert not any(recent.add(str(number)) for number in range(950, 1000))
    assert recent.add("0")
    recent.discard(["999"])
    assert recent.add("999")
    assert len(recent._current) + len(recent._previous) <= 200
