"""Metrics as plain values: what a good one is, how a series is drawn in one line of text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

__all__ = ["check_metric", "sparkline"]

MAX_NAME_CHARACTERS = 200
MAX_STEP = 2**63 - 1

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_BARS = "▁▂▃▄▅▆▇█"
_ASCII_BARS = "_.-=+*#@"


def check_metric(name: Any, step: Any, value: Any) -> str | None:
    """Return what is wrong with a number for a series and a step, or None when it is good.

    Args:
        name: Of the series: 1 to 200 characters, without control characters.
        step: An integer from 0; None for a single value.
        value: A finite float.
    """
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME_CHARACTERS or _CONTROL.search(name):
        return f"the name of a metric has 1 to {MAX_NAME_CHARACTERS} characters and no control characters"
    if step is not None and (not isinstance(step, int) or isinstance(step, bool) or not 0 <= step <= MAX_STEP):
        return "a step is a whole number from 0, or None for a single value"
    if not isinstance(value, float) or not math.isfinite(value):
        return "a metric is a finite number; NaN and infinity cannot be stored"
    return None


def sparkline(values: Sequence[float], width: int, *, only_ascii: bool = False) -> str:
    """Return *values* as one line of bars, the least lowest; a longer series by the mean of equal stretches.

    Args:
        values: Finite, in order.
        width: Characters at most, 1 or more.
        only_ascii: Draw with ASCII characters, for terminals that know no others.
    """
    bars = _ASCII_BARS if only_ascii else _BARS
    count = len(values)
    if count > width:
        edges = [index * count // width for index in range(width + 1)]
        values = [_mean(values[start:stop]) for start, stop in pairwise(edges)]
    if not values:
        return ""
    low, high = min(values), max(values)
    # Halves, because the difference of two finite numbers may be none.
    span = high / 2 - low / 2
    if span == 0:
        return bars[len(bars) // 2] * len(values)
    top = len(bars) - 1
    return "".join(bars[min(top, int((value / 2 - low / 2) / span * len(bars)))] for value in values)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(value / len(values) for value in values)  # divided first: a sum may be too large for a float
