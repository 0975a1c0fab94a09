"""Packing rows: every line once, numbers kept, memory of one part."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsdk.entities.rows import PackedPart, decode_part, pack_rows
from asyncsdk.errors import ConfigError, SourceNotFound, SourceUnreadable


async def parts_of(rows: Any, part_bytes: int = 100) -> list[PackedPart]:
    return [part async for part in pack_rows(rows, part_bytes=part_bytes)]


@given(st.lists(st.dictionaries(st.text(max_size=3), st.integers(0, 2**53), max_size=4), max_size=60))
async def test_the_parts_of_objects_joined_are_the_objects(rows: list[dict[str, int]]) -> None:
    parts = await parts_of(rows)
    assert [orjson.loads(line) for part in parts for line in part.data.splitlines()] == rows
    assert sum(part.rows for part in parts) == len(rows)
    line = 1
    for part in parts:
        assert part.first_line == line
        line += part.lines


@given(st.lists(st.sampled_from([b'{"path": "a"}', b"", b"   ", b"not json", b'{"x": [1,2,3]}']), max_size=40))
async def test_lines_of_a_file_keep_their_bytes_and_numbers(tmp_path_factory: Any, lines: list[bytes]) -> None:
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    file.write_bytes(b"\n".join(lines))
    parts = await parts_of(file)
    packed = [line for part in parts for line in part.data[:-1].split(b"\n")]
    expected = lines[:-1] if lines and lines[-1] == b"" else lines
    assert packed == expected
    assert sum(part.rows for part in parts) == sum(not (not line or line.isspace()) for line in expected)


async def test_parts_stay_near_the_wanted_size() -> None:
    parts = await parts_of([{"path": "x" * 50}] * 1000, part_bytes=10_000)
    assert len(parts) > 5
    assert all(len(part.data) < 10_000 + 100 for part in parts)
    assert all(len(part.data) >= 10_000 for part in parts[:-1])


async def test_a_row_that_is_no_json_value_is_a_problem_with_its_line_and_the_others_keep_theirs() -> None:
    (part,) = await parts_of([{"path": "a"}, {"path": object()}, {"path": "b"}], part_bytes=10_000)
    assert [problem.line for problem in part.problems] == [2]
    assert part.data == b'{"path":"a"}\n\n{"path":"b"}\n'
    assert (part.lines, part.rows) == (3, 2)


async def test_asynchronous_rows_are_packed_as_they_come() -> None:
    async def rows() -> AsyncIterator[dict[str, int]]:
        for number in range(3):
            yield {"n": number}

    (part,) = await parts_of(rows(), part_bytes=10_000)
    assert part.data == b'{"n":0}\n{"n":1}\n{"n":2}\n'


async def test_decoding_keeps_line_numbers() -> None:
    part = PackedPart(b'{"a":1}\n\nnope\n{"a":2}\n', 10, 4, 3)
    rows, problems = decode_part(part)
    assert rows == [{"a": 1}, None, None, {"a": 2}]
    assert [problem.line for problem in problems] == [12]


async def test_windows_line_ends_are_no_part_of_a_row(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"a":1}\r\n{"a":2}\r\n')
    (part,) = await parts_of(file, part_bytes=1000)
    assert part.data == b'{"a":1}\n{"a":2}\n'


async def test_a_missing_file_and_a_folder_say_so(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound):
        await parts_of(tmp_path / "gone.jsonl")
    with pytest.raises(SourceUnreadable, match="directory"):
        await parts_of(tmp_path)


@pytest.mark.parametrize("rows", [b"bytes", {"path": "a"}, 3])
async def test_what_holds_no_rows_is_refused(rows: Any) -> None:
    with pytest.raises(ConfigError, match="rows are"):
        await parts_of(rows)
