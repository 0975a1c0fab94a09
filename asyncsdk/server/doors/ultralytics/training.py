"""Metrics and heartbeats."""

from __future__ import annotations

from asyncsdk.domain.ids import is_id
from asyncsdk.errors import BadRequest
from asyncsdk.protocol.agents import BeatAgent
from asyncsdk.protocol.metrics import ListMetrics, LogMetrics, MetricEntry
from asyncsdk.server.doors.host import Answer, Visit
from asyncsdk.server.doors.routes import Routes
from asyncsdk.server.doors.ultralytics.entities import known_id
from asyncsdk.wires.ultralytics import paths
from asyncsdk.wires.ultralytics.training import Beat, BeatAnswer, metrics_data, metrics_from_body

__all__ = ["add_routes"]

INTERVAL_SECONDS = 300.0
"""How often agents are expected to beat: the wire does not tell, and this is the longest that its clients use."""

MAX_VALUES = 1_000_000
"""Numbers that reading metrics answers at most: the answer has no pages."""

_PAGE = 1000


def add_routes(routes: Routes) -> None:
    """Add what answers for metrics and heartbeats."""
    routes.add("POST", paths.entity_path("models", "{model_id}"), _log_metrics)
    routes.add("GET", paths.metrics_path("{model_id}"), _read_metrics)
    routes.add("POST", paths.heartbeat_path("{model_id}"), _beat)


async def _log_metrics(visit: Visit, model_id: str) -> Answer:
    metrics = metrics_from_body(await visit.json())
    entries = tuple(
        MetricEntry(name=name, step=epoch, value=value)
        for epoch, values in metrics.items()
        for name, value in values.items()
    )
    if not entries:
        raise BadRequest("the body holds no metrics")
    reply = await visit.send(LogMetrics(model_id=known_id(model_id, "model"), entries=entries))
    if reply.problems:
        first = reply.problems[0]
        entry = entries[first.index]
        raise BadRequest(
            f"{len(reply.problems)} of {len(entries)} metrics are refused, the others stored; epoch {entry.step}, "
            f"{entry.name[:100]!r}: {first.message}"
        )
    return Answer(paths.answer({"stored": reply.accepted}))


async def _read_metrics(visit: Visit, model_id: str) -> Answer:
    found: dict[int, dict[str, float]] = {}
    cursor, count = None, 0
    while True:
        page = await visit.send(ListMetrics(model_id=known_id(model_id, "model"), limit=_PAGE, cursor=cursor))
        for entry in page.entries:
            if entry.step is not None:  # a single value belongs to no epoch: the wire has no word for it
                found.setdefault(entry.step, {})[entry.name] = entry.value
        count += len(page.entries)
        cursor = page.cursor
        if cursor is None:
            return Answer(paths.answer(metrics_data(found)))
        if count >= MAX_VALUES:
            raise BadRequest(f"the model has more than {MAX_VALUES} metrics; read them through the platform's own API")


async def _beat(visit: Visit, model_id: str) -> Answer:
    beat = Beat.from_json(await visit.json())
    agent_id = beat.agent_id if beat.agent_id is not None and is_id(beat.agent_id) else None
    record = await visit.send(
        BeatAgent(
            model_id=known_id(model_id, "model"),
            agent_id=agent_id,
            name=beat.agent[:255],
            interval_seconds=INTERVAL_SECONDS,
        )
    )
    return Answer(paths.answer(BeatAnswer(record.id).to_data()))
