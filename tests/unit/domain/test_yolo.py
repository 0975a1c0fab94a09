"""The text files of YOLO: lines, class names, key points, and which image a label file belongs to."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsdk.domain.formats.yolo import (
    YoloLabel,
    class_names,
    image_stem,
    is_image,
    key_points,
    label_stem,
    parse_labels,
    split_of,
)
from asyncsdk.domain.shapes import Box, Polygon, UnknownShape
from asyncsdk.errors import InvalidRow


def parse(text: str, **options: Any) -> list[YoloLabel | InvalidRow]:
    return list(parse_labels(text, file="a.txt", **options))


def test_boxes_and_polygons_are_told_by_their_numbers() -> None:
    """Four numbers are a box around a centre, six or more the points of an outline; both relative."""
    assert parse("0 0.5 0.5 0.5 0.25\n2.0 0 0 1 0 1 1\n") == [
        YoloLabel(0, 1, Box(x=0.25, y=0.375, width=0.5, height=0.25, unit="relative")),
        YoloLabel(2, 2, Polygon(points=((0, 0), (1, 0), (1, 1)), unit="relative")),
    ]


def test_empty_lines_and_comments_are_passed_over() -> None:
    """Whatever ends a line; numbers of lines count them."""
    assert [found.line for found in parse("\n# made by hand\r\n   \r\n1 .5 .5 .1 .1\n")] == [4]
    assert parse("") == []


def test_what_lies_a_little_outside_is_set_onto_the_edge() -> None:
    """Rounding of who wrote it costs no label, and a box that fits keeps its numbers to the last digit."""
    (box,) = parse("0 0.5 0.5 1.0002 0.3")
    assert isinstance(box, YoloLabel)
    assert isinstance(box.shape, Box)
    assert box.shape.corners == pytest.approx((0, 0.35, 1, 0.65))
    assert (box.shape.x, box.shape.width) == (0, 1)
    (box,) = parse("0 .5 .5 .2 .2")
    assert isinstance(box, YoloLabel)
    assert box.shape == Box(x=0.4, y=0.4, width=0.2, height=0.2, unit="relative")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("car .5 .5 .1 .1", "'car' is no number of a class"),
        ("-1 .5 .5 .1 .1", "no number of a class"),
        ("1.5 .5 .5 .1 .1", "no number of a class"),
        ("1_0 .5 .5 .1 .1", "no number of a class"),
        ("99999999999 .5 .5 .1 .1", "no number of a class"),
        ("0 .5 .5 .1", "3 numbers after the class"),
        ("0", "0 numbers after the class"),
        ("0 .5 .5 .1 .1 .9", "5 numbers after the class"),
        ("0 .1 .1 .2 .2 .3 .3 .4", "7 numbers after the class"),
        ("0 .5 .5 .1 big", "'big' is no number"),
        ("0 .5 .5 .1 nan", "no finite number"),
        ("0 .5 .5 .1 inf", "no finite number"),
        ("0 320 240 64 64", "320.0 lies outside"),
        ("0 .9 .5 .4 .1", "lies outside"),
        ("0 .5 .5 -.0005 .1", "negative"),
        ("0 0 0 1 0 1 1.5", "1.5 lies outside"),
    ],
)
def test_a_line_that_is_no_label_costs_itself(line: str, reason: str) -> None:
    """The error says file, line and why; the lines around it are read."""
    before, error, after = parse(f"0 .5 .5 .1 .1\n{line}\n0 .5 .5 .1 .1")
    assert isinstance(before, YoloLabel)
    assert isinstance(after, YoloLabel)
    assert isinstance(error, InvalidRow)
    assert (error.file, error.line) == ("a.txt", 2)
    assert reason in error.reason


@given(st.text(alphabet=st.characters(codec="utf-8")) | st.text("0123456789.-+e \n#_nainf", max_size=200))
def test_any_text_gives_labels_or_errors(text: str) -> None:
    """Nothing that stands in a file makes reading it fail, and every shape lies within its image."""
    for found in parse(text):
        if isinstance(found, YoloLabel):
            assert isinstance(found.shape, (Box, Polygon))
            box = found.shape if isinstance(found.shape, Box) else found.shape.bounds
            assert -1e-9 <= min(box.corners) <= max(box.corners) <= 1 + 1e-9


def test_poses_are_boxes_with_key_points() -> None:
    """Only where the dataset says so: otherwise the same numbers are an outline."""
    line = "0 .5 .5 .2 .2 .1 .2 .3 .4"
    (found,) = parse(line, points=(2, 2))
    assert isinstance(found, YoloLabel)
    assert found.shape == UnknownShape.model_validate(
        {"kind": "pose", "x": 0.4, "y": 0.4, "width": 0.2, "height": 0.2, "unit": "relative",
         "keypoints": [[0.1, 0.2], [0.3, 0.4]]}
    )  # fmt: skip
    (found,) = parse(line)
    assert isinstance(found, YoloLabel)
    assert isinstance(found.shape, Polygon)
    (error,) = parse(line, points=(17, 3))
    assert isinstance(error, InvalidRow)
    assert "17 x 3" in error.reason


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["cat", "dog"], {0: "cat", 1: "dog"}),
        ({0: "cat", 5: "Desk/Table"}, {0: "cat", 5: "Desk/Table"}),
        ({"0": " cat "}, {0: "cat"}),
        ([True, 7, date(2020, 1, 2)], {0: "True", 1: "7", 2: "2020-01-02"}),
        ([], {}),
    ],
)
def test_classes_are_named_by_a_list_or_by_number(names: Any, wanted: dict[int, str]) -> None:
    """As programs write it."""
    assert class_names({"names": names, "path": "."}) == wanted


@pytest.mark.parametrize(
    "document",
    [None, [], {}, {"names": "cat"}, {"names": {"a": "cat"}}, {"names": {-1: "cat"}}, {"names": {0: "a", "0": "b"}},
     {"names": [""]}, {"names": [" "]}, {"names": [None]}, {"names": [["a"]]}, {"names": ["x" * 256]}],
)  # fmt: skip
def test_names_that_make_no_sense_are_refused(document: Any) -> None:
    """Never a class without a name, or with two."""
    with pytest.raises(ValueError, match=r"names|name of class|number of a class|two names"):
        class_names(document)


def test_key_points_are_two_numbers() -> None:
    """Also as text, which a reader that takes nothing for numbers gives."""
    assert key_points({"names": []}) is None
    assert key_points({"kpt_shape": [17, 3]}) == (17, 3)
    assert key_points({"kpt_shape": ["17", "2"]}) == (17, 2)
    for shape in (17, [17], [17, 4], [0, 3], "ab", [17, 3, 1], {"a": 1}):
        with pytest.raises(ValueError, match=r"kpt_shape|number of a class"):
            key_points({"kpt_shape": shape})


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        ("labels/train/a.txt", "images/train/a"),
        ("labels/a.b.txt", "images/a.b"),
        ("x/labels/labels/a.TXT", "x/labels/images/a"),
        ("train/labels/a.txt", "train/images/a"),
        ("labels/a.json", None),
        ("labels.txt", None),
        ("a/labels.txt", None),
        ("notes/a.txt", None),
    ],
)
def test_a_label_file_belongs_to_the_image_of_its_name(path: str, stem: str | None) -> None:
    """The last folder named labels stands for images."""
    assert label_stem(path) == stem


def test_images_are_told_by_their_suffix() -> None:
    """In any case; the stem is the path without it."""
    assert is_image("a/b.JPG")
    assert not is_image("a/b.txt")
    assert image_stem("images/train/a.b.jpg") == "images/train/a.b"


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("images/train/a.jpg", "train"),
        ("x/images/val2017/deep/a.jpg", "val2017"),
        ("valid/images/a.jpg", "valid"),
        ("holidays/images/a.jpg", None),
        ("images/a.jpg", None),
        ("a.jpg", None),
        ("images", None),
    ],
)
def test_the_split_is_a_folder_beside_images(path: str, split: str | None) -> None:
    """Behind it, or before it under one of the usual names."""
    assert split_of(path) == split
