"""Cancels a task at its k-th suspension, counted over it and every task it starts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any

__all__ = ["cancel_at"]


class _Counted:
    """Awaits a coroutine and counts how often it suspends."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], on_suspend: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._on_suspend = on_suspend

    def __await__(self) -> Generator[Any, Any, Any]:
        step, argument = self._coroutine.send, None
        while True:
            try:
                waits_for = step(argument)  # type: ignore[arg-type]
            except StopIteration as end:
                return end.value
            self._on_suspend()
            try:
                argument = yield waits_for
                step = self._coroutine.send
            except BaseException as error:  # noqa: BLE001  # passed into the coroutine, as the loop would
                argument = error  # type: ignore[assignment]
                step = self._coroutine.throw  # type: ignore[assignment]


async def cancel_at(k: int, make: Callable[[], Coroutine[Any, Any, None]]) -> bool:
    """Run ``make()`` as a task and cancel it at suspension *k*; returns whether it came to its end before that."""
    loop = asyncio.get_running_loop()
    seen = 0
    task: asyncio.Task[None] | None = None
    counting: set[asyncio.Task[Any]] = set()

    def on_suspend() -> None:
        nonlocal seen
        seen += 1
        if seen == k and task is not None:
            loop.call_soon(task.cancel)

    async def counted(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return await _Counted(coroutine, on_suspend)

    def factory(
        loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **facts: Any
    ) -> asyncio.Task[Any]:
        ours = task is None or asyncio.current_task(loop) in counting
        if not ours or "_accept" in repr(coroutine):
            return asyncio.Task(coroutine, loop=loop, **facts)
        made = asyncio.Task(counted(coroutine), loop=loop, **facts)
        counting.add(made)
        return made

    before = loop.get_task_factory()
    loop.set_task_factory(factory)
    try:
        task = loop.create_task(make())
        await asyncio.wait([task])
    finally:
        loop.set_task_factory(before)
    if task.cancelled():
        return False
    task.result()
    return True
