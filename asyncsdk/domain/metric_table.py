"""The metrics of a model as a table: a row for each step, a column for each series."""

from __future__ import annotations

import csv
import io
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from os import PathLike
from pathlib import Path

from asyncsdk.domain.curves import draw
from asyncsdk.os_errors import os_errors

__all__ = ["MetricTable"]


class MetricTable:
    """Metrics by step and name. Memory: all of them.

    Args:
        values: Name, step (None for a single value) and value; of two for the same place the later one counts.
    """

    def __init__(self, values: Iterable[tuple[str, int | None, float]]) -> None:
        self._singles: dict[str, float] = {}
        self._series: dict[str, dict[int, float]] = {}
        for name, step, value in values:
            if step is None:
                self._singles[name] = value
            else:
                self._series.setdefault(name, {})[step] = value
        self._steps = tuple(sorted({step for series in self._series.values() for step in series}))

    @property
    def names(self) -> tuple[str, ...]:
        """The columns: names of series with steps and of single values, sorted."""
        return tuple(sorted({*self._series, *self._singles}))

    @property
    def steps(self) -> tuple[int, ...]:
        """The rows: every step at which any series has a value, going up."""
        return self._steps

    @property
    def singles(self) -> Mapping[str, float]:
        """The single values, which have no step, by name."""
        return dict(self._singles)

    def series(self, name: str) -> Mapping[int, float]:
        """Return the values of one series by step, going up; empty when there is none of that name."""
        return dict(sorted(self._series.get(name, {}).items()))

    def __len__(self) -> int:
        return len(self._steps) + bool(self._singles)

    def __repr__(self) -> str:
        return f"MetricTable({len(self.names)} names, {len(self)} rows)"

    def to_rows(self) -> list[dict[str, float | int | None]]:
        """Return a dict for each row: ``step`` and the value of every name, None where there is none.

        Single values are a row of their own before the others; its step is None. A series that is itself named
        ``step`` is found in `series` only.
        """
        names = [name for name in self.names if name != "step"]
        rows: list[dict[str, float | int | None]] = []
        if self._singles:
            rows.append({"step": None, **{name: self._singles.get(name) for name in names}})
        columns = [self._series.get(name, {}) for name in names]
        rows.extend(
            {"step": step, **{name: column.get(step) for name, column in zip(names, columns, strict=True)}}
            for step in self._steps
        )
        return rows

    def to_csv(self, path: str | PathLike[str]) -> None:
        """Write `to_rows` into a file, UTF-8 with a header; what is missing is empty, floats keep every digit.

        The file appears whole or not at all; one that stands there is replaced.

        Raises:
            DestinationFull, DestinationUnwritable: It cannot be written there.
        """
        text = io.StringIO(newline="")
        writer = csv.writer(text, lineterminator="\n")
        columns = ["step", *(name for name in self.names if name != "step")]
        writer.writerow(columns)
        writer.writerows(["" if row[name] is None else row[name] for name in columns] for row in self.to_rows())
        _write_whole(Path(path), text.getvalue().encode())

    def plot(self, path: str | PathLike[str], *, names: Iterable[str] | None = None) -> None:
        """Draw a curve for each series with steps into a file: PNG or SVG, as its suffix says.

        Needs the extra ``plot``. Some tenths of a second of work; in an event loop use ``await model.metrics.plot``.
        The file appears whole or not at all; one that stands there is replaced.

        Args:
            path: Ends with ``.png`` or ``.svg``.
            names: Which series, in this order; None: all.

        Raises:
            ConfigError: The suffix is another, a series is not there or has no steps, there is nothing to draw, or
                matplotlib is missing.
            DestinationFull, DestinationUnwritable: It cannot be written there.
        """
        target = Path(path)
        chosen = sorted(self._series) if names is None else list(names)
        _write_whole(target, draw({name: self.series(name) for name in chosen}, target.suffix))


def _write_whole(path: Path, data: bytes) -> None:
    with os_errors("destination", destination=str(path)):
        beside = path.with_name(
            f".{secrets.token_hex(8)}.part"
        )  # short: the name itself may be as long as names can be
        try:
            with beside.open("xb") as file:
                file.write(data)
            beside.replace(path)
        except BaseException:  # nothing half-written stays, whatever ended it
            with suppress(OSError):
                beside.unlink()
            raise
