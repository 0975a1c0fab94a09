"""What an operation is: one message class with its fields, its reply, its route.

From that one definition come the client's request (`platforms.rest`), the server's route, validation and OpenAPI page
(`server.http`), the capability table and the contract tests. Pure data, no I/O.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    ValidationError,
)

from asyncsdk.domain.filters import Filter
from asyncsdk.domain.ids import Id
from asyncsdk.errors import (
    AsyncSDKError,
    BadRequest,
    Conflict,
    InvalidName,
    InvalidRow,
    NotFound,
    response_error,
    word_of,
)

__all__ = [
    "Delete",
    "Empty",
    "EntityRecord",
    "Get",
    "ListMessage",
    "Message",
    "Metadata",
    "Page",
    "Patch",
    "Post",
    "Problem",
    "Record",
    "Route",
    "Timestamp",
    "Value",
    "all_messages",
    "query_text",
]

MAX_BULK_ENTRIES = 1000
"""Entries of one bulk message, and of one page."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def _timestamp_from_wire(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return _EPOCH + timedelta(milliseconds=value)
        except OverflowError:
            raise ValueError("a time lies between the years 1 and 9999; give milliseconds since 1970 UTC") from None
    return value


def _check_moment(value: datetime) -> datetime:
    if value.utcoffset() is None:
        raise ValueError("a time needs a time zone; give an aware datetime")
    if not _FIRST <= value <= _LAST:  # a zone reaches some hours further; the store and the wire know UTC
        raise ValueError("a time lies between the years 1 and 9999 in UTC")
    return value


def _timestamp_to_wire(value: datetime) -> int:
    return (value - _EPOCH) // _MILLISECOND


Timestamp = Annotated[
    datetime,
    BeforeValidator(_timestamp_from_wire, json_schema_input_type=int),
    AfterValidator(_check_moment),
    PlainSerializer(_timestamp_to_wire, return_type=int),
]
"""A point in time: an aware UTC `datetime` in Python, milliseconds since 1970 UTC on the wire and in the store."""


def _check_finite(value: Any) -> Any:
    stack = [value]
    while stack:
        part = stack.pop()
        if isinstance(part, float) and not math.isfinite(part):
            raise ValueError("JSON has no number for NaN or infinity; use null or text")
        if isinstance(part, dict):
            stack.extend(part.values())
        elif isinstance(part, list):
            stack.extend(part)
    return value


Metadata = Annotated[dict[str, JsonValue], AfterValidator(_check_finite)]
"""Any JSON object with finite numbers."""

Crc32cHex = Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
"""crc32c as eight lower-case hexadecimal digits."""


class Value(BaseModel):
    """Base of everything a message or record is made of."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="null")


class Record(Value):
    """What a platform says of one thing. Fields that this release does not know are left out."""


class EntityRecord(Record):
    """A record with an identity and a history.

    Attributes:
        id: 24 lower-case hexadecimal digits.
        created_at: When it was made.
        updated_at: When it last changed; greater after every change.
        created_by: Id of the user who made it; None when the platform does not say.
        metadata: JSON object of the user's own.
        extra: What a service says of it that has no field here.
    """

    id: Id
    created_at: Timestamp
    updated_at: Timestamp
    created_by: str | None = None
    metadata: Metadata = Field(default_factory=dict)
    extra: dict[str, JsonValue] = Field(default_factory=dict)


class Empty(Record):
    """Nothing to say."""


R = TypeVar("R")


class Page(Record, Generic[R]):
    """One answer of a listing.

    Attributes:
        entries: At most ``limit`` records, in the order asked for.
        cursor: Give it back for the next page; None when this was the last. Opaque.
        total: How many records the whole listing has, when that was asked for.
    """

    entries: tuple[R, ...]
    cursor: str | None = None
    total: int | None = None


_PROBLEM_TYPES: dict[str, type[AsyncSDKError]] = {"conflict": Conflict, "not_found": NotFound}

_PASSING = frozenset({"store_unavailable", "still_checking"})
"""Codes of problems that another attempt may not have."""


class Problem(Record):
    """Why one entry of a bulk message was refused: a stable code and a sentence."""

    code: str
    message: str
    line: int | None = None

    @classmethod
    def of(cls, error: AsyncSDKError) -> Problem:
        """Return what to say of *error*."""
        if isinstance(error, InvalidRow):
            return cls(code=error.code, message=error.reason, line=error.line)
        return cls(code=word_of(error), message=error.reason if isinstance(error, InvalidName) else str(error))

    def to_error(self, *, name: str = "", file: str = "") -> AsyncSDKError:
        """Return the typed error; *name* and *file* say what it concerns."""
        if self.code == InvalidName.code:
            return InvalidName(name, self.message)
        if self.code == InvalidRow.code:
            return InvalidRow(self.message, line=self.line or 0, file=file)
        cls = _PROBLEM_TYPES.get(self.code)
        text = f"{name}: {self.message}" if name else self.message
        if cls is not None:
            return cls(text)
        return response_error(503 if self.code in _PASSING else 400, text, code=self.code)


Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True, slots=True)
class Route:
    """Where an operation lives in the REST API.

    Path placeholders are fields of the message. The other fields travel as the JSON body of POST, PUT and PATCH, and
    in the query of GET and DELETE, where whatever is not text is written as JSON. Fields that were not given are
    left out.
    """

    method: Method
    path: str

    @property
    def path_fields(self) -> tuple[str, ...]:
        """Names of the placeholders, in order."""
        return tuple(_PLACEHOLDER.findall(self.path))

    @property
    def has_body(self) -> bool:
        """Whether fields travel as a JSON body."""
        return self.method in {"POST", "PUT", "PATCH"}


def Get(path: str) -> Route:  # noqa: N802  # reads as what it is in a class body
    """Return the route GET *path*."""
    return Route("GET", path)


def Post(path: str) -> Route:  # noqa: N802
    """Return the route POST *path*."""
    return Route("POST", path)


def Patch(path: str) -> Route:  # noqa: N802
    """Return the route PATCH *path*."""
    return Route("PATCH", path)


def Delete(path: str) -> Route:  # noqa: N802
    """Return the route DELETE *path*."""
    return Route("DELETE", path)


_MAX_PROBLEMS = 5
_registry: dict[str, type[Message[Any]]] = {}


def _explained(error: ValidationError) -> AsyncSDKError:
    """Return what to raise in place of pydantic's error, which would quote the values."""
    problems = error.errors(include_url=False, include_input=False)
    cause = problems[0].get("ctx", {}).get("error")
    if isinstance(cause, InvalidName):
        return cause
    shown = [
        f"{'.'.join(map(str, problem['loc']))[:200] or 'message'}: {problem['msg'].removeprefix('Value error, ')}"
        for problem in problems[:_MAX_PROBLEMS]
    ]
    if len(problems) > _MAX_PROBLEMS:
        shown.append(f"and {len(problems) - _MAX_PROBLEMS} more")
    return BadRequest("; ".join(shown))


class Message(Value, Generic[R]):
    """One operation. Its reply is of type ``R``; what it does stands in the subclass's docstring."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    route: ClassVar[Route]
    reply_type: ClassVar[Any]
    repeatable_by: ClassVar[str | None] = None
    """The field that makes repeating the message safe when it is given; None: it is safe as it is."""

    def __init__(self, /, **fields: Any) -> None:
        """Build the message.

        Raises:
            InvalidName: A name or path cannot be used.
            BadRequest: Other fields make no sense; the message says which and why, and never their values.
        """
        try:
            super().__init__(**fields)
        except ValidationError as error:
            raise _explained(error) from None
        except RecursionError:
            raise BadRequest("the message is nested too deeply") from None

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if "route" not in cls.__dict__:
            return
        for base in cls.__mro__:
            arguments: tuple[Any, ...] = getattr(base, "__pydantic_generic_metadata__", {}).get("args", ())
            if arguments:
                record: Any = arguments[0]
                cls.reply_type = Page.__class_getitem__(record) if issubclass(cls, ListMessage) else record
                break
        unknown = set(cls.route.path_fields) - cls.model_fields.keys()
        if unknown:
            raise TypeError(f"{cls.__name__}: the route names {unknown}, which are no fields")
        _registry[cls.__name__] = cls

    def split(self) -> tuple[str, dict[str, Any]]:
        """Return the path with its placeholders filled, and the other fields that were given, JSON-ready."""
        # Fields inside fields go whole, defaults too: the kind of a filter is one.
        values = self.model_dump(mode="json", include=self.model_fields_set)
        path = self.route.path
        for name in self.route.path_fields:
            path = path.replace("{" + name + "}", str(values.pop(name)))
        if not self.route.has_body:  # a query has no null: text of that spelling would be taken for it
            values = {name: value for name, value in values.items() if value is not None}
        return path, values

    @property
    def is_repeatable(self) -> bool:
        """Whether sending the message again after a reply was lost changes nothing more."""
        return self.repeatable_by is None or getattr(self, self.repeatable_by) is not None

    @classmethod
    def from_query(cls, values: Mapping[str, str]) -> dict[str, Any]:
        """Return the fields that came in a query, to be validated.

        Raises:
            ValueError: A field that is not text holds no JSON.
        """
        text = _text_fields(cls)
        return {name: value if name in text else orjson.loads(value) for name, value in values.items()}


@cache
def _text_fields(message_type: type[Message[Any]]) -> frozenset[str]:
    properties = message_type.model_json_schema().get("properties", {})
    return frozenset(
        name
        for name, schema in properties.items()
        if any(form.get("type") == "string" for form in schema.get("anyOf", [schema]))
    )


class ListMessage(Message[Page[R]], Generic[R]):
    """A listing: one shape for all.

    Attributes:
        filter: Which records; None for all.
        sort: Field names, ``-`` before one that goes down; ties go by id. Empty: the listing's own order.
        limit: Records of a page.
        cursor: From the page before; filter and sort must be the same.
        total: Whether to count the whole listing.
    """

    filter: Filter | None = None
    sort: tuple[str, ...] = Field(default=(), max_length=8)
    limit: int = Field(default=100, ge=1, le=MAX_BULK_ENTRIES)
    cursor: str | None = Field(default=None, max_length=4096)
    total: bool = False


def all_messages() -> Iterator[type[Message[Any]]]:
    """Yield every operation, in the order of definition."""
    yield from _registry.values()


def query_text(value: Any) -> str:
    """Return *value* as it stands in a query: text as it is, everything else as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
