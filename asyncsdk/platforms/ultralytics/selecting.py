"""Filters and pages where the wire has none: applied here, to records that were read."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from asyncsdk.domain.filters import AllOf, AnyOf, Condition, Filter, Not
from asyncsdk.errors import BadRequest
from asyncsdk.protocol.base import ListMessage, Page, Record

__all__ = ["matches", "narrowing", "page_of"]

R = TypeVar("R", bound=Record)

_ORDERED: dict[str, Callable[[Any, Any], bool]] = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}


def matches(record: Record, condition: Filter | None) -> bool:
    """Whether *record* is one of those that a filter means. With a missing value no comparison holds but ``ne``.

    Raises:
        BadRequest: The filter names a field that the record does not have, or compares it with another kind of value.
    """
    match condition:
        case None:
            return True
        case AllOf():
            return all(matches(record, part) for part in condition.parts)
        case AnyOf():
            return any(matches(record, part) for part in condition.parts)
        case Not():
            return not matches(record, condition.part)
        case Condition():
            return _compare(_value(record, condition.field), condition)


def narrowing(condition: Filter | None) -> str | None:
    """Return text that the names of all records that *condition* means contain; None when it says nothing of names."""
    match condition:
        case Condition(field="name", op="eq" | "contains" | "prefix", value=str(text)):
            return text or None
        case AllOf():
            return next((found for found in map(narrowing, condition.parts) if found is not None), None)
    return None


def page_of(records: Iterable[R], message: ListMessage[Any], default_sort: Sequence[str]) -> Page[R]:
    """Return the page of *records* that a message asks for. Its cursor is a number of records.

    Raises:
        BadRequest: Filter, sort or cursor make no sense.
    """
    found = [record for record in records if matches(record, message.filter)]
    for name in reversed(message.sort or tuple(default_sort)):
        field = name.removeprefix("-")
        found.sort(key=lambda record: _sort_key(_value(record, field)), reverse=name.startswith("-"))
    cursor = message.cursor or "0"
    if not cursor.isascii() or not cursor.isdigit():
        raise BadRequest("this cursor is not of this listing")
    start, stop = int(cursor), int(cursor) + message.limit
    return Page(
        entries=tuple(found[start:stop]),
        cursor=str(stop) if stop < len(found) else None,
        total=len(found) if message.total else None,
    )


def _value(record: Record, field: str) -> Any:
    first, *keys = field.split(".")
    if first not in type(record).model_fields or (first == "metadata") != bool(keys):
        allowed = ", ".join(sorted(type(record).model_fields.keys() - {"metadata", "extra"}))
        raise BadRequest(f"there is no field {field!r} here; there are {allowed}")
    value = getattr(record, first)
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return round(value.timestamp() * 1000) if isinstance(value, datetime) else value


def _compare(value: Any, condition: Condition) -> bool:
    wanted = condition.value
    match condition.op:
        case "exists":
            return (value is not None) is wanted
        case "eq":
            return bool(value == wanted)
        case "ne":
            return bool(value != wanted)
        case "in":
            return isinstance(wanted, tuple) and value in wanted
        case "prefix" | "contains":
            if value is None:
                return False
            if not isinstance(value, str) or not isinstance(wanted, str):
                raise BadRequest(f"{condition.field!r} is no text, which {condition.op!r} compares")
            return value.startswith(wanted) if condition.op == "prefix" else wanted in value
    if value is None:
        return False
    if isinstance(value, str) is not isinstance(wanted, str):
        raise BadRequest(f"{condition.field!r} cannot be compared with {type(wanted).__name__}")
    return _ORDERED[condition.op](value, wanted)


def _sort_key(value: Any) -> tuple[bool, Any]:
    return (value is not None, 0 if value is None else value)
