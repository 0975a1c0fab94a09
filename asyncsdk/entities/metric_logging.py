"""Metrics logged from a training loop: taken at once, sent in batches by a task of the client's event loop."""

from __future__ import annotations

import asyncio
import logging
import math
import operator
import os
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self, SupportsFloat, SupportsIndex

import anyio
import anyio.to_thread

from asyncsdk.domain.metrics import check_metric
from asyncsdk.entities.metric_buffer import MetricBuffer
from asyncsdk.entities.metric_files import Measured, kept_folder
from asyncsdk.entities.session import Session
from asyncsdk.errors import (
    AsyncSDKError,
    BadRequest,
    ConfigError,
    ForkedProcessError,
    MetricsNotSent,
    ResponseError,
)
from asyncsdk.protocol.metrics import MAX_METRIC_ENTRIES, LoggedMetrics, LogMetrics, MetricEntry

__all__ = ["AsyncMetricLog", "MetricLogReport", "as_metrics", "message_of", "raise_for_problems"]

_log = logging.getLogger(__name__)

PAUSE_MAX_SECONDS = 60.0
"""Longest wait after failures in a row; each doubles the one before."""

CANCELLED_SECONDS = 5.0
"""How long a block that was cancelled may still send."""

MAX_PROBLEMS = 100
"""Refused values that a report names; all are counted."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class MetricLogReport:
    """What became of the metrics of one block.

    Attributes:
        logged: Values that were taken.
        sent: Values that arrived; of several for a series and step that waited together only the newest is sent.
        pending: Values that wait in memory.
        kept: Values that wait in the file.
        refused: Values that cannot be stored: NaN, infinity.
        problems: Of the first 100 of them, series and reason.
        lost: Values that are gone: memory was full, and the file could not be written.
        failures: Batches that did not arrive; their values were sent later, or wait.
        error: Of the last of them; None when everything arrived since.
        path: The file; None when there is none.
    """

    logged: int
    sent: int
    pending: int
    kept: int
    refused: int
    problems: tuple[str, ...]
    lost: int
    failures: int
    error: AsyncSDKError | None
    path: Path | None


class AsyncMetricLog:
    """Takes metrics from any thread without waiting, and sends them in the background.

    At most one batch every ``interval`` seconds. What did not arrive is kept and sent before what came later, with
    pauses that double up to a minute; of several values for a series and step the newest counts. At the end of the
    block the rest is sent.

    Memory: ``max_pending`` values, about 0.3 KiB each, and one batch. When they are reached, the oldest go to a file
    below ``ASYNCSDK_HOME/metrics``, and are sent from there before the others; ``log`` waits for that disk, and for
    nothing else ever. What is in memory when the program is killed is lost.
    """

    def __init__(
        self, session: Session, model_id: str, *, interval: float, max_pending: int, close_timeout: float
    ) -> None:
        given: Any  # callers without a type checker give anything
        for name, given in (("interval", interval), ("close_timeout", close_timeout)):
            if not isinstance(given, (int, float)) or not 0 <= given < math.inf:
                raise ConfigError(f"{name} is a number of seconds from 0, not {given!r}")
        given = max_pending
        if not isinstance(given, int) or given < 1:
            raise ConfigError(f"max_pending must be 1 or more, not {given!r}")
        self._session = session
        self._model_id = model_id
        self._interval = interval
        self._close_timeout = close_timeout
        self._buffer = MetricBuffer(kept_folder(session.settings.home, model_id), max_pending)
        self._pid = os.getpid()
        self._counting = threading.Lock()
        self._logged = 0
        self._sent = 0
        self._failures = 0
        self._failures_in_a_row = 0
        self._error: AsyncSDKError | None = None
        self._refused = 0
        self._problems: list[str] = []
        self._warned: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake: asyncio.Event
        self._sending: asyncio.Lock

    def log(self, values: Mapping[str, SupportsFloat], *, step: SupportsIndex | None = None) -> None:
        """Take numbers measured now. Never waits for the network; callable from every thread.

        NaN and infinity cannot be stored: they are counted in ``report``, and a warning is logged, once for a series.

        Args:
            values: Numbers by name; whatever ``float`` takes.
            step: Epoch or iteration, from 0; None: single values.

        Raises:
            ConfigError: A name or the step makes no sense, a value is no number, or the block has ended.
            ForkedProcessError: This process was forked inside of the block; the parent sends, this one cannot.
        """
        if os.getpid() != self._pid:
            raise ForkedProcessError(
                "these metrics belong to the process that this one was forked from; log them there"
            )
        if self._loop is None:
            raise ConfigError("metrics are logged inside of the block: async with model.metrics.batched() as metrics")
        number, numbers = as_metrics(values, step)
        good = [(name, number, value) for name, value in numbers.items() if math.isfinite(value)]
        must_wake = self._buffer.put(good)  # without values, too: after the end of the block it raises
        with self._counting:
            self._logged += len(good)
        if len(good) < len(numbers):
            for name, value in numbers.items():
                if not math.isfinite(value):
                    self._refuse(name, f"step {step}: {value} cannot be stored")
        if must_wake:
            # A loop that was closed meanwhile has nothing to be told: the end of the block saw what was put.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._wake.set)

    async def flush(self) -> None:
        """Send everything that was logged up to now, without waiting for the interval.

        Raises:
            AsyncSDKError: It did not arrive; nothing is lost, it is sent later.
        """
        await self._send_all()

    @property
    def report(self) -> MetricLogReport:
        """What became of the metrics up to now."""
        buffer = self._buffer
        return MetricLogReport(
            logged=self._logged,
            sent=self._sent,
            pending=buffer.pending,
            kept=buffer.kept,
            refused=self._refused,
            problems=tuple(self._problems),
            lost=buffer.lost,
            failures=self._failures,
            error=self._error,
            path=buffer.path,
        )

    # --- the block -------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise ConfigError("a block of batched metrics is entered once; call model.metrics.batched() again")
        self._wake, self._sending = asyncio.Event(), asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._send_in_background(), name=f"asyncsdk-metrics {self._model_id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._buffer.close()
        assert self._task is not None
        self._task.cancel()
        seconds = self._close_timeout
        if isinstance(error, asyncio.CancelledError):
            seconds = min(seconds, CANCELLED_SECONDS)
        reason = f"it took longer than {seconds:g} s"
        try:
            with anyio.move_on_after(seconds, shield=True):
                await asyncio.wait({self._task})
                await self._send_all()
        except AsyncSDKError as problem:
            reason = str(problem)
        finally:
            # Here and not in a thread: it must be done even when the block is cancelled once more.
            left = self._buffer.keep()
        if not left and not self._buffer.lost:
            return
        unsent = MetricsNotSent(left, self._buffer.path if left else None, lost=self._buffer.lost, reason=reason)
        _log.warning("%s", unsent)
        if error is None:
            raise unsent from self._error
        error.add_note(str(unsent))

    # --- in the event loop -----------------------------------------------------------------------------------

    async def _send_in_background(self) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        pause = self._interval
        while True:
            await self._wake.wait()
            await asyncio.sleep(max(0.0, last + pause - loop.time()))
            self._wake.clear()
            last = loop.time()
            try:
                await self._send_all()
                pause = self._interval
            except Exception as error:  # noqa: BLE001  # whatever it was, what was logged must go on waiting
                if not isinstance(error, AsyncSDKError):
                    _log.exception("a batch of metrics could not be sent; it is tried again")
                pause = self._pause_after(error)
                last = loop.time()
                self._wake.set()

    def _pause_after(self, error: Exception) -> float:
        asked = (error.retry_after if isinstance(error, ResponseError) else None) or 0.0
        grown = max(self._interval, 0.1) * 2.0 ** min(self._failures_in_a_row, 20)
        return max(self._interval, min(max(grown, asked), PAUSE_MAX_SECONDS))

    async def _send_all(self) -> None:
        """Send what is there now; raises when a batch did not arrive."""
        async with self._sending:
            # No more than that: who logs faster than a server stores would keep this going for ever.
            left = self._buffer.pending + self._buffer.kept
            while left > 0 and (count := await self._send_one()):
                left -= count
            if self._buffer.pending or self._buffer.kept:
                self._wake.set()

    async def _send_one(self) -> int:
        """Send one batch and return how many values it had; 0 when there are none."""
        buffer = self._buffer
        if buffer.kept:
            batch = await anyio.to_thread.run_sync(buffer.take, MAX_METRIC_ENTRIES, buffer.next_turn())
        else:
            batch = buffer.take(MAX_METRIC_ENTRIES)
        if not batch:
            return 0
        try:
            reply = await self._session.send(message_of(self._model_id, batch))
        except BaseException as error:  # a cancelled one too may not have arrived; raised again
            buffer.failed()
            if isinstance(error, AsyncSDKError):
                self._failures += 1
                self._failures_in_a_row += 1
                self._error = error
            raise
        buffer.sent()
        self._sent += reply.accepted
        self._failures_in_a_row, self._error = 0, None
        for problem in reply.problems:
            self._refuse(batch[problem.index].name, problem.message)
        return len(batch)

    def _refuse(self, name: str, reason: str) -> None:
        with self._counting:
            self._refused += 1
            if len(self._problems) < MAX_PROBLEMS:
                self._problems.append(f"{name}: {reason}")
            is_first = name not in self._warned
            self._warned.add(name)
        if is_first:
            _log.warning("the metric %r is refused (%s); others of this series are counted, not told", name, reason)


def as_metrics(values: Mapping[str, SupportsFloat], step: SupportsIndex | None) -> tuple[int | None, dict[str, float]]:
    """Return *step* as a number and *values* as floats by name.

    Raises:
        ConfigError: A name or the step makes no sense, or a value is no number.
    """
    try:
        number = None if step is None else operator.index(step)
    except TypeError as error:
        raise ConfigError(f"a step is a whole number from 0, or None for a single value, not {step!r:.40}") from error
    given: Any = values  # callers without a type checker give anything
    if not isinstance(given, Mapping):
        raise ConfigError(f"metrics are given as numbers by name, not as {type(given).__name__}")
    numbers: dict[str, float] = {}
    for name, value in values.items():
        try:
            if isinstance(value, (str, bytes)):
                raise TypeError("text is no number")
            numbers[name] = float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:  # the last of tensors of several numbers
            raise ConfigError(f"the metric {name!r:.200} is no number: {error}") from error
        if (reason := check_metric(name, number, 0.0)) is not None:
            raise ConfigError(f"{reason}; not {name!r:.200}, step {step!r:.40}")
    return number, numbers


def message_of(model_id: str, batch: Sequence[Measured]) -> LogMetrics:
    """Return the message that logs a batch of 1 to 10,000 values."""
    entries = tuple(
        MetricEntry(
            name=one.name,
            step=one.step,
            value=one.value,
            logged_at=_EPOCH + timedelta(milliseconds=one.logged_at_ms),
        )
        for one in batch
    )
    return LogMetrics(model_id=model_id, entries=entries)


def raise_for_problems(reply: LoggedMetrics, batch: Sequence[Measured]) -> None:
    """Raise `BadRequest` when the platform refused values; the message names the first."""
    if reply.problems:
        first = reply.problems[0]
        raise BadRequest(
            f"{len(reply.problems)} metrics were refused, first {batch[first.index].name!r}: {first.message}"
        )
