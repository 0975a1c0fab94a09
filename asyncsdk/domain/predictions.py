"""Prediction rows: what one looks like for each kind of task, and what is wrong with one that does not.

A row is the predictions for one item::

    {"path": "a.jpg", "predictions": [{"category": "car", "score": 0.9, "bbox": [x, y, w, h]}]}

``bbox`` is in pixels, from the upper left corner. Other keys of a prediction are kept as they are.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Literal

__all__ = ["PredictionKind", "check_prediction_row"]

PredictionKind = Literal[
    "classification",
    "object-detection",
    "instance-segmentation",
    "semantic-segmentation",
    "keypoint-detection",
]

_NEEDS_BBOX = {"object-detection"}
MAX_PREDICTIONS_PER_ROW = 10_000


def check_prediction_row(row: Any, *, kind: PredictionKind, categories: Collection[str]) -> str | None:
    """Return what is wrong with *row* for a task, or None when it is good.

    Args:
        row: The row, decoded.
        kind: The task's kind.
        categories: The names the task knows; every prediction names one of them.
    """
    if not isinstance(row, Mapping):
        return f"a row is an object with 'path' and 'predictions', not {_type_of(row)}"
    path = row.get("path")
    if not isinstance(path, str) or not path:
        return "'path' is missing; it names the item the predictions belong to"
    predictions = row.get("predictions")
    if not isinstance(predictions, (list, tuple)):
        return f"'predictions' must be a list, not {_type_of(predictions)}"
    if len(predictions) > MAX_PREDICTIONS_PER_ROW:
        return f"{len(predictions)} predictions in one row; {MAX_PREDICTIONS_PER_ROW} are allowed"
    unknown = row.keys() - {"path", "predictions"}
    if unknown:
        return f"unknown key {min(map(str, unknown))!r}; a row has 'path' and 'predictions'"
    for index, prediction in enumerate(predictions):
        if reason := _check_prediction(prediction, kind, categories):
            return f"predictions[{index}]: {reason}"
    return None


def _check_prediction(prediction: Any, kind: PredictionKind, categories: Collection[str]) -> str | None:
    if not isinstance(prediction, Mapping):
        return f"must be an object, not {_type_of(prediction)}"
    category = prediction.get("category")
    if not isinstance(category, str):
        return "'category' is missing"
    if category not in categories:
        return f"the task has no category {category!r}"
    score = prediction.get("score")
    if score is None or not _is_number(score):
        return f"'score' must be a number, not {_type_of(score)}"
    if not 0 <= score <= 1:
        return f"'score' must lie between 0 and 1, not {score}"
    bbox = prediction.get("bbox")
    if bbox is None:
        return f"'bbox' is missing; {kind} needs one" if kind in _NEEDS_BBOX else None
    if not isinstance(bbox, (list, tuple)) or len(bbox) != 4 or not all(map(_is_number, bbox)):
        return "'bbox' must be four numbers [x, y, w, h]"
    if bbox[2] < 0 or bbox[3] < 0:
        return "'bbox' has a negative width or height"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _type_of(value: Any) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {value!r:.40}"
