"""Waiting for the journal's thread in a way that nothing cuts short."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio

__all__ = ["through"]


async def through(future: asyncio.Future[None], hurry: Callable[[], object] | None = None) -> None:
    """Return when the thread is through, whatever cancels this task meanwhile; then it is cancelled.

    Args:
        hurry: Called at first and every 0.1 s, to have it through sooner.

    Who is cancelled twice (``asyncio`` knows no shield against that) must not leave a journal that nobody gave up:
    nobody else in this process could keep it any more.
    """
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not future.done():
            if hurry is not None:
                hurry()
            try:
                await asyncio.wait((future,), timeout=None if hurry is None else 0.1)
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
    failure = future.exception()
    if cancelled is not None:
        raise cancelled
    if failure is not None:
        raise failure
