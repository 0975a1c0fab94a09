"""Metrics: logged, listed, and their series in short, on every platform the same."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from asyncsdk.domain.filters import Condition
from asyncsdk.errors import BadRequest, NotFound
from asyncsdk.platforms.base import Platform
from asyncsdk.protocol.metrics import (
    MAX_METRIC_ENTRIES,
    ListMetrics,
    ListMetricSeries,
    LoggedMetrics,
    LogMetrics,
    MetricEntry,
    MetricRecord,
)
from asyncsdk.protocol.models import CreateModel, DeleteModel, ModelRecord, UpdateModel

NOBODY = "f" * 24
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def model(platform: Platform) -> ModelRecord:
    return await platform.send(CreateModel(name="detector"))


def entry(name: str, step: int | None, value: float, *, after: int | None = None) -> MetricEntry:
    """Return an entry; *after* is when it was measured, in milliseconds since a day long ago."""
    logged_at = None if after is None else LONG_AGO + timedelta(milliseconds=after)
    return MetricEntry(name=name, step=step, value=value, logged_at=logged_at)


async def log(platform: Platform, model: ModelRecord, *entries: MetricEntry) -> LoggedMetrics:
    return await platform.send(LogMetrics(model_id=model.id, entries=entries))


async def values(platform: Platform, model: ModelRecord, **facts: Any) -> list[tuple[str, int | None, float]]:
    found: list[MetricRecord] = []
    cursor = None
    while True:
        page = await platform.send(ListMetrics(model_id=model.id, cursor=cursor, **facts))
        found += page.entries
        cursor = page.cursor
        if cursor is None:
            return [(one.name, one.step, one.value) for one in found]


@pytest.mark.parametrize(
    "moment",
    [datetime(2026, 1, 1), datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))],  # noqa: DTZ001  # what it is about
    ids=["without a zone", "before the year 1 in UTC"],
)
def test_a_time_that_could_not_be_read_again_is_refused_at_once(moment: datetime) -> None:
    """Once stored it would spoil every listing that it is in."""
    with pytest.raises(ValueError, match="a time"):
        MetricEntry(name="loss", step=1, value=0.5, logged_at=moment)
    with pytest.raises(BadRequest, match="a time"):
        UpdateModel(model_id=NOBODY, name="other", if_updated_at=moment)


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_they_come_back_by_name_and_step(platform: Platform, model: ModelRecord, limit: int) -> None:
    """Whatever the size of the pages; single values before those with a step."""
    reply = await log(
        platform,
        model,
        entry("val/mAP", 1, 0.5),
        entry("loss", 10, 0.1),
        entry("loss", 2, 0.3),
        entry("loss", None, 9.0),
    )
    assert (reply.accepted, reply.problems) == (4, ())
    expected = [("loss", None, 9.0), ("loss", 2, 0.3), ("loss", 10, 0.1), ("val/mAP", 1, 0.5)]
    assert await values(platform, model, limit=limit) == expected
    assert (await platform.send(ListMetrics(model_id=model.id, limit=1, total=True))).total == 4


async def test_a_series_has_one_value_for_a_step_and_the_later_measurement_stands(
    platform: Platform, model: ModelRecord
) -> None:
    """Whichever came first; of the same millisecond the one that came last; also within one message."""
    await log(platform, model, entry("a", 1, 1.0, after=5), entry("a", 1, 2.0, after=5), entry("b", 1, 1.0))
    assert (await log(platform, model, entry("a", 1, 3.0, after=4))).accepted == 1
    assert await values(platform, model) == [("a", 1, 2.0), ("b", 1, 1.0)]
    await log(platform, model, entry("a", 1, 4.0, after=6), entry("b", 1, 2.0))
    assert await values(platform, model) == [("a", 1, 4.0), ("b", 1, 2.0)]


async def test_a_measurement_from_a_clock_that_is_ahead_does_not_stand_against_later_ones(
    platform: Platform, model: ModelRecord
) -> None:
    ahead = MetricEntry(name="a", step=1, value=1.0, logged_at=datetime.now(UTC) + timedelta(days=1))
    await log(platform, model, ahead)
    await log(platform, model, entry("a", 1, 2.0))
    assert await values(platform, model) == [("a", 1, 2.0)]


async def test_logging_again_changes_nothing(platform: Platform, model: ModelRecord) -> None:
    message = LogMetrics(model_id=model.id, entries=(entry("a", 1, 1.0, after=1), entry("a", None, 2.0, after=1)))
    first = await platform.send(message)
    before = await platform.send(ListMetrics(model_id=model.id))
    assert await platform.send(message) == first
    assert await platform.send(ListMetrics(model_id=model.id)) == before


async def test_bad_values_are_refused_each_with_its_reason_and_the_others_stored(
    platform: Platform, model: ModelRecord
) -> None:
    bad = [("a", 1, math.nan), ("a", 1, math.inf), ("", 1, 1.0), ("x" * 201, 1, 1.0), ("a\n", 1, 1.0), ("a", -1, 1.0)]
    entries = [entry("good", 1, 0.5), *(entry(*one) for one in bad), entry("good", 2, -0.0)]
    reply = await log(platform, model, *entries)
    assert reply.accepted == 2
    assert [problem.index for problem in reply.problems] == [1, 2, 3, 4, 5, 6]
    assert "finite" in reply.problems[0].message
    assert "step" in reply.problems[5].message
    assert await values(platform, model) == [("good", 1, 0.5), ("good", 2, -0.0)]


async def test_ten_thousand_go_at_once_and_no_more(platform: Platform, model: ModelRecord) -> None:
    """Every value comes back bit for bit."""
    many = [entry("loss", step, 1 / (step + 1)) for step in range(MAX_METRIC_ENTRIES)]
    assert (await log(platform, model, *many)).accepted == MAX_METRIC_ENTRIES
    assert await values(platform, model, limit=1000) == [("loss", one.step, one.value) for one in many]
    for count in (0, MAX_METRIC_ENTRIES + 1):
        with pytest.raises(BadRequest):
            LogMetrics(model_id=model.id, entries=tuple(entry("a", step, 1.0) for step in range(count)))


async def test_they_are_filtered_and_sorted(platform: Platform, model: ModelRecord) -> None:
    """By every field; ties by name and step, in pages too."""
    await log(platform, model, *(entry(name, step, float(step or 7)) for name in "ab" for step in (None, 1, 2, 3)))
    found = await values(platform, model, filter=Condition("name", "eq", "a"), sort=("-step",), limit=1)
    assert found == [("a", 3, 3.0), ("a", 2, 2.0), ("a", 1, 1.0), ("a", None, 7.0)]
    found = await values(platform, model, filter=Condition("step", "ge", 2), sort=("value",), limit=1)
    assert found == [("a", 2, 2.0), ("b", 2, 2.0), ("a", 3, 3.0), ("b", 3, 3.0)]
    assert len(await values(platform, model, filter=Condition("step", "exists", False))) == 2
    with pytest.raises(BadRequest, match="model_id"):
        await values(platform, model, filter=Condition("model_id", "eq", model.id))


async def test_series_are_told_in_short(platform: Platform, model: ModelRecord) -> None:
    """The latest value is that of the last step, whenever it was measured."""
    await log(
        platform,
        model,
        entry("loss", 5, 0.25, after=1),
        entry("loss", 2, 0.5, after=9),
        entry("loss", None, 4.0, after=3),
        entry("size", None, 1.0),
    )
    page = await platform.send(ListMetricSeries(model_id=model.id, limit=1))
    (loss,) = page.entries
    assert (loss.name, loss.count, loss.first_step, loss.last_step) == ("loss", 3, 2, 5)
    assert (loss.last_value, loss.min_value, loss.max_value) == (0.25, 0.25, 4.0)
    assert loss.last_logged_at == LONG_AGO + timedelta(milliseconds=1)
    (size,) = (await platform.send(ListMetricSeries(model_id=model.id, cursor=page.cursor))).entries
    assert (size.name, size.count, size.first_step, size.last_step, size.last_value) == ("size", 1, None, None, 1.0)
    found = ListMetricSeries(model_id=model.id, filter=Condition("last_step", "exists", True), sort=("-count",))
    assert [one.name for one in (await platform.send(found)).entries] == ["loss"]


async def test_metrics_belong_to_a_model_and_go_with_it(platform: Platform, model: ModelRecord) -> None:
    other = await platform.send(CreateModel(name="other"))
    await log(platform, other, entry("a", 1, 1.0))
    assert await values(platform, model) == []
    await log(platform, model, entry("a", 1, 2.0))
    await platform.send(DeleteModel(model_id=model.id))
    assert await values(platform, other) == [("a", 1, 1.0)]
    for message in (
        LogMetrics(model_id=NOBODY, entries=(entry("a", 1, 1.0),)),
        ListMetrics(model_id=model.id),
        ListMetricSeries(model_id=model.id),
    ):
        with pytest.raises(NotFound):
            await platform.send(message)
