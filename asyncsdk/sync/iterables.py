"""Iterables of the caller, pulled on the calling thread and read in the event loop."""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections import deque
from collections.abc import AsyncIterable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, cast

from pydantic import BaseModel

from asyncsdk.sync.bridge import Call, ForCaller

__all__ = ["CallerIterator", "caller_iterable", "caller_list", "caller_stream", "caller_streams"]

A = TypeVar("A")

MAX_BATCH = 256
"""Elements pulled per turn: one turn costs about as much as pulling so many."""

BATCH_SECONDS = 0.002
"""How long one turn pulls before it lets callbacks through."""

_AT_HAND = (list, tuple, dict, set, frozenset, str, bytes, bytearray, memoryview, range)
"""Types whose iteration runs no code of the user's; subclasses may."""

_TABLE_MARKS = ("read", "to_dict", "__array__", "__dataframe__", "__arrow_c_stream__")
"""What files, data frames and arrays have: they iterate, but are not meant element by element."""


class _CallerIterable(ForCaller):
    def __init__(self, iterable: Iterable[Any]) -> None:
        self._iterable = iterable

    def bind(self, call: Call) -> CallerIterator:
        return CallerIterator(self._iterable, call)


class _CallerStreams(ForCaller):
    def __init__(self, streams: Mapping[Any, Any]) -> None:
        self._streams = streams

    def bind(self, call: Call) -> dict[Any, Any]:
        return {
            name: stream.bind(call) if isinstance(stream, ForCaller) else stream
            for name, stream in self._streams.items()
        }


class CallerIterator:
    """An asynchronous iterator over an iterable that only the calling thread touches.

    Elements cross in batches of up to 256; none waits for the next one to be made. What the iterable raises is raised
    where it is read. When the call fails or is cancelled, a generator is closed.
    """

    def __init__(self, iterable: Iterable[Any], call: Call) -> None:
        self._iterable = iterable
        self._call = call
        self._iterator: Iterator[Any] | None = None
        self._ready: deque[Any] = deque()
        self._error: BaseException | None = None
        self._has_ended = False
        self._is_pulling = False
        self._is_reader_waiting = False
        self._waiter: asyncio.Future[None] | None = None
        call.on_close.append(self._close)

    # --- in the loop ---------------------------------------------------------------------------------------

    def __aiter__(self) -> CallerIterator:
        return self

    async def __anext__(self) -> Any:
        while True:
            # Said before looking: an element that comes after the look finds it set, and wakes the reader.
            self._is_reader_waiting = True
            if self._ready:
                self._is_reader_waiting = False
                return self._ready.popleft()
            if self._has_ended:
                if self._ready:
                    continue
                error, self._error = self._error, None
                if error is not None:
                    raise error
                raise StopAsyncIteration
            if not self._is_pulling:
                self._is_pulling = True
                if not self._call.post(self._pull):
                    raise asyncio.CancelledError(f"{self._call.name} was given up by its caller")
            self._waiter = self._call.loop.create_future()
            if not self._ready and not self._has_ended:
                await self._waiter

    async def aclose(self) -> None:
        """End the iteration; what is left stays in the caller's iterable."""
        self._ready.clear()
        self._has_ended = True

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _turn_over(self) -> None:
        self._is_pulling = False
        self._wake()

    # --- on the calling thread -----------------------------------------------------------------------------

    def _pull(self) -> None:
        try:
            self._pull_batch()
        except Exception as error:  # noqa: BLE001  # the user's; raised again where the elements are read
            self._error = error
            self._has_ended = True
        if self._call.host.pid == os.getpid():  # else this is a child, forked by the iterable
            self._call.loop.call_soon_threadsafe(self._turn_over)

    def _pull_batch(self) -> None:
        if self._iterator is None:
            self._iterator = iter(self._iterable)
        deadline = time.monotonic() + BATCH_SECONDS
        for _ in range(MAX_BATCH):
            try:
                element = next(self._iterator)
            except StopIteration:
                self._has_ended = True
                return
            self._ready.append(element)
            if self._is_reader_waiting:
                self._is_reader_waiting = False
                self._call.loop.call_soon_threadsafe(self._wake)
            if time.monotonic() > deadline:
                return

    def _close(self, has_failed: bool) -> None:
        self._ready.clear()
        # One that was given as a generator is left as it is after success: its owner may go on with it.
        is_ours = self._iterator is not None and self._iterator is not self._iterable
        if (has_failed or is_ours) and inspect.isgenerator(closing := self._iterator or self._iterable):
            closing.close()


def caller_iterable(iterable: A) -> A:
    """Mark an argument of `run` that may be an iterable of the user's: its code then runs on the calling thread.

    Paths, lists, tables, arrays, open files and asynchronous iterables are passed on as they are. An asynchronous
    iterable runs in the loop of the blocking calls; it must not be tied to another.
    """
    if type(iterable) in _AT_HAND or not _is_users(iterable):
        return iterable
    return cast("A", _CallerIterable(cast("Iterable[Any]", iterable)))


def caller_stream(stream: object) -> Any:
    """As `caller_iterable`, for a twin that takes asynchronous iterables only: lists are read like any other."""
    if isinstance(stream, (str, bytes, bytearray, memoryview)) or not _is_users(stream):
        return stream
    return _CallerIterable(cast("Iterable[Any]", stream))


def caller_streams(streams: object) -> Any:
    """As `caller_stream`, for every value of a mapping."""
    if not isinstance(streams, Mapping):
        return streams  # None, or what the twin refuses
    return _CallerStreams({name: caller_stream(stream) for name, stream in streams.items()})


def caller_list(iterable: A) -> A:
    """Return an iterable that the twin reads at once as a list, made on this thread; lists and text as they are."""
    if type(iterable) in _AT_HAND or not _is_users(iterable):
        return iterable
    return cast("A", list(cast("Iterable[Any]", iterable)))


def _is_users(value: object) -> bool:
    return (
        isinstance(value, Iterable)
        and not isinstance(value, (AsyncIterable, Mapping, BaseModel, os.PathLike))
        and not any(hasattr(value, mark) for mark in _TABLE_MARKS)
    )
