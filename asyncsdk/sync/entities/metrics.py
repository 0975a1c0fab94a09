# Generated from asyncsdk/entities/metrics.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""The metrics of a model: numbers by name and step, logged at once or in batches, read back as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from os import PathLike
from typing import SupportsFloat, SupportsIndex

from asyncsdk.domain.filters import Filter
from asyncsdk.domain.metric_table import MetricTable
from asyncsdk.entities.metrics import AsyncMetrics, KeptMetrics
from asyncsdk.protocol.metrics import MetricRecord, MetricSeriesRecord
from asyncsdk.sync.bridge import run
from asyncsdk.sync.entities.metric_logging import MetricLog
from asyncsdk.sync.iteration import context
from asyncsdk.sync.pages import Pages
from asyncsdk.sync.twins import BlockingTwin, unchanged

__all__ = ["Metrics"]


class Metrics(BlockingTwin[AsyncMetrics]):
    """The metrics of one model.

    A series has one value for a step; a value that is logged again replaces the one before. A value without a step is
    a single value: the size of the model, the result of a test.
    """

    def log(self, values: Mapping[str, SupportsFloat], *, step: SupportsIndex | None = None) -> None:
        """Send numbers now. Stored when it returns; nothing is limited, put off or dropped.

        Args:
            values: Finite numbers by name (``{"loss": 0.3, "val/mAP": 0.5}``); whatever ``float`` takes.
            step: Epoch or iteration, from 0; None: single values.

        Raises:
            ConfigError: A name or the step makes no sense, or a value is no number. Nothing was sent.
            BadRequest: A value is not finite. Nothing was sent.
            NotFound: The model is gone.
        """
        run(self._twin.log, values, step=step)

    def batched(
        self, *, interval: float = 3.0, max_pending: int = 100000, close_timeout: float = 30.0
    ) -> AbstractContextManager[MetricLog]:
        """Log from a training loop, without waiting: what ``log`` of the block takes is sent in the background.

        Args:
            interval: Seconds between two batches at least.
            max_pending: Values that may wait in memory; beyond it the oldest wait in a file.
            close_timeout: Seconds that the end of the block may take to send the rest.

        Returns:
            The block; at its end everything was sent.

        Raises:
            MetricsNotSent: At the end of the block: some could not be sent. They are kept in a file, for `send_kept`.
                When the block itself raises, that comes out instead, with a note.
            ConfigError: A number makes no sense.
        """
        return context(
            self._twin.batched(interval=interval, max_pending=max_pending, close_timeout=close_timeout), MetricLog._of
        )

    def send_kept(self) -> KeptMetrics:
        """Send what earlier blocks kept in files below ``ASYNCSDK_HOME/metrics``, oldest first, and remove those files.

        A value that was measured later is not replaced by an older one. Files that a running program still writes are
        left alone. One that could not be sent whole stays.
        """
        return run(self._twin.send_kept)

    def list(
        self, *, filter: Filter | None = None, sort: Sequence[str] = (), limit: int | None = None
    ) -> Pages[MetricRecord]:
        """List the values, lazily, by name and step unless sorted otherwise; single values before those with a step.

        Args:
            filter: Which ones, by ``name``, ``step``, ``value``, ``logged_at``; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        return Pages(self._twin.list(filter=filter, sort=sort, limit=limit), unchanged)

    def series(
        self, *, filter: Filter | None = None, sort: Sequence[str] = (), limit: int | None = None
    ) -> Pages[MetricSeriesRecord]:
        """List the series in short, lazily, by name unless sorted otherwise: count, steps, latest value.

        Args:
            filter: Which ones, by the fields of the record; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        return Pages(self._twin.series(filter=filter, sort=sort, limit=limit), unchanged)

    def latest(self) -> dict[str, float]:
        """Return the latest value of every series, by name: that of its last step, or the single value."""
        return run(self._twin.latest)

    def table(self, *, names: Sequence[str] | None = None, filter: Filter | None = None) -> MetricTable:
        """Return the metrics as a table: a row for each step, a column for each series.

        Args:
            names: Which series, at most 1,000; None: all.
            filter: Which values of them, as for `list`; None: all.

        Returns:
            The table: ``to_rows()``, ``to_csv(path)``, ``plot(path)``. Memory grows with it.

        Raises:
            ConfigError: *names* is a text instead of a list, or too long.
        """
        return run(self._twin.table, names=names, filter=filter)

    def plot(self, path: str | PathLike[str], *, names: Sequence[str] | None = None) -> None:
        """Draw a curve for each series into a file: PNG or SVG, as its suffix says. Needs the extra ``plot``.

        Args:
            path: Ends with ``.png`` or ``.svg``; a file that stands there is replaced.
            names: Which series, in this order; None: all that have steps.

        Raises:
            ConfigError: The suffix is another, a series is not there, there is nothing to draw, or matplotlib is
                missing.
            DestinationFull, DestinationUnwritable: It cannot be written there.
        """
        run(self._twin.plot, path, names=names)
