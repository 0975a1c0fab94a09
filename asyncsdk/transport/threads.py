"""Blocking work in threads, such that nothing is closed or deleted while a thread still uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import anyio

__all__ = ["Threads"]

T = TypeVar("T")


class Threads:
    """A small pool of threads for disk work and checksums.

    Its own pool, because the loop's default one serves name lookups and must not wait behind a disk. Threads start
    with the first call.

    Args:
        count: Threads at most.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._pool: ThreadPoolExecutor | None = None

    async def run(self, function: Callable[..., T], *args: object, undo: Callable[[T], object] | None = None) -> T:
        """Return ``function(*args)``, run in a thread.

        When cancelled, the call waits until the thread is through: its caller is about to close the file that the
        thread is using, and the number of a closed file may already stand for another one. (``anyio.to_thread`` only
        waits when the cancellation comes from one of its scopes; ``asyncio.timeout`` and ``Task.cancel`` do not.)

        Args:
            undo: Called in the thread's place with a result that nobody will get because the call was cancelled.
        """
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="asyncsdk-io")
        started: Future[T] = self._pool.submit(function, *args)
        future = asyncio.wrap_future(started)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if future.cancelled() or started.cancel():
                raise
            with anyio.CancelScope(shield=True):
                while not future.done():
                    try:
                        await asyncio.wait((future,))
                    except asyncio.CancelledError:
                        continue  # told once more; the one that arrived first is raised below
            if future.exception() is None and undo is not None:
                undo(future.result())
            raise

    async def run_in_steps(self, step: Callable[[], bool]) -> None:
        """Call *step* in threads until it returns False; a cancellation is noticed between two steps."""
        while await self.run(step):
            pass

    def close(self) -> None:
        """Let idle threads end. Calling it again does nothing; using the pool afterwards starts it again."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None
