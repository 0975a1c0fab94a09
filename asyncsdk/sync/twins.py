"""What blocking classes have in common: each holds, or can make, the asynchronous object that does the work."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Generic, Self, TypeVar

from asyncsdk.entities.base import BoundRecord

__all__ = ["BlockingRecord", "BlockingTwin", "blocking", "optional", "to_async", "unchanged"]

A = TypeVar("A")
B = TypeVar("B")


class BlockingTwin(Generic[A]):
    """A blocking object over an asynchronous one."""

    def __init__(self, twin: A) -> None:
        self._twin = twin

    @classmethod
    def _of(cls, twin: A) -> Self:
        blocking = cls.__new__(cls)
        blocking._twin = twin
        return blocking


class BlockingRecord(BoundRecord):
    """A record with blocking verbs.

    It is an instance of the same record class as its asynchronous twin and shares the twin's data; the twin itself is
    made for each call, so that copies and pickles hold nothing but the record.
    """

    @classmethod
    def _of(cls, twin: BoundRecord) -> Self:
        return cls._bind(twin, twin._client)


def blocking(value: A) -> A:
    """Return the blocking twin of an asynchronous entity, also inside of a list or tuple; anything else as it is.

    For values of which only they themselves tell what they are.
    """
    if type(value) in (list, tuple):
        return type(value)(map(blocking, value))  # type: ignore[call-arg,call-overload]
    module, name = type(value).__module__, type(value).__name__
    if not module.startswith("asyncsdk.entities.") or not name.startswith("Async"):
        return value
    twins: Any = import_module(module.replace("asyncsdk.", "asyncsdk.sync.", 1))
    twin: A = getattr(twins, name.removeprefix("Async"))._of(value)
    return twin


def optional(convert: Callable[[A], B], value: A | None) -> B | None:
    """Return *value* converted, None for None."""
    return None if value is None else convert(value)


def to_async(value: Any) -> Any:
    """Return the asynchronous twin of a blocking object, also inside of a list or tuple; anything else as it is."""
    if type(value) in (list, tuple):
        return type(value)(map(to_async, value))
    if isinstance(value, (BlockingRecord, BlockingTwin)):
        return value._twin  # type: ignore[union-attr]  # every generated record class has it
    return value


def unchanged(value: A) -> A:
    """Return *value*: what has no twin is the same in both."""
    return value
