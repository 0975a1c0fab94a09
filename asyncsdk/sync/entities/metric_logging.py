# Generated from asyncsdk/entities/metric_logging.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""Metrics logged from a training loop: taken at once, sent in batches by a task of the client's event loop."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self, SupportsFloat, SupportsIndex

from asyncsdk.entities.metric_logging import AsyncMetricLog, MetricLogReport
from asyncsdk.sync.bridge import run
from asyncsdk.sync.twins import BlockingTwin

__all__ = ["MetricLog"]


class MetricLog(BlockingTwin[AsyncMetricLog]):
    """Takes metrics from any thread without waiting, and sends them in the background.

    At most one batch every ``interval`` seconds. What did not arrive is kept and sent before what came later, with
    pauses that double up to a minute; of several values for a series and step the newest counts. At the end of the
    block the rest is sent.

    Memory: ``max_pending`` values, about 0.3 KiB each, and one batch. When they are reached, the oldest go to a file
    below ``ASYNCSDK_HOME/metrics``, and are sent from there before the others; ``log`` waits for that disk, and for
    nothing else ever. What is in memory when the program is killed is lost.
    """

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
        self._twin.log(values, step=step)

    def flush(self) -> None:
        """Send everything that was logged up to now, without waiting for the interval.

        Raises:
            AsyncSDKError: It did not arrive; nothing is lost, it is sent later.
        """
        run(self._twin.flush)

    @property
    def report(self) -> MetricLogReport:
        """What became of the metrics up to now."""
        return self._twin.report

    def __enter__(self) -> Self:
        run(self._twin.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        run(self._twin.__aexit__, kind, error, trace)
