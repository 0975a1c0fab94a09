"""How far a model is, told by its checkpoints and its agents at the moment of asking: nothing of it is stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, case, exists, not_, select

from asyncsdk.protocol.agents import LOST_AFTER_INTERVALS
from asyncsdk.server.handlers.registry import Context
from asyncsdk.server.schema import agents, checkpoints, models

__all__ = ["agent_status", "is_silent", "model_states", "states_of"]

_SILENCE_FACTOR = LOST_AFTER_INTERVALS * 1000


def is_silent(now_ms: int) -> ColumnElement[bool]:
    """Whether an agent was not heard for longer than it may be."""
    return agents.c.last_beat_at + agents.c.interval_seconds * _SILENCE_FACTOR < now_ms


def agent_status(now_ms: int) -> ColumnElement[str]:
    """Return `AgentStatus` of an agent in SQL."""
    return case((agents.c.stopped_at.is_not(None), "stopped"), (is_silent(now_ms), "lost"), else_="alive")


def model_states(now_ms: int) -> dict[str, ColumnElement[Any]]:
    """Return the fields of a model that follow from what it has, by name, in SQL."""
    mine = checkpoints.c.model_id == models.c.id
    has_last = exists().where(mine).correlate(models)
    has_best = exists().where(mine, checkpoints.c.is_best.is_(True)).correlate(models)
    has_final = exists().where(mine, checkpoints.c.is_final.is_(True)).correlate(models)
    own = agents.c.model_id == models.c.id
    beats = exists().where(own, agents.c.stopped_at.is_(None), not_(is_silent(now_ms))).correlate(models)
    # The agent heard last decides: one that crashed before another trained the model to its end is history.
    heard_last = (
        select(agents.c.stopped_at.is_(None))
        .where(own)
        .order_by(agents.c.last_beat_at.desc(), agents.c.id.desc())
        .limit(1)
        .correlate(models)
        .scalar_subquery()
    )
    status = case(
        (has_final, "trained"),
        (beats, "training"),
        (heard_last, "lost"),  # it did not stop, and does not beat
        (has_last, "training"),
        else_="created",
    )
    return {
        "status": status,
        "is_resumable": and_(has_last, not_(has_final)),
        "has_best": has_best,
        "has_last": has_last,
        "has_final": has_final,
    }


def states_of(context: Context, model_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return these fields of some models (at most a page of them), by the model's id."""
    columns = (column.label(name) for name, column in model_states(context.now_ms).items())
    found = context.connection.execute(select(models.c.id, *columns).where(models.c.id.in_(model_ids)))
    return {row.id: {name: value for name, value in row._mapping.items() if name != "id"} for row in found}
