"""Downloads as an asynchronous iterator of bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self

import anyio

from asyncsdk.engine.transfers import Outcome, StreamSink
from asyncsdk.errors import AsyncSDKError, ConfigError

__all__ = ["ByteStream"]


class ByteStream(AsyncIterator[bytes]):
    """An asynchronous context manager that gives an asynchronous iterator over the bytes of one object: itself.

    Pieces come in order, each at most one part. They are handed out before the whole is verified: an iteration that
    ends without an error has given all bytes, and the right ones; one that raises has not. Leaving the block early ends
    the download. Memory: what the download itself sets aside, and one piece.

    Attributes:
        outcome: What became of the download, once the iteration has ended; None before.
    """

    def __init__(self, download: Callable[[StreamSink], Awaitable[Outcome]]) -> None:
        self._download = download
        self._task: asyncio.Task[Outcome] | None = None
        # No buffer: the next piece is fetched into the download's own memory, not into a queue.
        self._into, self._out = anyio.create_memory_object_stream[bytes](0)
        self.outcome: Outcome | None = None

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise ConfigError("a stream can be entered only once; call engine.stream again")
        self._task = asyncio.create_task(self._run(), name="asyncsdk stream")
        return self

    async def _run(self) -> Outcome:
        with self._into:
            return await self._download(StreamSink(self._into.send))

    async def __anext__(self) -> bytes:
        if self._task is None:
            raise ConfigError("bytes are there inside of `async with engine.stream(...) as pieces`")
        try:
            return await self._out.receive()
        except anyio.EndOfStream:
            self.outcome = await asyncio.shield(self._task)
            raise StopAsyncIteration from None

    def __aiter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._into.close()
        self._out.close()
        self._task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait({self._task})
        if not self._task.cancelled():
            # Looked at, so that asyncio does not call it never retrieved: the iteration raised it, or nobody wanted it.
            failure = self._task.exception()
            if failure is not None and not isinstance(failure, AsyncSDKError):
                raise failure
