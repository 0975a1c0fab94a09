"""Agents: the programs that train a model, as the platform heard them."""

from __future__ import annotations

from collections.abc import Sequence

from asyncsdk.domain.filters import Filter
from asyncsdk.entities.base import BoundRecord
from asyncsdk.entities.pages import AsyncPages, listing
from asyncsdk.entities.session import Session
from asyncsdk.protocol.agents import AgentRecord, ListAgents

__all__ = ["AsyncAgent", "AsyncAgents"]


class AsyncAgent(BoundRecord, AgentRecord):
    """A program that trains, or trained, a model."""


class AsyncAgents:
    """The agents of one model. They come by `AsyncModel.heartbeat`, and go with the model."""

    def __init__(self, session: Session, model_id: str) -> None:
        self._session = session
        self._model_id = model_id

    def _bind(self, record: AgentRecord) -> AsyncAgent:
        return AsyncAgent._bind(record, self._session)

    def list(
        self, *, filter: Filter | None = None, sort: Sequence[str] = (), limit: int | None = None
    ) -> AsyncPages[AsyncAgent]:
        """List agents, lazily, the one heard last first unless sorted otherwise.

        Args:
            filter: Which ones; None for all. ``status`` is ``alive``, ``stopped`` or ``lost``.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
        """
        message = ListAgents(model_id=self._model_id, filter=filter, sort=tuple(sort))
        return listing(self._session, message, self._bind, limit=limit)
