"""Asynchronous iterators and context managers, used from blocking code."""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import Any, Generic, TypeVar

from asyncsdk.errors import ForkedProcessError
from asyncsdk.sync.bridge import run
from asyncsdk.sync.loop import current_loop_thread

__all__ = ["BlockingIterator", "context", "iterate"]

A = TypeVar("A")
T = TypeVar("T")

MAX_BATCH = 256
"""Elements that cross in one hop."""

BATCH_SECONDS = 0.002
"""How long a hop waits for more elements once it has one."""


class BlockingIterator(Iterator[T], Generic[T]):
    """Reads an asynchronous iterator in hops of up to *batch* elements.

    Ended early, it is closed by ``close()``; one that is dropped instead is closed in the background.

    Args:
        source: What to read.
        batch: Elements of one hop at most; what does not come within 2 ms of the one before waits for the next hop.
            1: nothing is read before it is asked for.
    """

    def __init__(self, source: AsyncIterable[T], *, batch: int = MAX_BATCH) -> None:
        self._source = source
        self._batch = batch
        self._iterator: AsyncIterator[T] | None = None
        self._ready: deque[T] = deque()
        self._pending: asyncio.Future[T] | None = None
        self._error: BaseException | None = None
        self._has_ended = False
        self._host = current_loop_thread()

    def __iter__(self) -> BlockingIterator[T]:
        return self

    def __next__(self) -> T:
        if not self._ready and self._error is None and not self._has_ended:
            self._check_process()
            run(self._pull)
        if self._ready:
            return self._ready.popleft()
        error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    async def _pull(self) -> None:
        try:
            if self._iterator is None:
                self._iterator = aiter(self._source)
            if self._batch == 1:
                self._ready.append(await anext(self._iterator))
            else:
                await self._pull_batch(self._iterator)
        except StopAsyncIteration:
            self._has_ended = True
        except BaseException as error:  # kept for the caller: elements that came before it are given first
            self._has_ended = True
            if not self._ready:
                raise
            self._error = error

    async def _pull_batch(self, iterator: AsyncIterator[T]) -> None:
        timeout = None
        while len(self._ready) < self._batch:
            if self._pending is None:
                self._pending = asyncio.ensure_future(anext(iterator))
            try:
                done, _ = await asyncio.wait({self._pending}, timeout=timeout)
            except asyncio.CancelledError:
                self._pending.cancel()
                with suppress(asyncio.CancelledError, StopAsyncIteration):
                    await self._pending
                self._pending = None
                raise
            if not done:
                return
            future, self._pending = self._pending, None
            self._ready.append(future.result())
            timeout = BATCH_SECONDS

    def close(self) -> None:
        """End the iteration and release what it holds. Calling it again does nothing."""
        self._ready.clear()
        if self._has_ended or self._iterator is None:
            self._has_ended = True
            return
        self._check_process()
        self._has_ended = True
        run(_close_iterator, self._iterator, self._pending)

    def _check_process(self) -> None:
        host = current_loop_thread()
        if host is self._host:
            return
        if self._pending is not None:
            raise ForkedProcessError(
                "this iteration is under way in the process that this one was forked from; begin a new one here"
            )
        self._host = host

    def __del__(self) -> None:
        # Never waits: the garbage collector may run this on any thread, the loop's own too.
        iterator, pending = getattr(self, "_iterator", None), getattr(self, "_pending", None)
        if iterator is not None and not self._has_ended:
            self._host.call_soon(_CloseLater(iterator, pending))


class _CloseLater:
    """Starts the closing of an iterator; what goes wrong is reported by the loop."""

    tasks: set[asyncio.Task[None]] = set()  # the loop keeps weak references only

    def __init__(self, iterator: AsyncIterator[Any], pending: asyncio.Future[Any] | None) -> None:
        self._iterator = iterator
        self._pending = pending

    def __call__(self) -> None:
        task = asyncio.ensure_future(_close_iterator(self._iterator, self._pending))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


async def _close_iterator(iterator: AsyncIterator[Any], pending: asyncio.Future[Any] | None) -> None:
    if pending is not None:
        pending.cancel()
        await asyncio.wait({pending})
        if not pending.cancelled():
            pending.exception()  # of an element nobody wants any more
    aclose: Callable[[], Awaitable[None]] | None = getattr(iterator, "aclose", None)
    if aclose is not None:
        await aclose()


def iterate(source: AsyncIterable[T], *, batch: int = MAX_BATCH) -> BlockingIterator[T]:
    """Return a blocking iterator over *source*; see `BlockingIterator`."""
    return BlockingIterator(source, batch=batch)


class _Held:
    """An asynchronous context manager that is open: one task enters and leaves it, as cancel scopes demand."""

    def __init__(self, manager: AbstractAsyncContextManager[Any]) -> None:
        self._manager = manager
        self._task: asyncio.Task[None] | None = None
        self._has_entered: asyncio.Event
        self._leave: asyncio.Future[BaseException | None]
        self._value: Any = None
        self._error: BaseException | None = None

    async def enter(self) -> Any:
        self._has_entered = asyncio.Event()
        self._leave = asyncio.get_running_loop().create_future()
        self._task = asyncio.get_running_loop().create_task(self._hold(), context=contextvars.copy_context())
        try:
            await self._has_entered.wait()
        except asyncio.CancelledError:
            self._task.cancel()
            await asyncio.wait({self._task})
            raise
        if self._task.done() or self._error is not None:
            await asyncio.wait({self._task})
            assert self._error is not None
            raise self._error
        return self._value

    async def _hold(self) -> None:
        try:
            async with self._manager as self._value:
                self._has_entered.set()
                error = await self._leave
                if error is not None:
                    raise error
        except BaseException as error:  # noqa: BLE001  # belongs to the block of the caller, who gets it in `leave`
            self._error = error
        finally:
            self._has_entered.set()

    async def leave(self, error: BaseException | None) -> bool:
        """Leave with *error* raised in the block; whether the manager dealt with it."""
        assert self._task is not None
        if not self._leave.done():
            self._leave.set_result(error)
        try:
            await asyncio.wait({self._task})
        except asyncio.CancelledError:
            self._task.cancel()
            await asyncio.wait({self._task})
            raise
        if self._error is None:
            return error is not None
        if self._error is error:
            return False
        raise self._error


@contextmanager
def context(manager: AbstractAsyncContextManager[A], convert: Callable[[A], T]) -> Iterator[T]:
    """Hold *manager* open while a ``with`` block runs on the calling thread; *convert* makes what the block gets.

    What the block raises is raised inside the manager too, which may deal with it, and comes out unchanged otherwise.
    """
    held = _Held(manager)
    host = current_loop_thread()
    value = convert(run(held.enter))
    try:
        yield value
    except BaseException as error:  # the manager must see whatever the block raised; raised again unless it took it
        _check_same_process(host, error)
        if not run(held.leave, error):
            raise
    else:
        _check_same_process(host, None)
        run(held.leave, None)


def _check_same_process(host: object, error: BaseException | None) -> None:
    if current_loop_thread() is not host:
        raise ForkedProcessError(
            "this block was entered in the process that this one was forked from; it is left there"
        ) from error
