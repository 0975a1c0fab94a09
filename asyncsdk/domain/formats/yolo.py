"""YOLO: one text file of labels beside each image, and a YAML file that names the classes.

A line is a class number and coordinates relative to the image's size: four for a box (centre x, centre y, width,
height), six or more for the points of a polygon; in a dataset of poses, whose YAML has a ``kpt_shape``, a box and its
key points. ``images/<split>/a.jpg`` has its labels in ``labels/<split>/a.txt``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath
from typing import Any

from asyncsdk.domain.shapes import MAX_POINTS, Box, Polygon, UnknownShape
from asyncsdk.errors import InvalidRow

__all__ = [
    "ClassNames",
    "KeyPoints",
    "YoloLabel",
    "class_names",
    "image_stem",
    "is_image",
    "key_points",
    "label_stem",
    "parse_labels",
    "split_of",
]

ClassNames = Mapping[int, str]

KeyPoints = tuple[int, int]
"""How many key points each thing has, and how many numbers each point: 2, or 3 with whether it is visible."""

_BOX_NUMBERS = 4
_MIN_POLYGON_NUMBERS = 6
_TOLERANCE = 1e-3
"""How far outside of the image a coordinate may lie by rounding of who wrote it; it is set onto the edge."""
MAX_CLASS = 2**31 - 1
MAX_NAME_CHARACTERS = 255

_IMAGE_SUFFIXES = (
    ".avif", ".bmp", ".dng", ".gif", ".heic", ".heif", ".jp2", ".jpeg", ".jpg", ".mpo", ".pfm", ".png", ".tif",
    ".tiff", ".webp",
)  # fmt: skip
_SPLITS_BEFORE_IMAGES = frozenset({"train", "val", "valid", "test"})


@dataclass(frozen=True, slots=True)
class YoloLabel:
    """One line of a label file.

    Attributes:
        class_id: Number of the class, from 0.
        line: Its line in the file, from 1.
        shape: With relative coordinates. A pose is an `UnknownShape` of the kind ``pose``: the fields of a box, and
            ``keypoints``, a list of lists of numbers.
    """

    class_id: int
    line: int
    shape: Box | Polygon | UnknownShape


def parse_labels(text: str, *, file: str, points: KeyPoints | None = None) -> Iterator[YoloLabel | InvalidRow]:
    """Yield every label of a file, and for every line that is none the error that says why, with its number.

    Blank lines and lines that begin with ``#`` are passed over. What follows is read on: one bad line costs one label.

    Args:
        text: The file's text.
        file: Its name, for the errors.
        points: What `key_points` gave for the dataset; None: its labels are boxes and polygons.
    """
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        try:
            yield YoloLabel(_class_id(words[0]), number, _shape([_number(word) for word in words[1:]], points))
        except ValueError as error:
            yield InvalidRow(str(error), line=number, file=file)


def _shape(numbers: list[float], points: KeyPoints | None) -> Box | Polygon | UnknownShape:
    if points is not None:
        return _pose(numbers, points)
    if len(numbers) == _BOX_NUMBERS:
        return _box(*numbers)
    if len(numbers) >= _MIN_POLYGON_NUMBERS and len(numbers) % 2 == 0:
        corners = tuple((_inside(x), _inside(y)) for x, y in zip(numbers[::2], numbers[1::2], strict=True))
        if len(corners) > MAX_POINTS:
            raise ValueError(f"a polygon of {len(corners)} points; {MAX_POINTS} are allowed")
        return Polygon(points=corners, unit="relative")
    raise ValueError(
        f"{len(numbers)} numbers after the class; a box has {_BOX_NUMBERS}, a polygon an even number from "
        f"{_MIN_POLYGON_NUMBERS} on"
    )


def _pose(numbers: list[float], points: KeyPoints) -> UnknownShape:
    count, size = points
    if len(numbers) != _BOX_NUMBERS + count * size:
        raise ValueError(
            f"{len(numbers)} numbers after the class; a pose of this dataset has {_BOX_NUMBERS} and {count} x {size}"
        )
    box = _box(*numbers[:_BOX_NUMBERS])
    found = [numbers[start : start + size] for start in range(_BOX_NUMBERS, len(numbers), size)]
    return UnknownShape.model_validate({**box.model_dump(), "kind": "pose", "keypoints": found})


def _class_id(word: str) -> int:
    """Return a whole number that is not negative."""
    try:
        value = _number(word)  # some programs write 3.0
    except ValueError:
        value = math.nan
    if not value.is_integer() or not 0 <= value <= MAX_CLASS:
        raise ValueError(f"{word[:40]!r} is no number of a class; they are whole and count from 0")
    return int(value)


def _number(word: str) -> float:
    try:
        if "_" in word:  # Python's own way to write numbers
            raise ValueError
        value = float(word)
    except ValueError:
        raise ValueError(f"{word[:40]!r} is no number") from None
    if not math.isfinite(value):
        raise ValueError(f"{word[:40]!r} is no finite number")
    return value


def _inside(value: float) -> float:
    if not -_TOLERANCE <= value <= 1 + _TOLERANCE:
        raise ValueError(f"{value} lies outside of the image; coordinates are parts of its width and height, 0 to 1")
    return min(1.0, max(0.0, value))


def _box(x: float, y: float, width: float, height: float) -> Box:
    for value in (x, y, width, height):
        _inside(value)
    left, right = _inside(x - width / 2), _inside(x + width / 2)
    top, bottom = _inside(y - height / 2), _inside(y + height / 2)
    if width < 0 or height < 0:
        raise ValueError("a width or height is negative")
    # As it is written, unless the box was set onto an edge: differences of corners are a little off.
    is_wide, is_high = (
        (left, right) == (x - width / 2, x + width / 2),
        (top, bottom) == (y - height / 2, y + height / 2),
    )
    return Box(
        x=left,
        y=top,
        width=width if is_wide else right - left,
        height=height if is_high else bottom - top,
        unit="relative",
    )


def class_names(document: Any) -> ClassNames:
    """Return the names of classes that a dataset's YAML gives, decoded: ``names`` as a list, or by number.

    Raises:
        ValueError: It names none, or in another way.
    """
    names = document.get("names") if isinstance(document, Mapping) else None
    if isinstance(names, list):
        pairs: list[tuple[Any, Any]] = list(enumerate(names))
    elif isinstance(names, Mapping):
        pairs = list(names.items())
    else:
        raise ValueError("'names' is missing: a list of the class names, or names by number")
    found: dict[int, str] = {}
    for number, name in pairs:
        class_id = _class_id(str(number))
        if class_id in found:
            raise ValueError(f"class {class_id} has two names")
        # Readers of YAML take the bare words yes, no, 1 for other things than text; they are names all the same.
        if not isinstance(name, (str, int, float, date)):
            raise ValueError(f"the name of class {class_id} is no text")
        text = str(name).strip()
        if not text or len(text) > MAX_NAME_CHARACTERS:
            raise ValueError(f"the name of class {class_id} has {len(text)} characters; 1 to {MAX_NAME_CHARACTERS} do")
        found[class_id] = text
    return found


def key_points(document: Any) -> KeyPoints | None:
    """Return what the ``kpt_shape`` of a dataset's YAML says, decoded; None: it has none, its labels are no poses.

    Raises:
        ValueError: It is something else than two numbers, the second of them 2 or 3.
    """
    shape = document.get("kpt_shape") if isinstance(document, Mapping) else None
    if shape is None:
        return None
    if isinstance(shape, Sequence) and len(shape) == 2:
        count, size = (_class_id(str(number)) for number in shape)
        if 1 <= count <= MAX_POINTS and size in {2, 3}:
            return count, size
    raise ValueError("'kpt_shape' is the number of key points, and 2 or 3: [17, 3]")


def label_stem(path: str) -> str | None:
    """Return what a label file shares with its image: ``labels/train/a.txt`` gives ``images/train/a``; None: no label.

    As the training programs do, the last folder named ``labels`` is taken for the one that stands for ``images``.
    """
    parts = PurePosixPath(path).parts
    if not path.lower().endswith(".txt") or "labels" not in parts[:-1]:
        return None
    last = max(index for index, part in enumerate(parts[:-1]) if part == "labels")
    return "/".join((*parts[:last], "images", *parts[last + 1 : -1], PurePosixPath(path).stem))


def image_stem(path: str) -> str:
    """Return the path of an image without its suffix."""
    return str(PurePosixPath(path).with_suffix(""))


def is_image(path: str) -> bool:
    """Whether the suffix of a path is that of an image."""
    return path.lower().endswith(_IMAGE_SUFFIXES)


def split_of(path: str) -> str | None:
    """Return the split of an image; None: it lies in none.

    The folder behind the last ``images`` (``images/train/a.jpg``); when the image lies right in that one, the folder
    before it, if that is ``train``, ``val``, ``valid`` or ``test`` (``train/images/a.jpg``).
    """
    parts = PurePosixPath(path).parts[:-1]
    if "images" not in parts:
        return None
    last = max(index for index, part in enumerate(parts) if part == "images")
    if last + 1 < len(parts):
        return parts[last + 1]
    return parts[last - 1] if last > 0 and parts[last - 1] in _SPLITS_BEFORE_IMAGES else None
