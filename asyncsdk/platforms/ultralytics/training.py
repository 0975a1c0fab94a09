"""Metrics and heartbeats.

The wire knows no times of measurements: of two values of a series and step the one that came later stands, and what is
read was logged on 1970-01-01. It knows no goodbye either: an agent that ends is not heard any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

from asyncsdk.domain.metrics import check_metric
from asyncsdk.errors import InvalidRow, UnsupportedOperation
from asyncsdk.platforms.ultralytics.calls import Calls
from asyncsdk.platforms.ultralytics.records import NAME, id_of, time_of
from asyncsdk.platforms.ultralytics.selecting import page_of
from asyncsdk.protocol.agents import AgentRecord, BeatAgent
from asyncsdk.protocol.base import Page
from asyncsdk.protocol.metrics import (
    ListMetrics,
    ListMetricSeries,
    LoggedMetrics,
    LogMetrics,
    MetricProblem,
    MetricRecord,
    MetricSeriesRecord,
)
from asyncsdk.wires.ultralytics import paths
from asyncsdk.wires.ultralytics.training import Beat, BeatAnswer, metrics_body, metrics_from_data

__all__ = ["Training"]


class Training:
    """Metrics and heartbeats of models.

    Args:
        calls: Sends the requests.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def log(self, message: LogMetrics) -> LoggedMetrics:
        """Send numbers, by epoch. One that makes no sense is a problem of its own, and the others are sent.

        Raises:
            UnsupportedOperation: One is a single value, which belongs to no epoch.
        """
        problems = []
        by_epoch: dict[int, dict[str, float]] = {}
        for index, entry in enumerate(message.entries):
            reason = check_metric(entry.name, entry.step, entry.value)
            if reason is not None:
                problems.append(MetricProblem(index=index, code=InvalidRow.code, message=reason))
            elif entry.step is None:
                raise UnsupportedOperation(NAME, "LogMetrics without a step")
            else:
                assert entry.value is not None
                by_epoch.setdefault(entry.step, {})[entry.name] = entry.value
        if by_epoch:
            path = paths.entity_path("models", message.model_id)
            await self._calls.call("POST", path, lambda data: data, json=metrics_body(by_epoch))
        return LoggedMetrics(accepted=len(message.entries) - len(problems), problems=tuple(problems))

    async def list(self, message: ListMetrics) -> Page[MetricRecord]:
        """List a page of the numbers; all of them are read for each page."""
        return page_of(await self._read(message.model_id), message, ("name", "step"))

    async def series(self, message: ListMetricSeries) -> Page[MetricSeriesRecord]:
        """List a page of the series; all numbers are read for each page."""
        return page_of(_series(await self._read(message.model_id)), message, ("name",))

    async def _read(self, model_id: str) -> Sequence[MetricRecord]:
        path = paths.metrics_path(model_id)
        told: Mapping[int, Mapping[str, float]] = await self._calls.call("GET", path, metrics_from_data)
        never = time_of(None)
        return [
            MetricRecord(name=name, step=epoch, value=value, logged_at=never)
            for epoch, values in told.items()
            for name, value in values.items()
        ]

    async def beat(self, message: BeatAgent) -> AgentRecord:
        """Say that an agent is alive; nothing is sent when it ends."""
        now = datetime.now(UTC)
        agent_id = message.agent_id
        if not message.stopped or agent_id is None:
            beat = Beat(message.name, message.agent_id)
            path = paths.heartbeat_path(message.model_id)
            agent_id = await self._calls.call(
                "POST", path, _agent_id, json=beat.to_json(), is_repeatable=message.agent_id is not None
            )
        return AgentRecord(
            id=agent_id,
            created_at=now,
            updated_at=now,
            model_id=message.model_id,
            name=message.name,
            interval_seconds=message.interval_seconds,
            beats=message.number or 1,
            last_beat_at=now,
            stopped_at=now if message.stopped else None,
            status="stopped" if message.stopped else "alive",
        )


def _agent_id(data: Any) -> str:
    return id_of(BeatAnswer.from_data(data).agent_id)


def _series(records: Sequence[MetricRecord]) -> Iterator[MetricSeriesRecord]:
    records = sorted(records, key=lambda record: (record.name, record.step or 0))
    for name, group in groupby(records, key=lambda record: record.name):
        found = list(group)
        values = [record.value for record in found]
        yield MetricSeriesRecord(
            name=name,
            count=len(found),
            first_step=found[0].step,
            last_step=found[-1].step,
            last_value=found[-1].value,
            last_logged_at=found[-1].logged_at,
            min_value=min(values),
            max_value=max(values),
        )
