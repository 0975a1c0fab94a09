"""A few at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

import anyio

__all__ = ["in_turn"]

T = TypeVar("T")


async def in_turn(elements: Iterable[T], work: Callable[[T], Awaitable[None]], *, at_once: int) -> None:
    """Do *work* for each element, *at_once* of them at a time, beginning in order.

    What one raises stops the others and comes out as it is; nothing runs any more when this returns.
    """
    left = iter(elements)
    failed: list[Exception] = []

    async def take(left: Iterator[T]) -> None:
        for element in left:
            try:
                await work(element)
            except Exception as error:  # noqa: BLE001  # raised below, by itself instead of in a group
                failed.append(error)
                group.cancel_scope.cancel()
                return

    async with anyio.create_task_group() as group:
        for _ in range(at_once):
            group.start_soon(take, left)
    if failed:
        raise failed[0]
