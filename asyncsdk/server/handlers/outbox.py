"""Events: written in the transaction of the change they tell of, so that neither is ever there without the other."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, delete, insert

from asyncsdk.server.handlers.registry import Context
from asyncsdk.server.schema import outbox

__all__ = ["prune_events", "tell"]

EVENT_LIFETIME_MS = 30 * 24 * 60 * 60 * 1000
"""How long an event waits for whoever wants to hear of it."""


def tell(context: Context, kind: str, entity_id: str, /, **payload: Any) -> None:
    """Write an event: what happened (*kind*), to what, and the facts of it."""
    context.connection.execute(
        insert(outbox).values(kind=kind, entity_id=entity_id, payload=payload, created_at=context.now_ms)
    )


def prune_events(connection: Connection, *, now_ms: int) -> None:
    """Remove events that are 30 days old."""
    connection.execute(delete(outbox).where(outbox.c.created_at < now_ms - EVENT_LIFETIME_MS))
