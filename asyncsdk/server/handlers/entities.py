"""What the handlers of all entities share: finding rows, creating once, changing under a condition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Row, Table, insert, select, update

from asyncsdk.errors import BadRequest, Conflict, NotFound
from asyncsdk.protocol.base import EntityRecord, Message, Value
from asyncsdk.server.handlers.registry import Context

__all__ = ["add", "change", "fetch", "history_fields", "milliseconds", "repeated", "to_record"]

E = TypeVar("E", bound=EntityRecord)


def fetch(
    context: Context, table: Table, entity_id: str, kind: str, *, with_deleted: bool = False, **scope: str
) -> Row[Any]:
    """Return the row of an id, within *scope* (column and value).

    Args:
        context: Of the message.
        table: Where to look.
        entity_id: The id.
        kind: What it is the id of, for the error.
        with_deleted: Also when it was deleted softly; else such a row is not there.
        scope: Columns and the values they must have.

    Raises:
        NotFound: There is none.
    """
    statement = select(table).where(table.c.id == entity_id)
    for name, value in scope.items():
        statement = statement.where(table.c[name] == value)
    row = context.connection.execute(statement).first()
    if row is None or (not with_deleted and row._mapping.get("deleted_at") is not None):
        raise NotFound(f"there is no {kind} {entity_id}")
    return row


def to_record(record_type: type[E], row: Row[Any]) -> E:
    """Return the record of a row; columns that the record does not know are left out."""
    return record_type.model_validate(row._mapping)


def history_fields(context: Context) -> dict[str, Any]:
    """Return the columns that say when and by whom, for a row made now."""
    return {"created_at": context.now_ms, "updated_at": context.now_ms, "created_by": context.principal.user_id}


def repeated(context: Context, table: Table, entity_id: str | None, kind: str, **same: str) -> Row[Any] | None:
    """Return the row that an earlier create with this id made; None when this is the first.

    Raises:
        Conflict: The id belongs to something else: one of *same* (column and value) differs, or it was deleted softly.
    """
    if entity_id is None:
        return None
    row = context.connection.execute(select(table).where(table.c.id == entity_id)).first()
    if row is None:
        return None
    if any(row._mapping[name] != value for name, value in same.items()):
        raise Conflict(f"the id {entity_id} belongs to another {kind}", ids=(entity_id,))
    if row._mapping.get("deleted_at") is not None:
        raise Conflict(f"the id {entity_id} belongs to a {kind} that was deleted; restore it", ids=(entity_id,))
    return row


def add(context: Context, table: Table, values: Mapping[str, Any]) -> Row[Any]:
    """Insert a row made now and return it."""
    row = {**history_fields(context), **values}
    context.connection.execute(insert(table).values(row))
    return context.connection.execute(select(table).where(table.c.id == row["id"])).one()


def change(
    context: Context,
    table: Table,
    row: Row[Any],
    message: Message[Any],
    names: Iterable[str],
    extra: Mapping[str, Any] | None = None,
) -> Row[Any]:
    """Set those of *names* that the message gives, provided the row is as old as the message thinks.

    A field given as None counts as not given: no field can be emptied that way. When the row holds already all that is
    given, nothing is done and the condition is not looked at: the message may be the repetition of one whose reply was
    lost, which meets its own change.

    Args:
        context: Of the message.
        table: The row's.
        row: As it is now.
        message: Has ``if_updated_at`` and a field for each of *names*.
        names: Columns that may change.
        extra: Further columns to set when something changes.

    Raises:
        Conflict: The row changed since ``if_updated_at`` (status 412).
        BadRequest: ``if_updated_at`` has no time zone.
    """
    known: datetime | None = message.if_updated_at  # type: ignore[attr-defined]  # every update message has it
    expected = None if known is None else milliseconds(known)
    given = {name: _as_stored(getattr(message, name)) for name in names if name in message.model_fields_set}
    changes = {name: value for name, value in given.items() if value is not None and value != row._mapping[name]}
    if not changes:
        return row
    if expected is not None and expected != row.updated_at:
        raise Conflict(
            "it was changed meanwhile; refresh it, then change it again",
            status=412,
            code="precondition_failed",
            ids=(row.id,),
        )
    # Strictly greater than before, so that two changes within one millisecond are told apart.
    changes["updated_at"] = max(context.now_ms, row.updated_at + 1)
    context.connection.execute(update(table).where(table.c.id == row.id).values({**changes, **(extra or {})}))
    return context.connection.execute(select(table).where(table.c.id == row.id)).one()


def _as_stored(value: Any) -> Any:
    if isinstance(value, Value):
        return value.model_dump(mode="json")
    return list(value) if isinstance(value, tuple) else value


def milliseconds(moment: datetime) -> int:
    """Return a message's time as the store keeps it.

    Raises:
        BadRequest: It does not say in which time zone.
    """
    if moment.tzinfo is None:
        raise BadRequest("a time needs a time zone; give an aware datetime")
    return round(moment.timestamp() * 1000)
