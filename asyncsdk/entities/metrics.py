"""The metrics of a model: numbers by name and step, logged at once or in batches, read back as a table."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import SupportsFloat, SupportsIndex

import anyio.to_thread

from asyncsdk.domain.filters import AllOf, Condition, Filter
from asyncsdk.domain.metric_table import MetricTable
from asyncsdk.domain.metrics import check_metric
from asyncsdk.entities.metric_files import KeptFile, Measured, kept_folder, kept_paths
from asyncsdk.entities.metric_logging import AsyncMetricLog, as_metrics, message_of, raise_for_problems
from asyncsdk.entities.pages import AsyncPages, listing
from asyncsdk.entities.session import Session
from asyncsdk.errors import BadRequest, ConfigError
from asyncsdk.protocol.base import MAX_BULK_ENTRIES
from asyncsdk.protocol.metrics import (
    MAX_METRIC_ENTRIES,
    ListMetrics,
    ListMetricSeries,
    MetricRecord,
    MetricSeriesRecord,
)

__all__ = ["AsyncMetrics", "KeptMetrics"]


@dataclass(frozen=True, slots=True)
class KeptMetrics:
    """What became of metrics that were kept in files.

    Attributes:
        sent: Values that were sent.
        files: Files they came from; these are removed.
        damaged: Lines that could not be read, because the program was killed while it wrote them.
    """

    sent: int
    files: int
    damaged: int


class AsyncMetrics:
    """The metrics of one model.

    A series has one value for a step; a value that is logged again replaces the one before. A value without a step is
    a single value: the size of the model, the result of a test.
    """

    def __init__(self, session: Session, model_id: str) -> None:
        self._session = session
        self._model_id = model_id

    async def log(self, values: Mapping[str, SupportsFloat], *, step: SupportsIndex | None = None) -> None:
        """Send numbers now. Stored when it returns; nothing is limited, put off or dropped.

        Args:
            values: Finite numbers by name (``{"loss": 0.3, "val/mAP": 0.5}``); whatever ``float`` takes.
            step: Epoch or iteration, from 0; None: single values.

        Raises:
            ConfigError: A name or the step makes no sense, or a value is no number. Nothing was sent.
            BadRequest: A value is not finite. Nothing was sent.
            NotFound: The model is gone.
        """
        number, numbers = as_metrics(values, step)
        for name, value in numbers.items():
            if (reason := check_metric(name, number, value)) is not None:
                raise BadRequest(f"the metric {name!r} is {value}: {reason}")
        now_ms = time.time_ns() // 1_000_000
        measured = [Measured(name, number, value, now_ms) for name, value in numbers.items()]
        for start in range(0, len(measured), MAX_METRIC_ENTRIES):
            await self._send(measured[start : start + MAX_METRIC_ENTRIES])

    def batched(
        self, *, interval: float = 3.0, max_pending: int = 100_000, close_timeout: float = 30.0
    ) -> AbstractAsyncContextManager[AsyncMetricLog]:
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
        return AsyncMetricLog(
            self._session, self._model_id, interval=interval, max_pending=max_pending, close_timeout=close_timeout
        )

    async def send_kept(self) -> KeptMetrics:
        """Send what earlier blocks kept in files below ``ASYNCSDK_HOME/metrics``, oldest first, and remove those files.

        A value that was measured later is not replaced by an older one. Files that a running program still writes are
        left alone. One that could not be sent whole stays.
        """
        sent = files = damaged = 0
        folder = kept_folder(self._session.settings.home, self._model_id)
        for path in await anyio.to_thread.run_sync(kept_paths, folder):
            if (file := await _claimed(path)) is None:
                continue
            try:
                sent += await self._send_file(file)
            finally:
                file.close()
            damaged += file.damaged
            files += 1
        return KeptMetrics(sent, files, damaged)

    async def _send_file(self, file: KeptFile) -> int:
        sent = 0
        while file.count:
            batch = await anyio.to_thread.run_sync(file.read, MAX_METRIC_ENTRIES)
            await self._send(batch)
            file.advance()
            sent += len(batch)
        return sent

    async def _send(self, batch: Sequence[Measured]) -> None:
        raise_for_problems(await self._session.send(message_of(self._model_id, batch)), batch)

    def list(
        self, *, filter: Filter | None = None, sort: Sequence[str] = (), limit: int | None = None
    ) -> AsyncPages[MetricRecord]:
        """List the values, lazily, by name and step unless sorted otherwise; single values before those with a step.

        Args:
            filter: Which ones, by ``name``, ``step``, ``value``, ``logged_at``; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        message = ListMetrics(model_id=self._model_id, filter=filter, sort=tuple(sort))
        return listing(self._session, message, lambda record: record, limit=limit)

    def series(
        self, *, filter: Filter | None = None, sort: Sequence[str] = (), limit: int | None = None
    ) -> AsyncPages[MetricSeriesRecord]:
        """List the series in short, lazily, by name unless sorted otherwise: count, steps, latest value.

        Args:
            filter: Which ones, by the fields of the record; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        message = ListMetricSeries(model_id=self._model_id, filter=filter, sort=tuple(sort))
        return listing(self._session, message, lambda record: record, limit=limit)

    async def latest(self) -> dict[str, float]:
        """Return the latest value of every series, by name: that of its last step, or the single value."""
        return {one.name: one.last_value async for one in self.series()}

    async def table(self, *, names: Sequence[str] | None = None, filter: Filter | None = None) -> MetricTable:
        """Return the metrics as a table: a row for each step, a column for each series.

        Args:
            names: Which series, at most 1,000; None: all.
            filter: Which values of them, as for `list`; None: all.

        Returns:
            The table: ``to_rows()``, ``to_csv(path)``, ``plot(path)``. Memory grows with it.

        Raises:
            ConfigError: *names* is a text instead of a list, or too long.
        """
        if isinstance(names, str) or (names is not None and len(names) > MAX_BULK_ENTRIES):
            raise ConfigError(f"names is a list of at most {MAX_BULK_ENTRIES:,} names of series")
        parts: list[Filter] = [] if names is None else [Condition("name", "in", tuple(names))]
        if filter is not None:
            parts.append(filter)
        found = self.list(filter=AllOf(parts) if parts else None)
        values = [
            (one.name, one.step, one.value) async for page in found.pages(MAX_BULK_ENTRIES) for one in page.entries
        ]
        return MetricTable(values)

    async def plot(self, path: str | PathLike[str], *, names: Sequence[str] | None = None) -> None:
        """Draw a curve for each series into a file: PNG or SVG, as its suffix says. Needs the extra ``plot``.

        Args:
            path: Ends with ``.png`` or ``.svg``; a file that stands there is replaced.
            names: Which series, in this order; None: all that have steps.

        Raises:
            ConfigError: The suffix is another, a series is not there, there is nothing to draw, or matplotlib is
                missing.
            DestinationFull, DestinationUnwritable: It cannot be written there.
        """
        table = await self.table(names=names)
        await anyio.to_thread.run_sync(lambda: table.plot(path, names=names))


async def _claimed(path: Path) -> KeptFile | None:
    """Claim a file in a thread, which reads all of it; cancelled, what the thread still claims is let go."""
    claiming = asyncio.ensure_future(anyio.to_thread.run_sync(KeptFile.claim, path))
    try:
        return await asyncio.shield(claiming)
    except asyncio.CancelledError:
        claiming.add_done_callback(_let_go)
        raise


def _let_go(claiming: asyncio.Future[KeptFile | None]) -> None:
    if not claiming.cancelled() and claiming.exception() is None and (file := claiming.result()) is not None:
        file.close()
