"""Agents: programs that train a model and say so now and then."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from asyncsdk.domain.ids import Id
from asyncsdk.protocol.base import EntityRecord, Get, ListMessage, Message, Post, Timestamp

__all__ = ["LOST_AFTER_INTERVALS", "AgentRecord", "AgentStatus", "BeatAgent", "ListAgents"]

LOST_AFTER_INTERVALS = 3
"""An agent that was silent for more than this many of its intervals, and said no goodbye, is lost."""

MAX_INTERVAL_SECONDS = 7 * 24 * 60 * 60

AgentStatus = Literal["alive", "stopped", "lost"]


class AgentRecord(EntityRecord):
    """A program that trains, or trained, a model.

    Attributes:
        model_id: The model.
        name: What it is: ``python-3.11.7-colab``; free text.
        interval_seconds: How often it means to be heard.
        beats: The number of its last beat.
        last_beat_at: When that was, by the platform's clock.
        stopped_at: When it said goodbye; None: it did not, or began again.
        status: ``alive``; ``stopped`` when it said goodbye; ``lost`` when it was silent for more than three intervals.
    """

    model_id: Id
    name: str
    interval_seconds: float
    beats: int
    last_beat_at: Timestamp
    stopped_at: Timestamp | None = None
    status: AgentStatus


class BeatAgent(Message[AgentRecord]):
    """Say that an agent of a model is alive or, with ``stopped``, that it ends. The answer tells the agent's id.

    The platform gives the id when none is given, or one that is not of an agent of this model. It takes
    ``proposed_id`` for that when nobody has it, so that a first beat whose reply was lost makes no second agent. A beat
    whose ``number`` came already, or came late, changes nothing; without a number each counts as the next one.
    """

    route: ClassVar = Post("/models/{model_id}/agents/beat")
    repeatable_by: ClassVar = "proposed_id"
    model_id: Id
    agent_id: Id | None = None
    proposed_id: Id | None = None
    number: Annotated[int, Field(ge=1, le=2**53)] | None = None
    name: Annotated[str, Field(min_length=1, max_length=255)]
    interval_seconds: Annotated[float, Field(gt=0, le=MAX_INTERVAL_SECONDS)]
    stopped: bool = False


class ListAgents(ListMessage[AgentRecord]):
    """List the agents of a model, the one heard last first unless sorted otherwise."""

    route: ClassVar = Get("/models/{model_id}/agents")
    model_id: Id
