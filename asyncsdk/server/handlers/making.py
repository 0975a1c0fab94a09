"""Records made of parts that were checked before: without validating them again."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

from asyncsdk.protocol.base import Record

__all__ = ["made"]

R = TypeVar("R", bound=Record)

_set = object.__setattr__  # records are frozen


@cache
def _names_of(record_type: type[Record]) -> set[str]:
    return set(record_type.model_fields)


def made(record_type: type[R], values: dict[str, Any]) -> R:
    """Return a record of exactly these fields, as pydantic's ``model_construct`` does for three times the time.

    For bulk replies: 0.8 us an entry, where a validated PreparedUpload takes several.

    Args:
        record_type: A record without private attributes; unknown fields are left out when such are validated.
        values: Every field, those with defaults too; kept, not copied.
    """
    record = record_type.__new__(record_type)
    _set(record, "__dict__", values)
    _set(record, "__pydantic_fields_set__", _names_of(record_type))  # shared: pydantic copies it before it changes it
    _set(record, "__pydantic_extra__", None)
    _set(record, "__pydantic_private__", None)
    return record
