"""What awaiting a job gives: the platform keeps JSON, and each kind says what that is for users."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["job_result", "result_converter"]

C = TypeVar("C", bound=Callable[[Any], Any])

_converters: dict[str, Callable[[Any], Any]] = {}


def job_result(kind: str) -> Callable[[C], C]:
    """Register the decorated function: it takes a succeeded job of *kind* and returns what awaiting it gives."""

    def register(convert: C) -> C:
        _converters[kind] = convert
        return convert

    return register


def result_converter(kind: str) -> Callable[[Any], Any] | None:
    """Return what was registered for *kind*; None: the result is given as it is."""
    return _converters.get(kind)
