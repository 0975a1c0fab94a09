"""Metrics: log, list, and the series in short."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, Select, and_, case, func, select

from asyncsdk.domain.metrics import check_metric
from asyncsdk.errors import InvalidRow
from asyncsdk.protocol.base import Page
from asyncsdk.protocol.metrics import (
    ListMetrics,
    ListMetricSeries,
    LoggedMetrics,
    LogMetrics,
    MetricEntry,
    MetricProblem,
    MetricRecord,
    MetricSeriesRecord,
)
from asyncsdk.server.handlers.bulk import insert_rows
from asyncsdk.server.handlers.entities import fetch, milliseconds
from asyncsdk.server.handlers.registry import Context, handles
from asyncsdk.server.listing import Field, Listing, list_page
from asyncsdk.server.schema import metrics, models

__all__: list[str] = []

NO_STEP = -1
"""What the column of the step holds for a single value."""

_INSERT = "INSERT INTO metrics (model_id, name, step, value, logged_at, created_by) VALUES"
_ROW = "(?, ?, ?, ?, ?, ?)"
# Of two measurements the later one stands: what comes late, from a file that was kept, puts no old value in its place.
_LATER_STANDS = """
    ON CONFLICT (model_id, name, step) DO UPDATE
    SET value = excluded.value, logged_at = excluded.logged_at, created_by = excluded.created_by
    WHERE excluded.logged_at >= metrics.logged_at
"""

_STEP = func.nullif(metrics.c.step, NO_STEP)
_LISTING = Listing(
    fields={
        "name": Field(metrics.c.name),
        "step": Field(_STEP, "number", is_nullable=True),
        "value": Field(metrics.c.value, "number"),
        "logged_at": Field(metrics.c.logged_at, "number"),
    },
    hidden={"step": Field(metrics.c.step, "number")},  # as it is stored, so that the primary key gives the order
    default_sort=("name", "step"),
    tie=("name", "step"),
)


@handles(LogMetrics, role="editor", writes=True)
def log_metrics(context: Context, message: LogMetrics) -> LoggedMetrics:
    model = fetch(context, models, message.model_id, "model")
    rows: list[Any] = []
    problems = []
    for index, entry in enumerate(message.entries):
        reason = check_metric(entry.name, entry.step, entry.value)
        if reason is not None:
            problems.append(MetricProblem(index=index, code=InvalidRow.code, message=reason))
            continue
        step = NO_STEP if entry.step is None else entry.step
        rows += (model.id, entry.name, step, entry.value, _logged_at(context, entry), context.principal.user_id)
    insert_rows(context.connection, _INSERT, _ROW, rows, ending=_LATER_STANDS)
    return LoggedMetrics(accepted=len(message.entries) - len(problems), problems=tuple(problems))


def _logged_at(context: Context, entry: MetricEntry) -> int:
    if entry.logged_at is None:
        return context.now_ms
    # One from a clock that is ahead would stand against all that follow until that time has come.
    return min(milliseconds(entry.logged_at), context.now_ms)


@handles(ListMetrics, role="viewer")
def list_metrics(context: Context, message: ListMetrics) -> Page[MetricRecord]:
    model = fetch(context, models, message.model_id, "model")
    columns = (metrics.c.name, _STEP.label("step"), metrics.c.value, metrics.c.logged_at)
    statement = select(*columns).where(metrics.c.model_id == model.id)
    return list_page(context.connection, _LISTING, statement, message, _metric)


def _metric(row: Row[Any]) -> MetricRecord:
    return MetricRecord.model_validate(row._mapping)


@handles(ListMetricSeries, role="viewer")
def list_metric_series(context: Context, message: ListMetricSeries) -> Page[MetricSeriesRecord]:
    model = fetch(context, models, message.model_id, "model")
    statement, listing = _series_of(model.id)
    return list_page(context.connection, listing, statement, message, _series)


def _series_of(model_id: str) -> tuple[Select[Any], Listing]:
    """Return what selects the series of a model, and what they can be filtered and sorted by."""
    has_step = metrics.c.step != NO_STEP
    found = (
        select(
            metrics.c.name,
            func.count().label("count"),
            func.min(case((has_step, metrics.c.step))).label("first_step"),
            func.max(metrics.c.step).label("last"),
            func.min(metrics.c.value).label("min_value"),
            func.max(metrics.c.value).label("max_value"),
        )
        .where(metrics.c.model_id == model_id)
        .group_by(metrics.c.name)
        .subquery()
    )
    last_step = func.nullif(found.c.last, NO_STEP)
    latest = metrics.alias()
    statement = select(
        found.c.name,
        found.c["count"],
        found.c.first_step,
        found.c.min_value,
        found.c.max_value,
        last_step.label("last_step"),
        latest.c.value.label("last_value"),
        latest.c.logged_at.label("last_logged_at"),
    ).join_from(
        found,
        latest,
        and_(latest.c.model_id == model_id, latest.c.name == found.c.name, latest.c.step == found.c.last),
    )
    fields = {
        "name": Field(found.c.name, is_unique=True),
        "count": Field(found.c["count"], "number"),
        "first_step": Field(found.c.first_step, "number", is_nullable=True),
        "last_step": Field(last_step, "number", is_nullable=True),
        "last_value": Field(latest.c.value, "number"),
        "last_logged_at": Field(latest.c.logged_at, "number"),
        "min_value": Field(found.c.min_value, "number"),
        "max_value": Field(found.c.max_value, "number"),
    }
    return statement, Listing(fields=fields, default_sort=("name",), tie=("name",))


def _series(row: Row[Any]) -> MetricSeriesRecord:
    return MetricSeriesRecord.model_validate(row._mapping)
