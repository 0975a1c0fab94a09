"""Curves drawn with matplotlib, which is imported when something is drawn and not before (extra ``plot``)."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping

from asyncsdk.errors import ConfigError

__all__ = ["draw"]

MAX_PANELS = 100
"""More would be an image that nobody can read, of hundreds of megabytes."""

_MAX_HEIGHT = 1e300
"""Drawn for anything beyond: matplotlib adds margins, which no float could hold, and fails."""

_COLUMNS = 3
_PANEL_INCHES = (4.2, 2.6)
_FORMATS = {".png": "png", ".svg": "svg"}


def draw(series: Mapping[str, Mapping[int, float]], suffix: str) -> bytes:
    """Return an image with a panel for each series.

    Args:
        series: Values by step, by name; at most 100 of them.
        suffix: ``.png`` or ``.svg``.

    Raises:
        ConfigError: The suffix is another, a series is empty, there is none, or there are too many; or matplotlib is
            missing.
    """
    form = _FORMATS.get(suffix.lower())
    if form is None:
        raise ConfigError(f"curves are drawn as .png or .svg, not {suffix or 'a file without suffix'!r}")
    for name, values in series.items():
        if not values:
            raise ConfigError(f"there is no series {name!r} with steps")
    if not series:
        raise ConfigError("there is no series with steps to draw")
    if len(series) > MAX_PANELS:
        raise ConfigError(f"{len(series)} series are too many for one image; choose up to {MAX_PANELS} by names=[...]")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            f"drawing curves needs {error.name}; install it with: pip install 'asyncsdk[plot]'"
        ) from error
    columns = min(_COLUMNS, len(series))
    rows = math.ceil(len(series) / columns)
    # A figure of its own, without pyplot: no window, no backend chosen for the program, and threads may draw at once.
    figure = Figure(figsize=(columns * _PANEL_INCHES[0], rows * _PANEL_INCHES[1]), layout="constrained")
    for number, (name, values) in enumerate(series.items(), start=1):
        axes = figure.add_subplot(rows, columns, number)
        heights = [min(max(value, -_MAX_HEIGHT), _MAX_HEIGHT) for value in values.values()]
        axes.plot(list(values), heights, linewidth=1.5, marker="o" if len(values) == 1 else "")
        axes.set_title(name, fontsize="medium", parse_math=False)  # a $ in a name is no formula
        axes.grid(visible=True, alpha=0.3)
    image = io.BytesIO()
    figure.savefig(image, format=form, dpi=120, metadata={"Date": None} if form == "svg" else None)
    return image.getvalue()
