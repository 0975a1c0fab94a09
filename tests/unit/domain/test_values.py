"""Ids, names, paths, filters, checksums, prediction rows."""

from __future__ import annotations

import math
import re
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from asyncsdk.checksums import Crc32c, combine_crc32c, crc32c, crc32c_base64, crc32c_from_base64, crc32c_hex
from asyncsdk.domain.filters import AllOf, AnyOf, Condition, Filter, Not
from asyncsdk.domain.ids import is_id, make_id, time_of_id
from asyncsdk.domain.paths import check_item_path, check_name, path_below
from asyncsdk.domain.predictions import check_prediction_row
from asyncsdk.errors import InvalidName


def test_ids_sort_in_the_order_they_were_made_over_threads_and_never_repeat() -> None:
    made: list[list[str]] = [[] for _ in range(4)]

    def make(into: list[str]) -> None:
        into.extend(make_id() for _ in range(5000))

    threads = [threading.Thread(target=make, args=(into,)) for into in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [one for into in made for one in into]
    assert len(set(everything)) == len(everything)
    assert all(into == sorted(into) for into in made)
    assert all(map(is_id, everything))


def test_the_first_eight_digits_of_an_id_are_seconds() -> None:
    before = int(time.time())
    made = make_id()
    assert before <= int(made[:8], 16) <= int(time.time())
    assert before * 1000 <= time_of_id(made) <= time.time() * 1000


def test_crc32c_has_the_check_value_of_the_standard() -> None:
    """RFC 3720 B.4 gives 32 bytes of zeros as aa 36 91 8a (little endian)."""
    assert crc32c_hex(crc32c(b"123456789")) == "e3069283"
    assert crc32c_hex(crc32c(bytes(32))) == "8a9136aa"
    assert crc32c_from_base64(crc32c_base64(crc32c(b"x"))) == crc32c(b"x")
    with pytest.raises(ValueError, match="4 bytes"):
        crc32c_from_base64("AAAA")


@given(st.lists(st.binary(max_size=200), max_size=8))
def test_checksums_of_parts_combine_to_that_of_the_whole(parts: list[bytes]) -> None:
    whole = 0
    running = Crc32c()
    for part in parts:
        whole = combine_crc32c(whole, crc32c(part), len(part))
        running.update(part)
    assert whole == crc32c(b"".join(parts)) == running.value


def test_checksums_of_huge_parts_combine() -> None:
    assert combine_crc32c(crc32c(b"a"), crc32c(bytes(3_000_001)), 3_000_001) == crc32c(b"a" + bytes(3_000_001))


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/a",
        "a//b",
        "a/./b",
        "../a",
        "a/..",
        ".",
        "..",
        "a/",
        "a\0b",
        "a\nb",
        "a\x7f",
        "x" * 256,
        "é" * 128,
        "a/" * 600 + "b",
        "\udcff",
    ],
)
def test_paths_that_could_not_come_back_as_files_are_refused(path: str) -> None:
    with pytest.raises(InvalidName):
        check_item_path(path)


@pytest.mark.parametrize("path", ["a", "a/b", ".hidden", "...", "a b", "é" * 127, "x" * 255, "~", "-", "a\\b", "CON"])
def test_paths_that_posix_allows_are_kept_as_they_are(path: str) -> None:
    assert check_item_path(path) == path


SEGMENTS = st.one_of(
    st.sampled_from(["..", ".", "", "~", "a", "...", "..a", "a..", "C:", "\\", "..\\", "\0", " "]), st.text(max_size=8)
)


@given(st.one_of(st.lists(SEGMENTS, max_size=6).map("/".join), st.text(max_size=40)))
@example("/x")
@example("a/../../x")
def test_no_path_ever_leaves_the_folder(path: str) -> None:
    """Whatever a path is made of: what is let through lies below, under its own name."""
    folder = Path("/base/folder")
    try:
        result = path_below(folder, path)
    except InvalidName:
        return
    assert Path("/base/folder") in result.parents
    assert ".." not in result.parts
    assert str(result.relative_to(folder)) == path


@pytest.mark.parametrize("name", ["", " a", "a ", "a/b", "a\nb", "x" * 256, "\ud800"])
def test_names_that_cannot_name_an_entity_are_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        check_name(name)


def test_filters_survive_json() -> None:
    given_filter = AllOf(
        [
            Condition("size_bytes", "gt", 3),
            AnyOf([Condition("metadata.a.b", "in", [1, "x"]), Not(Condition("path", "prefix", "p"))]),
        ]
    )
    adapter: TypeAdapter[Any] = TypeAdapter(Filter)
    assert adapter.validate_json(given_filter.model_dump_json()) == given_filter


@pytest.mark.parametrize(
    ("field", "op", "value"),
    [
        ("a", "in", "x"),
        ("a", "exists", 1),
        ("a", "prefix", 3),
        ("a", "gt", None),
        ("a", "eq", [1]),
        ("a; drop", "eq", 1),
        ("metadata", "like", 1),
    ],
)
def test_conditions_that_make_no_sense_are_refused(field: str, op: Any, value: Any) -> None:
    with pytest.raises(ValidationError):
        Condition(field, op, value)


@pytest.mark.parametrize(
    "text",
    [
        '{"kind":"condition","field":"a"}',
        '{"kind":"condition","field":"a","op":"in","value":{"k":1}}',
        '{"kind":"condition","field":"a","op":"eq","value":1,"self":1}',
        '{"kind":"condition","field":"a","op":"eq","value":1,"values":1}',
        '{"kind":"all"}',
        '{"kind":"all","parts":5}',
        '{"kind":"any","parts":"ab"}',
        '{"kind":"any","parts":[{"kind":"all","parts":null}]}',
        '{"kind":"not"}',
        '{"kind":"not","part":[]}',
        '{"kind":"other"}',
    ],
)
def test_filters_that_lack_something_or_hold_too_much_are_refused(text: str) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(Filter)
    with pytest.raises(ValidationError):
        adapter.validate_json(text)


def test_filters_take_their_facts_in_order_or_by_name_and_any_sequence() -> None:
    assert Condition("a", "in", range(3)) == Condition(field="a", op="in", value=[0, 1, 2])
    one = Condition("a", "eq", True)
    assert one.value is True
    assert Condition("a", "eq", 1).value is not True
    assert AllOf(deque([one])) == AllOf(parts=[one]) == AllOf((one,))
    assert Not(one) == Not(part=one)
    with pytest.raises(TypeError):
        Not(one, one)  # type: ignore[call-arg]


GOOD = {"path": "a", "predictions": [{"category": "car", "score": 0.5, "bbox": [0, 0, 1, 1]}]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (GOOD, None),
        ({**GOOD, "predictions": []}, None),
        ("text", "object"),
        (None, "nothing"),
        ({"predictions": []}, "'path'"),
        ({"path": "a"}, "'predictions'"),
        ({**GOOD, "score": 1}, "unknown key 'score'"),
        ({"path": "a", "predictions": ["x"]}, r"predictions\[0\]"),
        ({"path": "a", "predictions": [{"score": 1, "bbox": [0, 0, 1, 1]}]}, "'category'"),
        ({"path": "a", "predictions": [{"category": "cat", "score": 1, "bbox": [0, 0, 1, 1]}]}, "no category"),
        ({"path": "a", "predictions": [{"category": "car", "bbox": [0, 0, 1, 1]}]}, "'score'"),
        ({"path": "a", "predictions": [{"category": "car", "score": True, "bbox": [0, 0, 1, 1]}]}, "'score'"),
        ({"path": "a", "predictions": [{"category": "car", "score": 1.01, "bbox": [0, 0, 1, 1]}]}, "between 0 and 1"),
        ({"path": "a", "predictions": [{"category": "car", "score": math.nan, "bbox": [0, 0, 1, 1]}]}, "'score'"),
        ({"path": "a", "predictions": [{"category": "car", "score": 1}]}, "'bbox' is missing"),
        ({"path": "a", "predictions": [{"category": "car", "score": 1, "bbox": [0, 0, 1]}]}, "four numbers"),
        ({"path": "a", "predictions": [{"category": "car", "score": 1, "bbox": [0, 0, -1, 1]}]}, "negative"),
    ],
)
def test_prediction_rows_say_what_is_wrong(row: Any, reason: str | None) -> None:
    found = check_prediction_row(row, kind="object-detection", categories={"car"})
    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert re.search(reason, found)
