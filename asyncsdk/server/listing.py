"""Listings: one implementation of filter, sort, cursor and total for every kind of record.

A listing names its fields; whatever else a filter or sort names is refused with the names that are allowed. Pages are
keyset pages: a cursor says after which values the next page begins, so that a page costs the same wherever it lies and
records that come or go meanwhile shift nothing. Missing values (NULL) come before all others, going up.

Filters have two outcomes: a comparison with a missing value does not hold (``ne`` does), and ``Not`` turns that round.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import orjson
from sqlalchemy import ColumnElement, Connection, Integer, Select, and_, false, func, not_, or_, type_coerce
from sqlalchemy import literal as bound
from sqlalchemy import select as select_from

from asyncsdk.domain.filters import FIELD_PATTERN, AllOf, AnyOf, Condition, Filter, Not, Scalar
from asyncsdk.errors import BadRequest
from asyncsdk.protocol.base import ListMessage, Page, Record

__all__ = ["Field", "Listing", "list_page", "where"]

R = TypeVar("R", bound=Record)

Kind = Literal["text", "number", "boolean", "json"]

MAX_FILTER_DEPTH = 16
MAX_FILTER_VALUES = 5_000
"""SQLite takes 32,766 parameters in a statement; nobody needs that many by hand."""

MAX_CURSOR_CHARACTERS = 4096
"""What `ListMessage.cursor` takes."""

_MAX_INTEGER = 2**63 - 1
_KEY_LABEL = "_key_"


@dataclass(frozen=True, slots=True)
class Field:
    """One field a listing can be filtered and sorted by.

    Attributes:
        column: What it is in SQL.
        kind: What its values are; times are numbers (milliseconds).
        is_nullable: Whether it can be missing.
        is_unique: Whether no two records of the listing share a value: nothing needs to follow it in a sort.
    """

    column: ColumnElement[Any]
    kind: Kind = "text"
    is_nullable: bool = False
    is_unique: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """What a kind of record can be filtered and sorted by.

    Attributes:
        fields: Fields by name; ``id`` (or what *tie* names) must be among them.
        default_sort: Order when none is asked for. May name fields of *hidden*.
        metadata: The column that ``metadata.KEY`` reaches into; None when there is none.
        hidden: Fields for *default_sort* alone.
        tie: The fields that order records equal in everything else: together they are unique.
    """

    fields: Mapping[str, Field]
    default_sort: tuple[str, ...]
    metadata: ColumnElement[Any] | None = None
    hidden: Mapping[str, Field] | None = None
    tie: tuple[str, ...] = ("id",)

    def field(self, name: str) -> Field:
        """Return the field of that name.

        Raises:
            BadRequest: There is none; the message says which there are.
        """
        found = self.fields.get(name)
        if found is not None:
            return found
        if self.metadata is not None and name.startswith("metadata.") and re.fullmatch(FIELD_PATTERN, name):
            # Keys are written as in the stored text, where backslashes and control characters are escaped.
            path = "$" + "".join(f".{orjson.dumps(key).decode()}" for key in name.split(".")[1:])
            return Field(func.json_extract(self.metadata, bound(path)), kind="json", is_nullable=True)
        allowed = ", ".join(sorted(self.fields)) + (", metadata.KEY" if self.metadata is not None else "")
        raise BadRequest(f"there is no field {name!r} here; there are {allowed}")


# --- filters -------------------------------------------------------------------------------------------------


def where(listing: Listing, condition: Filter) -> ColumnElement[bool]:
    """Return *condition* in SQL.

    Raises:
        BadRequest: It names an unknown field, compares it with a value of another kind, or is too deep or too long.
    """
    budget = _Budget()
    return _translate(listing, condition, budget, depth=1)


@dataclass(slots=True)
class _Budget:
    values: int = MAX_FILTER_VALUES

    def take(self, count: int) -> None:
        self.values -= count
        if self.values < 0:
            raise BadRequest(f"a filter holds at most {MAX_FILTER_VALUES} values")


def _translate(listing: Listing, part: Filter, budget: _Budget, *, depth: int) -> ColumnElement[bool]:
    if depth > MAX_FILTER_DEPTH:
        raise BadRequest(f"a filter is at most {MAX_FILTER_DEPTH} levels deep")
    match part:
        case Condition():
            budget.take(len(part.value) if isinstance(part.value, tuple) else 1)
            return _compare(listing, part)
        case AllOf():
            return and_(*(_translate(listing, p, budget, depth=depth + 1) for p in part.parts))
        case AnyOf():
            return or_(*(_translate(listing, p, budget, depth=depth + 1) for p in part.parts))
        case Not():
            # SQL's third outcome, NULL, must be "does not hold" before it is turned round.
            return not_(func.coalesce(_translate(listing, part.part, budget, depth=depth + 1), false()))


def _compare(listing: Listing, condition: Condition) -> ColumnElement[bool]:
    field = listing.field(condition.field)
    if condition.op == "exists":
        exists = _json_type(listing, condition.field) if field.kind == "json" else field.column
        return exists.is_not(None) if condition.value else exists.is_(None)
    if field.kind == "json":
        return _compare_json(field.column, _json_type(listing, condition.field), condition)
    values = condition.value if isinstance(condition.value, tuple) else (condition.value,)
    for value in values:
        _check_kind(condition.field, field, value)
    return _compare_column(field.column, condition)


_ORDER: Mapping[str, Any] = {"lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge}


def _compare_column(column: ColumnElement[Any], condition: Condition) -> ColumnElement[bool]:
    value: Any = condition.value
    match condition.op:
        case "eq":
            return column.is_(None) if value is None else column == value
        case "ne":
            return column.is_not(None) if value is None else column.is_distinct_from(value)
        case "lt" | "le" | "gt" | "ge":
            return column.operate(_ORDER[condition.op], value)
        case "in":
            given = [v for v in value if v is not None]
            among = column.in_(given) if given else false()
            return or_(among, column.is_(None)) if None in value else among
        case "prefix":
            return _has_prefix(column, value)
        case _:
            return func.instr(column, value) > 0


def _has_prefix(column: ColumnElement[Any], prefix: str) -> ColumnElement[bool]:
    """A range, so that an index on the column serves it; nothing in the text acts as a wildcard."""
    if not prefix:
        return column.is_not(None)
    after = _after_prefix(prefix)
    return column >= prefix if after is None else and_(column >= prefix, column < after)


def _after_prefix(prefix: str) -> str | None:
    """Return the least text greater than all that begin with *prefix*; None when there is none."""
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    if following == 0xD800:  # surrogates are no characters
        following = 0xE000
    return kept[:-1] + chr(following)


def _check_kind(name: str, field: Field, value: Scalar) -> None:
    if value is None:
        return
    match field.kind:
        case "text":
            good = isinstance(value, str)
        case "boolean":
            good = isinstance(value, bool)
        case _:
            good = _is_number(value)
    if not good:
        raise BadRequest(f"field {name!r} is compared with a {field.kind}, not with {value!r:.40}")


def _json_type(listing: Listing, name: str) -> ColumnElement[Any]:
    extracted = listing.field(name).column
    return func.json_type(*extracted.clauses)  # the arguments of json_extract, see Listing.field


_JSON_NUMBERS = ("integer", "real")


def _compare_json(column: ColumnElement[Any], kind: ColumnElement[Any], condition: Condition) -> ColumnElement[bool]:
    """Compare like with like: in SQL alone, true equals 1 and every text is greater than every number."""
    value: Any = condition.value
    match condition.op:
        case "eq":
            return _equals_json(column, kind, value)
        case "ne":
            return not_(func.coalesce(_equals_json(column, kind, value), false()))
        case "in":
            return _among_json(column, kind, value)
        case "prefix":
            return and_(kind == "text", _has_prefix(column, value))
        case "contains":
            return and_(kind == "text", func.instr(column, value) > 0)
        case _:
            same_kind = kind == "text" if isinstance(value, str) else kind.in_(_JSON_NUMBERS)
            _check_json_number(condition.field, value)
            return and_(same_kind, _compare_column(column, condition))


def _equals_json(column: ColumnElement[Any], kind: ColumnElement[Any], value: Scalar) -> ColumnElement[bool]:
    if value is None:
        return or_(kind.is_(None), kind == "null")
    if isinstance(value, bool):
        return kind == ("true" if value else "false")
    if isinstance(value, str):
        return and_(kind == "text", column == value)
    _check_json_number("metadata", value)
    return and_(kind.in_(_JSON_NUMBERS), column == value)


def _among_json(column: ColumnElement[Any], kind: ColumnElement[Any], values: Sequence[Scalar]) -> ColumnElement[bool]:
    """One comparison for each kind of value: a thousand joined by OR are deeper than SQLite goes."""
    ways: list[ColumnElement[bool]] = [_equals_json(column, kind, None)] if None in values else []
    if truths := {value for value in values if isinstance(value, bool)}:
        ways.append(kind.in_(["true" if truth else "false" for truth in sorted(truths)]))
    if texts := [value for value in values if isinstance(value, str)]:
        ways.append(and_(kind == "text", column.in_(texts)))
    if numbers := [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]:
        for number in numbers:
            _check_json_number("metadata", number)
        ways.append(and_(kind.in_(_JSON_NUMBERS), column.in_(numbers)))
    return or_(false(), *ways)


def _is_number(value: Any) -> bool:
    """Whether SQLite takes the value as a number: integers have 64 bits, floats any size."""
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MAX_INTEGER


def _check_json_number(name: str, value: Any) -> None:
    if not isinstance(value, str) and not _is_number(value):
        raise BadRequest(f"field {name!r} cannot be compared with {value!r:.40}")


# --- pages ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Key:
    field: Field
    goes_down: bool


def list_page(
    connection: Connection,
    listing: Listing,
    statement: Select[Any],
    message: ListMessage[R],
    make_record: Callable[[Any], R],
) -> Page[R]:
    """Return one page.

    Args:
        connection: In a transaction.
        listing: What can be filtered and sorted by.
        statement: Selects what *make_record* needs, limited to the message's scope; without order.
        message: Filter, sort, limit, cursor, total.
        make_record: Makes a record of a row.

    Raises:
        BadRequest: The filter or the sort makes no sense here, or the cursor belongs to another listing.
    """
    if message.filter is not None:
        statement = statement.where(where(listing, message.filter))
    total = None
    if message.total:
        total = connection.execute(
            select_from(func.count()).select_from(statement.order_by(None).subquery())
        ).scalar_one()
    keys = _sort_keys(listing, message.sort)
    binding = _binding(message)
    page = statement.add_columns(*(key.field.column.label(f"{_KEY_LABEL}{i}") for i, key in enumerate(keys)))
    if message.cursor is not None:
        page = page.where(_after(keys, _read_cursor(message.cursor, keys, binding)))
    page = page.order_by(*(key.field.column.desc() if key.goes_down else key.field.column for key in keys))
    rows = connection.execute(page.limit(message.limit + 1)).all()
    cursor = None
    if len(rows) > message.limit:
        rows = rows[: message.limit]
        last = rows[-1]._mapping
        cursor = _write_cursor([last[f"{_KEY_LABEL}{i}"] for i in range(len(keys))], binding)
    entries = tuple(make_record(row) for row in rows)
    reply: Page[R] = message.reply_type(entries=entries, cursor=cursor, total=total)
    return reply


def _sort_keys(listing: Listing, sort: Sequence[str]) -> list[_Key]:
    keys: list[_Key] = []
    seen: set[str] = set()
    for name in sort or listing.default_sort:
        goes_down = name.startswith("-")
        name = name.removeprefix("-")
        if name in seen:
            raise BadRequest(f"the sort names {name!r} twice")
        seen.add(name)
        hidden = (listing.hidden or {}).get(name) if not sort else None
        field = hidden or listing.field(name)
        if field.kind == "boolean":  # SQLAlchemy orders no booleans; false and true are 0 and 1
            field = Field(type_coerce(field.column, Integer), "number", field.is_nullable)
        keys.append(_Key(field, goes_down))
        if keys[-1].field.is_unique:  # what follows cannot change the order
            return keys
    goes_down = keys[-1].goes_down
    keys.extend(_Key(listing.fields[name], goes_down) for name in listing.tie if name not in seen)
    return keys


def _after(keys: Sequence[_Key], values: Sequence[Scalar]) -> ColumnElement[bool]:
    """Return what holds for records that come after one with these *values*."""
    ways: list[ColumnElement[bool]] = []
    equal: list[ColumnElement[bool]] = []
    for key, value in zip(keys, values, strict=True):
        column = key.field.column
        ways.append(and_(*equal, _beyond(key, value)))
        equal.append(column.is_(None) if value is None else column == value)
    found = or_(*ways)
    first, start = keys[0], values[0]
    if len(keys) > 1 and not first.field.is_nullable:
        # Follows from the rest; said alone it lets an index begin there, which no OR does.
        begin = first.field.column <= start if first.goes_down else first.field.column >= start
        return and_(begin, found)
    return found


def _beyond(key: _Key, value: Scalar) -> ColumnElement[bool]:
    column = key.field.column
    if value is None:
        return false() if key.goes_down else column.is_not(None)
    if not key.goes_down:
        return column > value
    return or_(column < value, column.is_(None)) if key.field.is_nullable else column < value


def _binding(message: ListMessage[Any]) -> str:
    """Return a digest of everything that a cursor must not be used across."""
    scope = message.model_dump(mode="json", exclude={"limit", "cursor", "total"})
    said = orjson.dumps([type(message).__name__, scope], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(said).hexdigest()[:16]


def _write_cursor(values: Sequence[Scalar], binding: str) -> str:
    cursor = base64.urlsafe_b64encode(orjson.dumps([binding, *values])).decode().rstrip("=")
    if len(cursor) > MAX_CURSOR_CHARACTERS:
        raise BadRequest("the values of the sort are too long to page by; sort by another field")
    return cursor


def _read_cursor(cursor: str, keys: Sequence[_Key], binding: str) -> list[Scalar]:
    try:
        found = orjson.loads(base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)))
    except (UnicodeEncodeError, binascii.Error, orjson.JSONDecodeError):
        raise BadRequest("the cursor is damaged; begin the listing anew") from None
    if not isinstance(found, list) or len(found) != 1 + len(keys):
        raise BadRequest("the cursor is damaged; begin the listing anew")
    if found[0] != binding:
        raise BadRequest("the cursor belongs to another listing, filter or sort; begin the listing anew")
    values: list[Scalar] = found[1:]
    for key, value in zip(keys, values, strict=True):
        if not _fits(key.field, value):
            raise BadRequest("the cursor is damaged; begin the listing anew")
    return values


def _fits(field: Field, value: Any) -> bool:
    if value is None:
        return field.is_nullable
    match field.kind:
        case "text":
            return isinstance(value, str)
        case "number":
            return _is_number(value)
        case _:
            return isinstance(value, str) or _is_number(value)
