"""Filters: one typed way to say which records a listing gives.

    Condition("size_bytes", "gt", 10_000)
    AllOf([Condition("path", "prefix", "train/"), AnyOf([...])])

Field names are those of the record; ``metadata.KEY`` (``metadata.KEY.KEY``) reaches into its metadata. A platform
translates a filter into what it speaks and refuses fields that its listing does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["AllOf", "AnyOf", "Condition", "Filter", "Not", "Operator", "Scalar"]

Scalar = str | int | float | bool | None

Operator = Literal["eq", "ne", "lt", "le", "gt", "ge", "in", "prefix", "contains", "exists"]
"""``prefix`` and ``contains`` compare text with case; ``in`` takes a list; ``exists`` takes true or false."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Condition(_Part):
    """One field compared with a value.

    Args:
        field: Field of the record, or ``metadata.KEY``.
        op: How it is compared.
        value: With what. Times are milliseconds since 1970 UTC.
    """

    kind: Literal["condition"] = "condition"
    field: str = Field(pattern=r"^[a-z_0-9]+$|^metadata(\.[^.\"]+)+$", max_length=200)
    op: Operator
    value: Scalar | tuple[Scalar, ...]

    def __init__(self, field: str, op: Operator, value: Scalar | Sequence[Scalar], **facts: object) -> None:
        kept = value if isinstance(value, Scalar) else tuple(value)
        super().__init__(field=field, op=op, value=kept, **facts)  # type: ignore[call-arg]  # pydantic's __init__

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
    parts: tuple[Filter, ...] = Field(min_length=1, max_length=100)

    def __init__(self, parts: Sequence[Filter], **facts: object) -> None:
        super().__init__(parts=tuple(parts), **facts)  # type: ignore[call-arg]  # pydantic's __init__


class AnyOf(_Part):
    """At least one part holds."""

    kind: Literal["any"] = "any"
    parts: tuple[Filter, ...] = Field(min_length=1, max_length=100)

    def __init__(self, parts: Sequence[Filter], **facts: object) -> None:
        super().__init__(parts=tuple(parts), **facts)  # type: ignore[call-arg]  # pydantic's __init__


class Not(_Part):
    """The part does not hold."""

    kind: Literal["not"] = "not"
    part: Filter

    def __init__(self, part: Filter, **facts: object) -> None:
        super().__init__(part=part, **facts)  # type: ignore[call-arg]  # pydantic's __init__


Filter = Annotated[Condition | AllOf | AnyOf | Not, Field(discriminator="kind")]

for _model in (AllOf, AnyOf, Not):
    _model.model_rebuild()
