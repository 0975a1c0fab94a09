"""Agents: their beats, and which ones a model has."""

from __future__ import annotations

from functools import partial
from typing import Any

from sqlalchemy import Row, Select, insert, select, update

from asyncsdk.domain.ids import make_id
from asyncsdk.protocol.agents import AgentRecord, BeatAgent, ListAgents
from asyncsdk.protocol.base import Page
from asyncsdk.server.handlers.entities import fetch, history_fields, to_record
from asyncsdk.server.handlers.model_states import agent_status
from asyncsdk.server.handlers.registry import Context, handles
from asyncsdk.server.listing import Field, Listing, list_page
from asyncsdk.server.schema import agents, models

__all__: list[str] = []

_record = partial(to_record, AgentRecord)


def _listing(now_ms: int) -> Listing:
    return Listing(
        fields={
            "id": Field(agents.c.id, is_unique=True),
            "name": Field(agents.c.name),
            "status": Field(agent_status(now_ms)),
            "interval_seconds": Field(agents.c.interval_seconds, "number"),
            "beats": Field(agents.c.beats, "number"),
            "last_beat_at": Field(agents.c.last_beat_at, "number"),
            "stopped_at": Field(agents.c.stopped_at, "number", is_nullable=True),
            "created_at": Field(agents.c.created_at, "number"),
            "created_by": Field(agents.c.created_by, is_nullable=True),
        },
        default_sort=("-last_beat_at",),
    )


def _of_model(context: Context, model_id: str) -> Select[Any]:
    return select(agents, agent_status(context.now_ms).label("status")).where(agents.c.model_id == model_id)


@handles(BeatAgent, role="editor", writes=True)
def beat(context: Context, message: BeatAgent) -> AgentRecord:
    model_id = fetch(context, models, message.model_id, "model").id
    row = _known(context, model_id, message.agent_id) or _known(context, model_id, message.proposed_id)
    if row is None:
        agent_id = _begin(context, message)
    else:
        agent_id = row.id
        if message.number is None or message.number > row.beats:  # else it came already, or was overtaken
            _go_on(context, message, row)
    return _record(context.connection.execute(_of_model(context, model_id).where(agents.c.id == agent_id)).one())


def _known(context: Context, model_id: str, agent_id: str | None) -> Row[Any] | None:
    if agent_id is None:
        return None
    statement = select(agents).where(agents.c.id == agent_id, agents.c.model_id == model_id)
    return context.connection.execute(statement).first()


def _begin(context: Context, message: BeatAgent) -> str:
    agent_id = message.proposed_id
    if agent_id is None or context.connection.execute(select(agents.c.id).where(agents.c.id == agent_id)).first():
        agent_id = make_id()
    values = {
        **history_fields(context),
        "id": agent_id,
        "model_id": message.model_id,
        "name": message.name,
        "interval_seconds": message.interval_seconds,
        "beats": message.number or 1,
        "last_beat_at": context.now_ms,
        "stopped_at": context.now_ms if message.stopped else None,
    }
    context.connection.execute(insert(agents).values(values))
    return agent_id


def _go_on(context: Context, message: BeatAgent, row: Row[Any]) -> None:
    values = {
        "name": message.name,
        "interval_seconds": message.interval_seconds,
        "beats": message.number or row.beats + 1,
        # Clocks may step back; the order of beats does not.
        "last_beat_at": max(context.now_ms, row.last_beat_at),
        "stopped_at": context.now_ms if message.stopped else None,
        "updated_at": max(context.now_ms, row.updated_at + 1),
    }
    context.connection.execute(update(agents).where(agents.c.id == row.id).values(values))


@handles(ListAgents, role="viewer")
def list_agents(context: Context, message: ListAgents) -> Page[AgentRecord]:
    model_id = fetch(context, models, message.model_id, "model").id
    return list_page(context.connection, _listing(context.now_ms), _of_model(context, model_id), message, _record)
