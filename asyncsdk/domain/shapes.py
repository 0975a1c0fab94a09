"""Shapes of annotations: what part of an item a label stands for.

Coordinates are either in pixels from the upper left corner, or relative: parts of the image's width and height, 0 to 1.
Formats that never name the size of an image (YOLO) give relative ones; a shape says which it has, and is turned into
the other form once the size is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator
from pydantic import Discriminator as _Discriminator
from pydantic import Tag as _Tag

from asyncsdk.errors import BadRequest

__all__ = ["Box", "CoordinateUnit", "Polygon", "Shape", "UnknownShape", "to_shape"]

CoordinateUnit = Literal["pixel", "relative"]

MAX_POINTS = 100_000

_Coordinate = Annotated[float, Field(allow_inf_nan=False)]
_Length = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Box(_Shape):
    """An upright rectangle.

    Attributes:
        x: Of its left edge.
        y: Of its upper edge.
        width: Not negative.
        height: Not negative.
        unit: Of all four; ``relative`` ones lie between 0 and 1, edges included.
    """

    kind: Literal["box"] = "box"
    x: _Coordinate
    y: _Coordinate
    width: _Length
    height: _Length
    unit: CoordinateUnit = "pixel"

    @classmethod
    def from_corners(cls, left: float, top: float, right: float, bottom: float, unit: CoordinateUnit = "pixel") -> Self:
        """Return the box between two corners."""
        return cls(x=left, y=top, width=right - left, height=bottom - top, unit=unit)

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        return self.x, self.y, self.x + self.width, self.y + self.height

    def to_pixels(self, width: int, height: int) -> Box:
        """Return it in pixels of an image of *width* x *height*."""
        return self if self.unit == "pixel" else self._scaled(width, height, "pixel")

    def to_relative(self, width: int, height: int) -> Box:
        """Return it in parts of an image of *width* x *height* pixels."""
        return self if self.unit == "relative" else self._scaled(1 / width, 1 / height, "relative")

    def _scaled(self, x: float, y: float, unit: CoordinateUnit) -> Box:
        return Box(x=self.x * x, y=self.y * y, width=self.width * x, height=self.height * y, unit=unit)


class Polygon(_Shape):
    """A closed outline.

    Attributes:
        points: At least three pairs x, y, in order; the last is joined to the first.
        unit: Of all coordinates.
    """

    kind: Literal["polygon"] = "polygon"
    points: Annotated[tuple[tuple[_Coordinate, _Coordinate], ...], Field(min_length=3, max_length=MAX_POINTS)]
    unit: CoordinateUnit = "pixel"

    @property
    def bounds(self) -> Box:
        """The smallest box around it."""
        columns, rows = zip(*self.points, strict=True)
        return Box.from_corners(min(columns), min(rows), max(columns), max(rows), self.unit)

    def to_pixels(self, width: int, height: int) -> Polygon:
        """Return it in pixels of an image of *width* x *height*."""
        return self if self.unit == "pixel" else self._scaled(width, height, "pixel")

    def to_relative(self, width: int, height: int) -> Polygon:
        """Return it in parts of an image of *width* x *height* pixels."""
        return self if self.unit == "relative" else self._scaled(1 / width, 1 / height, "relative")

    def _scaled(self, x: float, y: float, unit: CoordinateUnit) -> Polygon:
        return Polygon(points=tuple((column * x, row * y) for column, row in self.points), unit=unit)


class UnknownShape(BaseModel):
    """A shape of a kind that this release does not know: kept as it is.

    Attributes:
        kind: What its maker calls it.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    kind: Annotated[str, Field(min_length=1, max_length=255)]

    @model_validator(mode="after")
    def _is_unknown(self) -> Self:
        if self.kind in _KNOWN:
            raise ValueError(f"{self.kind!r} is a kind with fields of its own")
        return self


_KNOWN = frozenset({"box", "polygon"})


def _kind_of(value: Any) -> str:
    kind = value.get("kind") if isinstance(value, Mapping) else getattr(value, "kind", None)
    return kind if kind in _KNOWN else "unknown"


Shape = Annotated[
    Annotated[Box, _Tag("box")] | Annotated[Polygon, _Tag("polygon")] | Annotated[UnknownShape, _Tag("unknown")],
    _Discriminator(_kind_of),
]
"""Any shape, told apart by its ``kind``."""

_adapter: TypeAdapter[Box | Polygon | UnknownShape] = TypeAdapter(Shape)


def to_shape(value: Mapping[str, Any] | Box | Polygon | UnknownShape) -> Box | Polygon | UnknownShape:
    """Return the shape that JSON describes.

    Raises:
        BadRequest: It describes none; the message says what is wrong.
    """
    try:
        return _adapter.validate_python(value)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"][1:])
        raise BadRequest(f"shape{'.' if where else ''}{where}: {problem['msg']}") from None
