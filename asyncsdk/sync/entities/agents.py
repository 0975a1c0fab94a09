# Generated from asyncsdk/entities/agents.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""Agents: the programs that train a model, as the platform heard them."""

from __future__ import annotations

from collections.abc import Sequence

from asyncsdk.domain.filters import Filter
from asyncsdk.entities.agents import AsyncAgent, AsyncAgents
from asyncsdk.protocol.agents import AgentRecord
from asyncsdk.sync.pages import Pages
from asyncsdk.sync.twins import BlockingRecord, BlockingTwin

__all__ = ["Agent", "Agents"]


class Agent(BlockingRecord, AgentRecord):
    """A program that trains, or trained, a model."""

    @property
    def _twin(self) -> AsyncAgent:
        return AsyncAgent._bind(self, self._client)


class Agents(BlockingTwin[AsyncAgents]):
    """The agents of one model. They come by `Model.heartbeat`, and go with the model."""

    def list(self, *, filter: Filter | None = None, sort: Sequence[str] = (), limit: int | None = None) -> Pages[Agent]:
        """List agents, lazily, the one heard last first unless sorted otherwise.

        Args:
            filter: Which ones; None for all. ``status`` is ``alive``, ``stopped`` or ``lost``.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        return Pages(self._twin.list(filter=filter, sort=sort, limit=limit), Agent._of)
