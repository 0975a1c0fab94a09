"""Blocking work in threads, such that nothing is closed or deleted while a thread still uses it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import TypeVar

import anyio

__all__ = ["Threads", "run_abandonable"]

T = TypeVar("T")

_GLANCE_SECONDS = 0.0005
"""From here on, looking at a file was no matter of memory; a thread would have taken a tenth of that."""

_SLOW_SECONDS = 1.0


class Threads:
    """A small pool of threads for disk work and checksums.

    Its own pool, because the loop's default one serves name lookups and must not wait behind a disk. Threads start
    with the first call.

    Args:
        count: Threads at most.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._slow_until = 0.0
        self._pool: ThreadPoolExecutor | None = None

    async def run(self, function: Callable[..., T], *args: object, undo: Callable[[T], object] | None = None) -> T:
        """Return ``function(*args)``, run in a thread.

        When cancelled, the call waits until the thread is through: its caller is about to close the file that the
        thread is using, and the number of a closed file may already stand for another one. (``anyio.to_thread`` only
        waits when the cancellation comes from one of its scopes; ``asyncio.timeout`` and ``Task.cancel`` do not.)

        Args:
            undo: Called in the thread's place with a result that nobody will get because the call was cancelled.
        """
        started = self.submit(function, *args)
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

    async def glance(self, function: Callable[..., T], *args: object) -> T:
        """Return ``function(*args)``, called right here while that takes no time, as looks at files of local disks.

        After one that took longer than 0.5 ms (a network disk that asks its server), threads do it for a second.
        """
        started = monotonic()
        if started < self._slow_until:
            return await self.run(function, *args)
        try:
            return function(*args)
        finally:
            ended = monotonic()
            if ended - started > _GLANCE_SECONDS:
                self._slow_until = ended + _SLOW_SECONDS

    def submit(self, function: Callable[..., T], *args: object) -> Future[T]:
        """Run ``function(*args)`` in a thread; whoever waits for the future must not be cancelled before it is done.

        Once the interpreter is on its way out no thread takes work any more: what a program says last (an agent that
        takes its leave) is done here, while the caller waits.
        """
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._count, thread_name_prefix="asyncsdk-io")
        try:
            return self._pool.submit(function, *args)
        except RuntimeError:
            if threading.main_thread().is_alive():
                raise
        done: Future[T] = Future()
        try:
            done.set_result(function(*args))
        except BaseException as error:  # noqa: BLE001  # told through the future, as a thread would
            done.set_exception(error)
        return done

    async def run_in_steps(self, step: Callable[[], bool]) -> None:
        """Call *step* in threads until it returns False; a cancellation is noticed between two steps."""
        while await self.run(step):
            pass

    def close(self, *, wait: bool = False) -> None:
        """Let idle threads end. Calling it again does nothing; using the pool afterwards starts it again.

        Args:
            wait: Whether to return only when everything that was begun is through. Blocks.
        """
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=wait)


async def run_abandonable(function: Callable[..., T], *args: object, grace_seconds: float) -> T:
    """Return ``function(*args)``, run in a daemon thread of its own that a cancellation does not wait for for ever.

    For what may block without end and uses nothing that is closed here: reading a file object of the caller, which may
    be a pipe. `Threads` waits without limit, and the interpreter waits for its threads.

    Args:
        grace_seconds: How long a cancelled call waits for the thread before it leaves it behind.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def call() -> None:
        set_result: Callable[[], object]
        try:
            result = function(*args)
        except BaseException as raised:  # noqa: BLE001  # raised again where it is awaited
            error = _as_exception(raised)
            set_result = lambda: None if future.done() else future.set_exception(error)  # noqa: E731
        else:
            set_result = lambda: None if future.done() else future.set_result(result)  # noqa: E731
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(set_result)

    threading.Thread(target=call, name="asyncsdk-source", daemon=True).start()
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        with anyio.move_on_after(grace_seconds, shield=True):
            await asyncio.wait((future,))
        if future.done() and not future.cancelled():
            future.exception()  # looked at, so that asyncio does not call it never retrieved
        future.cancel()
        raise


def _as_exception(raised: BaseException) -> BaseException:
    # asyncio refuses StopIteration, which would end a coroutine instead of failing it.
    return RuntimeError("a thread raised StopIteration") if isinstance(raised, StopIteration) else raised
