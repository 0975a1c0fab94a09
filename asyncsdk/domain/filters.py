"""Filters: one typed way to say which records a listing gives.

    Condition("size_bytes", "gt", 10_000)
    AllOf([Condition("path", "prefix", "train/"), AnyOf([...])])

Field names are those of the record; ``metadata.KEY`` (``metadata.KEY.KEY``) reaches into its metadata. A platform
translates a filter into what it speaks and refuses fields that its listing does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

__all__ = ["FIELD_PATTERN", "AllOf", "AnyOf", "Condition", "Filter", "Not", "Operator", "Scalar"]

FIELD_PATTERN = r"[a-z_0-9]+|metadata(\.[^.\"]+)+"
"""What all of a field's name must match, in filters and sorts."""

Scalar = str | int | float | bool | None

Operator = Literal["eq", "ne", "lt", "le", "gt", "ge", "in", "prefix", "contains", "exists"]
"""``prefix`` and ``contains`` compare text with case; ``in`` takes a list; ``exists`` takes true or false."""


def _as_tuple(value: Any) -> Any:
    """Take any sequence that is no text, as the signatures promise; pydantic itself knows a few kinds."""
    is_other = isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))
    return tuple(value) if is_other else value


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    _positional: ClassVar[tuple[str, ...]]

    if not TYPE_CHECKING:  # what a caller may give is typed in the subclasses

        def __init__(self, /, *values: Any, **facts: Any) -> None:
            # Pydantic calls this with whatever JSON held: all of it is for the validation to judge, no name is taken.
            if len(values) > len(self._positional):
                raise TypeError(f"{type(self).__name__} takes {', '.join(self._positional)}")
            super().__init__(**dict(zip(self._positional, values, strict=False)), **facts)


class Condition(_Part):
    """One field compared with a value.

    Args:
        field: Field of the record, or ``metadata.KEY``.
        op: How it is compared.
        value: With what. Times are milliseconds since 1970 UTC.
    """

    kind: Literal["condition"] = "condition"
    field: str = Field(pattern=f"^({FIELD_PATTERN})$", max_length=200)
    op: Operator
    value: Annotated[Scalar | tuple[Scalar, ...], BeforeValidator(_as_tuple)]

    _positional: ClassVar = ("field", "op", "value")

    if TYPE_CHECKING:

        def __init__(self, field: str, op: Operator, value: Scalar | Sequence[Scalar]) -> None: ...

    @model_validator(mode="after")
    def _check_value(self) -> Self:
        match self.op:
            case "in":
                if not isinstance(self.value, tuple) or len(self.value) > 1000:
                    raise ValueError("'in' takes a list of at most 1,000 values")
            case "exists":
                if not isinstance(self.value, bool):
                    raise ValueError("'exists' takes true or false")
            case "prefix" | "contains":
                if not isinstance(self.value, str):
                    raise ValueError(f"{self.op!r} takes text")
            case "lt" | "le" | "gt" | "ge":
                if self.value is None or isinstance(self.value, (tuple, bool)):
                    raise ValueError(f"{self.op!r} takes a number or text")
            case _:
                if isinstance(self.value, tuple):
                    raise ValueError(f"{self.op!r} takes one value; use 'in' for several")
        return self


class AllOf(_Part):
    """Every part holds."""

    kind: Literal["all"] = "all"
    parts: Annotated[tuple[Filter, ...], BeforeValidator(_as_tuple)] = Field(min_length=1, max_length=100)

    _positional: ClassVar = ("parts",)

    if TYPE_CHECKING:

        def __init__(self, parts: Sequence[Filter]) -> None: ...


class AnyOf(_Part):
    """At least one part holds."""

    kind: Literal["any"] = "any"
    parts: Annotated[tuple[Filter, ...], BeforeValidator(_as_tuple)] = Field(min_length=1, max_length=100)

    _positional: ClassVar = ("parts",)

    if TYPE_CHECKING:

        def __init__(self, parts: Sequence[Filter]) -> None: ...


class Not(_Part):
    """The part does not hold."""

    kind: Literal["not"] = "not"
    part: Filter

    _positional: ClassVar = ("part",)

    if TYPE_CHECKING:

        def __init__(self, part: Filter) -> None: ...


Filter = Annotated[Condition | AllOf | AnyOf | Not, Field(discriminator="kind")]

for _model in (AllOf, AnyOf, Not):
    _model.model_rebuild()
