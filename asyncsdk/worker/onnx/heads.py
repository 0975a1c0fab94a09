"""From the numbers of a model to boxes and classes.

Heads, for one image:

* ``classes``: ``[1, C]``, probabilities or logits (told apart: probabilities lie in 0..1 and add up to 1).
* ``yolov8``: ``[1, 4 + C + extra, N]``: centre, size and a score per class for each of N candidates; what follows the
  classes (masks, key points) is left alone.
* ``yolov5``: ``[1, N, 5 + C + extra]``: centre, size, objectness, a score per class.
* ``end2end``: ``[1, N, 6]``: corners, score, class, already the final ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from asyncsdk.domain.predicting import PredictConfig
from asyncsdk.domain.results import Classification, VisionTask
from asyncsdk.errors import InvalidModel
from asyncsdk.worker.onnx.facts import Head, ModelFacts

__all__ = ["Boxes", "best_classes", "choose_head", "find_boxes", "suppress"]

_MAX_CANDIDATES = 30_000
"""Boxes that are compared with each other at most; the best ones."""

_MAX_SCORE = 1.01
"""What 16-bit floats make of 1, and some room."""

_FEW = 1000
"""``[1, N, 6]`` without names is a final list (a few hundred), or one class of YOLOv5 (thousands of candidates)."""


@dataclass(frozen=True, slots=True)
class Boxes:
    """What a detector found, best first, in pixels of its input.

    Attributes:
        corners: ``[n, 4]``: x1, y1, x2, y2.
        scores: ``[n]``.
        class_ids: ``[n]``.
    """

    corners: npt.NDArray[Any]
    scores: npt.NDArray[Any]
    class_ids: npt.NDArray[Any]


def choose_head(outputs: Sequence[npt.NDArray[Any]], facts: ModelFacts) -> tuple[Head, VisionTask, npt.NDArray[Any]]:
    """Return how a model's output is read, what that makes it, and the output that counts, for the first image.

    Raises:
        InvalidModel: None of the outputs is of a known form.
    """
    # One answer for each image that was sent: a list of boxes `[N, 7]` without that is no row of classes.
    sent = facts.batch or 1
    numbers = [
        array
        for array in outputs
        if np.issubdtype(array.dtype, np.floating) and array.ndim > 1 and array.shape[0] == sent
    ]
    wants_classes = facts.head == "classes" or (facts.head is None and facts.task == "classify")
    wants_boxes = facts.head not in {None, "classes"} or (facts.head is None and facts.task == "detect")
    for array in numbers:
        flat = array.reshape(array.shape[:2]) if array.ndim == 4 and array.shape[2:] == (1, 1) else array
        if flat.ndim == 2 and flat.shape[1] and not wants_boxes:
            return "classes", "classify", flat[0].astype(np.float64)
        if flat.ndim == 3 and not wants_classes:
            return _box_head(flat.shape[1], flat.shape[2], facts), "detect", flat[0].astype(np.float32)
    shapes = ", ".join(str(list(array.shape)) for array in outputs)
    raise InvalidModel(
        f"its output {shapes} is of no known form; classes are [1, C], boxes [1, 4 + C, N], [1, N, 5 + C] or [1, N, 6]"
    )


def _box_head(rows: int, columns: int, facts: ModelFacts) -> Head:
    if facts.head is not None:
        return facts.head
    classes = facts.class_count
    if columns == 6 and classes != 1 and rows <= _FEW:
        return "end2end"
    if classes and rows == 4 + classes != columns:
        return "yolov8"
    if classes and columns == 5 + classes != rows:
        return "yolov5"
    # Candidates are many, numbers per candidate few.
    return "yolov8" if rows < columns else "yolov5"


def best_classes(numbers: npt.NDArray[Any], facts: ModelFacts, topk: int) -> tuple[Classification, ...]:
    """Return the best classes of one row of probabilities or logits, best first.

    Raises:
        InvalidModel: The model gave numbers that are no numbers.
    """
    _require_finite(numbers)
    is_probability = bool(((numbers >= -1e-3) & (numbers <= 1 + 1e-3)).all() and abs(numbers.sum() - 1) <= 1e-2)
    if is_probability:
        scores = np.clip(numbers, 0, 1)
    else:
        powers = np.exp(numbers - numbers.max())
        scores = powers / powers.sum()
    order = np.argsort(-scores, kind="stable")[:topk]
    return tuple(
        Classification(class_id=int(one), label=facts.label(int(one)), score=round(float(scores[one]), 6))
        for one in order
    )


def find_boxes(head: Head, numbers: npt.NDArray[Any], facts: ModelFacts, config: PredictConfig) -> Boxes:
    """Return what one image's numbers say, doubles removed.

    Raises:
        InvalidModel: There are not enough numbers for the head, or they are no scores and boxes.
    """
    if head == "end2end":
        if numbers.shape[1] < 6:
            raise InvalidModel(f"its output has {numbers.shape[1]} numbers per box; a final list has 6")
        kept = numbers[numbers[:, 4] >= config.conf]
        _require_scores(numbers[:, 4])
        kept = kept[np.argsort(-kept[:, 4], kind="stable")][: config.max_det]
        _require_finite(kept[:, :6])
        return Boxes(kept[:, :4], kept[:, 4], kept[:, 5].astype(np.int64))
    rows = numbers.T if head == "yolov8" else numbers
    first = 4 if head == "yolov8" else 5
    classes = facts.class_count or rows.shape[1] - first
    if rows.shape[1] < first + classes or classes < 1:
        raise InvalidModel(
            f"its output has {rows.shape[1]} numbers per candidate; {first} and {classes} classes make more"
        )
    _require_scores(rows[:, 4 : first + classes])
    if head == "yolov5":
        rows = rows[rows[:, 4] >= config.conf]  # the product can only be smaller
    per_class = rows[:, first : first + classes]
    class_ids = per_class.argmax(axis=1) if len(rows) else np.zeros(0, dtype=np.int64)
    scores = per_class[np.arange(len(rows)), class_ids]
    if head == "yolov5":
        scores = scores * rows[:, 4]
    chosen = np.flatnonzero(scores >= config.conf)
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")][:_MAX_CANDIDATES]
    corners, scores, class_ids = _corners(rows[chosen, :4]), scores[chosen], class_ids[chosen]
    _require_finite(corners)
    kept_ones = suppress(corners, class_ids, iou=config.iou, most=config.max_det)
    return Boxes(corners[kept_ones], scores[kept_ones], class_ids[kept_ones])


def _require_scores(scores: npt.NDArray[Any]) -> None:
    """Let scores pass; what is none would be left out as if nothing had been found, or counted as certain."""
    _require_finite(scores)
    if scores.size and scores.max() > _MAX_SCORE:
        raise InvalidModel(f"it gave a score of {scores.max():g}; scores lie between 0 and 1 (after a sigmoid)")


def _require_finite(numbers: npt.NDArray[Any]) -> None:
    if not np.isfinite(numbers).all():
        raise InvalidModel("it gave numbers that are not finite; one of 16 bits may have overflowed")


def _corners(boxes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    half = boxes[:, 2:4] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def suppress(corners: npt.NDArray[Any], class_ids: npt.NDArray[Any], *, iou: float, most: int) -> npt.NDArray[np.int64]:
    """Return which boxes stay when doubles of one class are removed; boxes come best first, and stay in order.

    Two boxes are doubles when their intersection is more than *iou* of their union. One pass per box that stays, each
    over all that are left.
    """
    left = np.arange(len(corners))
    areas = np.clip(corners[:, 2] - corners[:, 0], 0, None) * np.clip(corners[:, 3] - corners[:, 1], 0, None)
    kept: list[int] = []
    while len(left) and len(kept) < most:
        best, left = left[0], left[1:]
        kept.append(int(best))
        low = np.maximum(corners[best, :2], corners[left, :2])
        high = np.minimum(corners[best, 2:], corners[left, 2:])
        shared = np.prod(np.clip(high - low, 0, None), axis=1)
        union = areas[best] + areas[left] - shared
        is_double = (shared > iou * union) & (class_ids[left] == class_ids[best])
        left = left[~is_double]
    return np.array(kept, dtype=np.int64)
