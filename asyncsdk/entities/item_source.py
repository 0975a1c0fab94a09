"""Turning whatever a user gave into batches of items, without blocking the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import anyio.to_thread

from asyncsdk.entities.globs import PathFilter
from asyncsdk.entities.item_uploads import (
    Given,
    ItemSource,
    ItemTable,
    ItemUpload,
    as_item_upload,
    is_file_object,
    take_some,
)
from asyncsdk.entities.walking import walk_folder
from asyncsdk.errors import ConfigError

__all__ = ["ItemBatches", "batches_of"]

_PATIENCE_SECONDS = 0.02
"""How long a started batch waits for the next element of an asynchronous iterable: long enough for a producer that is
busy, short enough that the last message of a quiet queue is not held back."""


class ItemBatches(Protocol):
    """Gives what is to be uploaded, some at a time."""

    can_repeat: bool
    """Whether one path may come twice; a folder cannot."""

    async def next(self, want: int) -> list[Given]:
        """Return up to *want* further elements; none means the end."""

    async def aclose(self) -> None:
        """Release the source."""


def batches_of(source: ItemSource, paths: PathFilter) -> ItemBatches:
    """Return the batches that *source* means.

    Raises:
        ConfigError: It is nothing that can be uploaded.
    """
    if is_file_object(source):
        raise ConfigError("an open file needs a path in the dataset: upload([ItemUpload(file, path)])")
    if isinstance(source, (bytes, bytearray, memoryview)):
        raise ConfigError("bytes need a path in the dataset: upload([ItemUpload(data, path)])")
    if isinstance(source, (str, PathLike)):
        path = Path(source)
        if path.is_file():
            return _Threaded(iter([ItemUpload(path)]), paths, can_repeat=False)
        return _Threaded(walk_folder(path, paths), PathFilter(), can_repeat=False)  # the walk itself filters
    if isinstance(source, ItemTable):
        return _Threaded(source.rows(), paths, can_repeat=True)
    if isinstance(source, Mapping) or hasattr(source, "to_dict"):
        return _Threaded(ItemTable(source).rows(), paths, can_repeat=True)
    if isinstance(source, AsyncIterable):
        return _Asynchronous(source, paths)
    if isinstance(source, Iterable):
        return _InLoop(source, paths)
    raise ConfigError(
        f"upload() takes a folder, a file, a table or an (asynchronous) iterable, not {type(source).__name__}"
    )


def _kept(batch: list[Given], paths: PathFilter) -> list[Given]:
    return [one for one in batch if not isinstance(one, ItemUpload) or paths.keeps(one.item_path)]


class _Threaded:
    """Iterators of ours that do blocking work: pulled in a worker thread."""

    def __init__(self, iterator: Iterator[Given], paths: PathFilter, *, can_repeat: bool) -> None:
        self._iterator = iterator
        self._paths = paths
        self.can_repeat = can_repeat

    async def next(self, want: int) -> list[Given]:
        while batch := await anyio.to_thread.run_sync(take_some, self._iterator, want):
            if kept := _kept(batch, self._paths):
                return kept
        return []

    async def aclose(self) -> None:
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()


class _InLoop:
    """A user's iterable: pulled in the event loop, because it need not bear another thread."""

    can_repeat = True

    def __init__(self, iterable: Iterable[Any], paths: PathFilter) -> None:
        self._iterator = iter(iterable)
        self._paths = paths

    async def next(self, want: int) -> list[Given]:
        while batch := take_some(self._iterator, want):
            if kept := _kept(batch, self._paths):
                return kept
        return []

    async def aclose(self) -> None:
        close = getattr(self._iterator, "close", None)
        if close is not None:
            close()


class _Asynchronous:
    """A user's asynchronous iterable: what has come within a moment makes a batch."""

    can_repeat = True

    def __init__(self, iterable: AsyncIterable[Any], paths: PathFilter) -> None:
        self._iterator: AsyncIterator[Any] = aiter(iterable)
        self._paths = paths
        self._pending: asyncio.Task[Any] | None = None
        self._ended = False

    async def _step(self) -> Any:
        return await anext(self._iterator)

    async def next(self, want: int) -> list[Given]:
        batch: list[Given] = []
        while not self._ended and len(batch) < want:
            if self._pending is None:
                self._pending = asyncio.create_task(self._step())
            # The step goes on when the wait ends: cancelling it would end the user's generator.
            await asyncio.wait({self._pending}, timeout=_PATIENCE_SECONDS if batch else None)
            if not self._pending.done():
                break
            pending, self._pending = self._pending, None
            try:
                one = as_item_upload(pending.result())
            except StopAsyncIteration:
                self._ended = True
                break
            batch.extend(_kept([one], self._paths))
        return batch

    async def aclose(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration):
                await self._pending
            self._pending = None
        close = getattr(self._iterator, "aclose", None)
        if close is not None:
            await close()
