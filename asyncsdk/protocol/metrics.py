"""Metrics: numbers of a model by name and step."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from asyncsdk.domain.ids import Id
from asyncsdk.protocol.base import Get, ListMessage, Message, Post, Problem, Record, Timestamp

__all__ = [
    "ListMetricSeries",
    "ListMetrics",
    "LogMetrics",
    "LoggedMetrics",
    "MetricEntry",
    "MetricProblem",
    "MetricRecord",
    "MetricSeriesRecord",
]

MAX_METRIC_ENTRIES = 10_000
"""Entries of one `LogMetrics`."""


# A dataclass, as everything that comes thousands at a time: see `asyncsdk.protocol.uploads`.
@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="ignore", ser_json_inf_nan="null"))
class MetricEntry:
    """One number. What is wrong with one is told for it alone, and the others are stored.

    Attributes:
        name: Of the series, ``val/mAP``: 1 to 200 characters without control characters.
        step: Epoch or iteration, 0 or more; None: a single value, which has none.
        value: Finite; JSON has no NaN or infinity, which come as null and are refused.
        logged_at: When it was measured; None, and a time that lies ahead of the server's: now.
    """

    name: str
    step: int | None = None
    value: float | None = None
    logged_at: Timestamp | None = None


class MetricProblem(Problem):
    """Why one entry was refused.

    Attributes:
        index: Its place among the entries of the message, from 0.
    """

    index: int


class LoggedMetrics(Record):
    """What became of the entries.

    Attributes:
        accepted: How many are stored, or would be were there not a later measurement of the same series and step.
        problems: Why others were refused, in their order.
    """

    accepted: int
    problems: tuple[MetricProblem, ...] = ()


class LogMetrics(Message[LoggedMetrics]):
    """Store up to 10,000 numbers of a model, in one transaction.

    A series has one value for a step: of two, the one that was measured later stands, of two measured in the same
    millisecond the one that came later. So repeating entries that tell their time changes nothing, whatever came in
    between; one that tells none is measured anew each time.
    """

    route: ClassVar = Post("/models/{model_id}/metrics")
    model_id: Id
    entries: Annotated[tuple[MetricEntry, ...], Field(min_length=1, max_length=MAX_METRIC_ENTRIES)]


class MetricRecord(Record):
    """One number.

    Attributes:
        name: Of the series.
        step: Epoch or iteration; None: a single value.
        value: The number.
        logged_at: When it was measured.
    """

    name: str
    step: int | None = None
    value: float
    logged_at: Timestamp


class ListMetrics(ListMessage[MetricRecord]):
    """List the metrics of a model, by name and step unless sorted otherwise; single values before those with a step."""

    route: ClassVar = Get("/models/{model_id}/metrics")
    model_id: Id


class MetricSeriesRecord(Record):
    """A series in short.

    Attributes:
        name: Its name.
        count: How many values it has.
        first_step: Its first step; None when it is a single value only.
        last_step: Its last step; None when it is a single value only.
        last_value: The value there; that of a single value when it has no steps.
        last_logged_at: When that was measured.
        min_value: The least of its values.
        max_value: The greatest of its values.
    """

    name: str
    count: int
    first_step: int | None = None
    last_step: int | None = None
    last_value: float
    last_logged_at: Timestamp
    min_value: float
    max_value: float


class ListMetricSeries(ListMessage[MetricSeriesRecord]):
    """List the series of a model with their latest values, by name unless sorted otherwise."""

    route: ClassVar = Get("/models/{model_id}/metric-series")
    model_id: Id
