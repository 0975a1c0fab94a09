"""Shapes: read from JSON, turned from pixels into parts of an image and back."""

from __future__ import annotations

from typing import Any

import pytest

from asyncsdk.domain.shapes import Box, Polygon, UnknownShape, to_shape
from asyncsdk.errors import BadRequest


def test_a_box_is_the_same_in_both_units() -> None:
    """Corners, pixels, parts: all say the same rectangle; asking for what it is already changes nothing."""
    box = Box.from_corners(10, 20, 110, 70)
    assert (box.width, box.height, box.corners) == (100, 50, (10, 20, 110, 70))
    relative = box.to_relative(200, 100)
    assert relative == Box(x=0.05, y=0.2, width=0.5, height=0.5, unit="relative")
    assert relative.to_pixels(200, 100) == box
    assert box.to_pixels(1, 1) is box
    assert relative.to_relative(1, 1) is relative


def test_a_polygon_is_the_same_in_both_units() -> None:
    """Every point is turned; the smallest box around it has its unit."""
    polygon = Polygon(points=((0, 0), (10, 0), (5, 20)))
    relative = polygon.to_relative(10, 20)
    assert relative == Polygon(points=((0, 0), (1, 0), (0.5, 1)), unit="relative")
    assert relative.to_pixels(10, 20) == polygon
    assert relative.bounds == Box(x=0, y=0, width=1, height=1, unit="relative")
    assert polygon.to_pixels(1, 1) is polygon
    assert relative.to_relative(1, 1) is relative


@pytest.mark.parametrize(
    "shape",
    [
        Box(x=1, y=2, width=3, height=0),
        Polygon(points=((0, 0), (1, 0), (0.5, 1)), unit="relative"),
        UnknownShape.model_validate({"kind": "cube", "depth": [1, {"deep": None}]}),
    ],
)
def test_json_comes_back_as_the_same_shape(shape: Box | Polygon | UnknownShape) -> None:
    """Kinds that this release does not know are kept as they are."""
    assert to_shape(shape.model_dump(mode="json")) == shape
    assert to_shape(shape) == shape


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({}, "kind"),
        ({"kind": ""}, "kind"),
        ({"kind": 7}, "kind"),
        ({"kind": "box", "x": 1, "y": 2, "width": 3}, "height"),
        ({"kind": "box", "x": 1, "y": 2, "width": -3, "height": 1}, "width"),
        ({"kind": "box", "x": float("nan"), "y": 2, "width": 3, "height": 1}, "x"),
        ({"kind": "box", "x": 1, "y": 2, "width": 3, "height": 1, "depth": 1}, "depth"),
        ({"kind": "polygon", "points": [[0, 0], [1, 1]]}, "points"),
        ({"kind": "polygon", "points": [[0, 0], [1, 1], [1]]}, "points"),
        ({"kind": "polygon", "points": [[0, 0], [1, 1], [1, float("inf")]]}, "points"),
        ("box", "dictionary"),
    ],
)
def test_what_is_no_shape_is_refused(value: Any, reason: str) -> None:
    """The message names the field."""
    with pytest.raises(BadRequest, match=reason):
        to_shape(value)


def test_an_unknown_shape_has_no_known_kind() -> None:
    """A box with other fields is a broken box, not an unknown shape."""
    with pytest.raises(ValueError, match="fields of its own"):
        UnknownShape(kind="box")
