"""The work behind ``dataset.verify``: folder and listing side by side, files summed in threads, several at once."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import cast

import anyio
import anyio.to_thread

from asyncsdk.domain.filters import Filter
from asyncsdk.engine import Progress, ProgressCallback, Refused
from asyncsdk.engine.temporaries import is_temporary
from asyncsdk.entities.globs import PathFilter
from asyncsdk.entities.local_files import checksum_of_file
from asyncsdk.entities.pages import AsyncPages, EntityPage, listing
from asyncsdk.entities.session import Session
from asyncsdk.entities.verifying import Comparison, ComparisonCallback, Verdict, Verification
from asyncsdk.entities.verifying_order import LocalPath, walk_in_order
from asyncsdk.entities.walking import printable
from asyncsdk.errors import AsyncSDKError, MalformedResponse, SourceNotFound, SourceUnreadable
from asyncsdk.os_errors import os_errors
from asyncsdk.protocol.base import MAX_BULK_ENTRIES
from asyncsdk.protocol.items import ItemRecord, ListItems

__all__ = ["compare_file", "verify_folder"]

_THREADS = min(16, 4 + (os.cpu_count() or 1))
"""Files summed at once: more than processors, because disks and network file systems are waited for."""

_BATCH_FILES = 64
"""One thread hop costs as much as summing a small file."""

_BATCH_BYTES = 4 * 1024 * 1024
_AHEAD = 4 * _THREADS
"""Batches that are under way, or wait for their turn to be told: a large file does not stop the others."""

_LOCAL_AT_ONCE = 1000
_PROGRESS_SECONDS = 0.1


@dataclass(slots=True)
class _Pair:
    """One path, and what stands under it on either side."""

    path: str
    is_local: bool
    size_remote: int | None = None
    crc32c_remote: str | None = None
    error: AsyncSDKError | None = None


@dataclass(slots=True)
class _Batch:
    """Pairs that one thread looks at; ``bytes_read`` is written by that thread alone."""

    pairs: list[_Pair] = field(default_factory=list)
    size_bytes: int = 0
    bytes_read: int = 0
    is_unwanted: bool = False

    def add(self, pair: _Pair) -> None:
        self.pairs.append(pair)
        if pair.is_local and pair.size_remote is not None:
            self.size_bytes += pair.size_remote

    @property
    def is_full(self) -> bool:
        return len(self.pairs) >= _BATCH_FILES or self.size_bytes >= _BATCH_BYTES

    def on_read(self, size_bytes: int) -> None:
        if self.is_unwanted:
            raise _Unwanted
        self.bytes_read += size_bytes


class _Unwanted(Exception):
    """Ends a thread for whose result nobody waits any more."""


async def verify_folder(
    session: Session,
    dataset_id: str,
    folder: Path,
    *,
    filter: Filter | None,
    paths: PathFilter,
    on_comparison: ComparisonCallback | None,
    on_progress: ProgressCallback | None,
) -> Verification:
    """Compare a folder with the items of a dataset; see `AsyncDataset.verify`.

    Both are read in order of path, so that memory stays the same whatever their number. Files of equal size are read
    by up to 16 threads at once.
    """
    message = ListItems(dataset_id=dataset_id, filter=filter, sort=("path",))
    listed: AsyncPages[ItemRecord] = listing(session, message, lambda record: record)
    pages = cast("AsyncGenerator[EntityPage[ItemRecord], None]", listed.pages(MAX_BULK_ENTRIES))
    local = walk_in_order(folder, paths)
    books = _Books(on_comparison, on_progress)
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="asyncsdk verify")
    pairs = _pairs(local, pages, paths, finds_more=filter is None)
    try:
        batch = _Batch()
        async for pair in pairs:
            batch.add(pair)
            if batch.is_full:
                await books.take(batch, threads.submit(_compare_batch, folder, batch))
                batch = _Batch()
        if batch.pairs:
            await books.take(batch, threads.submit(_compare_batch, folder, batch))
        await books.finish()
    finally:
        with anyio.CancelScope(shield=True):  # what a thread still reads is at most 1 MiB
            await books.abandon()
            threads.shutdown(wait=False)
            await pairs.aclose()
            await anyio.to_thread.run_sync(local.close)
    return books.result


async def compare_file(
    path: Path,
    *,
    name: str,
    size_bytes: int,
    crc32c: str,
    on_progress: ProgressCallback | None,
    on_comparison: ComparisonCallback | None,
) -> Verification:
    """Compare one file with an object of *size_bytes* and *crc32c*, called *name* in the result."""
    books = _Books(on_comparison, on_progress, bytes_total=size_bytes)
    batch = _Batch()
    batch.add(_Pair(name, is_local=True, size_remote=size_bytes, crc32c_remote=crc32c))
    threads = ThreadPoolExecutor(1, thread_name_prefix="asyncsdk verify")
    try:
        await books.take(batch, threads.submit(_compare_all, [str(path)], batch))
        await books.finish()
    finally:
        with anyio.CancelScope(shield=True):  # as above
            await books.abandon()
            threads.shutdown(wait=False)
    return books.result


class _Books:
    """Takes batches under way and tells what was found, in order."""

    def __init__(
        self,
        on_comparison: ComparisonCallback | None,
        on_progress: ProgressCallback | None,
        *,
        bytes_total: int | None = None,
    ) -> None:
        self.result = Verification()
        self._on_comparison = on_comparison
        self._on_progress = on_progress
        self._bytes_total = bytes_total
        self._under_way: deque[tuple[_Batch, Future[list[Comparison]]]] = deque()
        self._started = self._told_at = time.monotonic()

    async def take(self, batch: _Batch, result: Future[list[Comparison]]) -> None:
        """Add a batch; waits while many are under way."""
        self._under_way.append((batch, result))
        while len(self._under_way) >= _AHEAD or (self._under_way and self._under_way[0][1].done()):
            await self._tell_next()

    async def finish(self) -> None:
        """Wait for all batches."""
        while self._under_way:
            await self._tell_next()
        self._show(is_final=True)

    async def abandon(self) -> None:
        """Stop what is under way, and return when no thread reads any more."""
        waiting = []
        for batch, result in self._under_way:
            batch.is_unwanted = True
            if not result.cancel():
                waiting.append(asyncio.wrap_future(result))
        self._under_way.clear()
        if waiting:
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _tell_next(self) -> None:
        batch, result = self._under_way[0]
        while not result.done():
            await asyncio.wait([asyncio.wrap_future(result)], timeout=_PROGRESS_SECONDS)
            self._show()
        self._under_way.popleft()
        self.result.bytes_read += batch.bytes_read
        for comparison in result.result():
            self.result.add(comparison)
            if self._on_comparison is not None:
                self._on_comparison(comparison)
        self._show()

    def _show(self, *, is_final: bool = False) -> None:
        now = time.monotonic()
        self.result.seconds = now - self._started
        if self._on_progress is None or (now - self._told_at < _PROGRESS_SECONDS and not is_final):
            return
        self._told_at = now
        self._on_progress(
            Progress(
                done=self.result.same,
                failed=self.result.differing,
                active=sum(len(batch.pairs) for batch, _ in self._under_way),
                bytes_done=self.result.bytes_read + sum(batch.bytes_read for batch, _ in self._under_way),
                objects_total=None if self._bytes_total is None else 1,
                bytes_total=self._bytes_total,
                seconds=self.result.seconds,
                is_final=is_final,
            )
        )


# --- side by side --------------------------------------------------------------------------------------------


async def _pairs(
    local: Iterator[LocalPath | Refused],
    pages: AsyncGenerator[EntityPage[ItemRecord], None],
    paths: PathFilter,
    *,
    finds_more: bool,
) -> AsyncGenerator[_Pair, None]:
    """Yield every path that stands on either side, in order; *finds_more*: also those that have no item."""
    closed: tuple[bytes, AsyncSDKError] | None = None  # the folder that could not be listed
    async with aclosing(_items(pages, paths)) as items, aclosing(_files(local)) as files:
        item, file = await anext(items, None), await anext(files, None)
        while item is not None or file is not None:
            if isinstance(file, Refused):
                closed = (file.key, file.error)
                yield _Pair(file.name, is_local=True, error=file.error)
                file = await anext(files, None)
            elif file is None or (item is not None and item[0] < file.key):
                assert item is not None
                error = closed[1] if closed is not None and item[0].startswith(closed[0]) else None
                yield _Pair(item[1].path, False, item[1].size_bytes, item[1].crc32c, error)
                item = await anext(items, None)
            elif item is None or file.key < item[0]:
                # What a download has not finished is no file as yet, unless the dataset says so.
                if finds_more and not is_temporary(file.path.rpartition("/")[2]):
                    yield _Pair(file.path, True)
                file = await anext(files, None)
            else:
                yield _Pair(item[1].path, True, item[1].size_bytes, item[1].crc32c)
                item, file = await anext(items, None), await anext(files, None)


async def _items(
    pages: AsyncGenerator[EntityPage[ItemRecord], None], paths: PathFilter
) -> AsyncGenerator[tuple[bytes, ItemRecord], None]:
    latest = b""
    async with aclosing(pages):
        async for page in pages:
            for record in page.entries:
                key = record.path.encode()
                if key <= latest:
                    raise MalformedResponse("the platform listed items in another order than by their paths")
                latest = key
                if paths.keeps(record.path):
                    yield key, record


async def _files(local: Iterator[LocalPath | Refused]) -> AsyncGenerator[LocalPath | Refused, None]:
    while found := await anyio.to_thread.run_sync(lambda: list(islice(local, _LOCAL_AT_ONCE))):
        for one in found:
            yield one


# --- in threads ----------------------------------------------------------------------------------------------


def _compare_batch(folder: Path, batch: _Batch) -> list[Comparison]:
    # A Path for each costs 3 us more, and its name stays in a table of the interpreter that never shrinks.
    top = str(folder)
    return _compare_all((os.path.join(top, pair.path) for pair in batch.pairs), batch)  # noqa: PTH118


def _compare_all(paths: Iterable[str], batch: _Batch) -> list[Comparison]:
    """Compare the pairs of *batch* with what stands at *paths*."""
    try:
        return [_compare(path, pair, batch) for path, pair in zip(paths, batch.pairs, strict=True)]
    except _Unwanted:
        return []


def _compare(path: str, pair: _Pair, batch: _Batch) -> Comparison:
    """Return what stands on the two sides of *pair*."""
    if batch.is_unwanted:
        raise _Unwanted
    shown, size_remote, crc32c_remote = printable(pair.path), pair.size_remote, pair.crc32c_remote
    if pair.error is not None:
        return Comparison(shown, "unreadable", None, size_remote, None, crc32c_remote, pair.error)
    if not pair.is_local:
        return Comparison(shown, "missing_locally", None, size_remote, None, crc32c_remote)
    try:
        size = _size_of(path)
        if size_remote is None:
            return Comparison(shown, "missing_remotely", size)
        crc32c = checksum_of_file(path, size, on_read=batch.on_read) if size == size_remote else None
    except SourceNotFound as error:
        if size_remote is None:  # a link to nothing, or a file that was removed after it was found
            return Comparison(shown, "unreadable", error=error)
        return Comparison(shown, "missing_locally", None, size_remote, None, crc32c_remote)
    except AsyncSDKError as error:
        return Comparison(shown, "unreadable", None, size_remote, None, crc32c_remote, error)
    verdict: Verdict = "same" if crc32c is not None and crc32c == crc32c_remote else "different"
    return Comparison(shown, verdict, size, size_remote, crc32c, crc32c_remote)


def _size_of(path: str) -> int:
    shown = printable(path)
    with os_errors("source", source=shown):
        status = os.stat(path)  # noqa: PTH116  # pathlib's way costs 3 us more, for each of ten million files
    if not stat.S_ISREG(status.st_mode):
        raise SourceUnreadable(f"{shown}: is no regular file", source=shown)
    return status.st_size
