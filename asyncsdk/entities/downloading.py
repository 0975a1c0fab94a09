"""The feed behind ``dataset.download``: list a page, look what is there already, ask where the rest can be read."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import anyio.to_thread

from asyncsdk.checksums import crc32c_hex
from asyncsdk.domain.filters import Condition, Filter
from asyncsdk.domain.paths import path_below
from asyncsdk.engine import Download, Outcome, Refused, Skipped, Transfer, Upload
from asyncsdk.engine.journal import Entry, Identity
from asyncsdk.engine.received import Received
from asyncsdk.entities.clashes import NameClashes, clashes_in
from asyncsdk.entities.download_books import DownloadBooks, is_as_written
from asyncsdk.entities.globs import PathFilter
from asyncsdk.entities.local_files import checksum_of_file
from asyncsdk.entities.pages import EntityPage, listing
from asyncsdk.entities.patience import Hurried
from asyncsdk.entities.session import Session
from asyncsdk.entities.together import Together
from asyncsdk.errors import AsyncSDKError, Conflict, NotFound
from asyncsdk.protocol.base import MAX_BULK_ENTRIES
from asyncsdk.protocol.items import ItemRecord, ListItems, PrepareDownloads
from asyncsdk.targets import Origin, Target

__all__ = ["ItemDownloadFeed", "OnExistingFile"]

OnExistingFile = Literal["skip_same", "overwrite", "fail"]
"""What happens to a file that stands where an item goes: nothing when size and crc32c are equal and replaced otherwise
(``skip_same``), replaced (``overwrite``), refused (``fail``)."""


class ItemDownloadFeed(Hurried):
    """Gives the downloads that bring items of a dataset into a folder.

    Args:
        session: Where messages go.
        dataset_id: The dataset.
        folder: Where files go.
        filter: Which items; None for all.
        paths: Which paths.
        on_existing: What happens to files that stand there.
        dry_run: Whether to say what would be fetched instead of fetching it: such outcomes are ``skipped`` with the
            reply ``would_fetch``.
        books: Its journal; None: none is kept.
        only: Paths of the items, as many at once as a filter may name, in place of *filter*: what is no item is
            refused. None: those that *filter* means.
    """

    def __init__(
        self,
        session: Session,
        dataset_id: str,
        folder: Path,
        *,
        filter: Filter | None,
        paths: PathFilter,
        on_existing: OnExistingFile,
        dry_run: bool = False,
        books: DownloadBooks | None = None,
        only: AsyncIterator[Sequence[str]] | None = None,
    ) -> None:
        self._session = session
        self._dataset_id = dataset_id
        self._folder = folder
        self._paths = paths
        self._on_existing = on_existing
        self._dry_run = dry_run
        self._books = books
        self._pages = self._listed(filter) if only is None else self._named(only)
        self._renewals = Together(self._origins, MAX_BULK_ENTRIES)
        self._waiting: deque[ItemRecord] = deque()
        self._gone: deque[Refused] = deque()
        self._is_first = True
        self._clashes: NameClashes | None = None

    async def take(self, want: int) -> Sequence[Transfer]:
        while not self._waiting:
            if self._gone:
                return [self._gone.popleft() for _ in range(min(want, len(self._gone)))]
            page = await anext(self._pages, None)
            if page is None:
                return ()
            self._waiting.extend(item for item in page.entries if self._paths.keeps(item.path))
        items = [self._waiting.popleft() for _ in range(min(want, MAX_BULK_ENTRIES, len(self._waiting)))]
        result: list[Transfer] = []
        to_fetch: list[tuple[ItemRecord, Path]] = []
        if self._is_first and not self._dry_run:
            if self._books is not None:
                await self._books.begin()  # before a file appears: it could not be told from one of somebody else
                await self._books.expect([self._folder / "any name"], 0)  # what a kill left in the folder itself
            self._clashes = await anyio.to_thread.run_sync(clashes_in, self._folder)
        self._is_first = False
        known = {} if self._books is None else await self._books.recall([item.path for item in items])
        for item, found in zip(items, await anyio.to_thread.run_sync(self._look, items, known), strict=True):
            if isinstance(found, Path):
                to_fetch.append((item, found))
            else:
                result.append(found)
        if self._dry_run:
            result.extend(Skipped(item.path, item.size_bytes, item, "would_fetch") for item, _ in to_fetch)
        elif to_fetch:
            origins = await self._origins([item.id for item, _ in to_fetch])
            if self._books is not None:
                if self._on_existing == "fail":
                    self._books.may_write()
                largest = max(item.size_bytes for item, _ in to_fetch)
                await self._books.expect([path for _, path in to_fetch], largest)
            received = await self._received(to_fetch)
            is_kept = self._books is not None
            for (item, path), origin in zip(to_fetch, origins, strict=True):
                if origin is None:
                    result.append(Refused(item.path, NotFound(f"{item.path}: was deleted meanwhile"), item))
                else:
                    half = received.get(item.path)
                    result.append(
                        Download(origin, path, key=item, name=item.path, received=half, wants_identity=is_kept)
                    )
        return result

    def _listed(self, filter: Filter | None) -> AsyncIterator[EntityPage[ItemRecord]]:
        message = ListItems(dataset_id=self._dataset_id, filter=filter)
        return listing(self._session, message, lambda record: record).pages(MAX_BULK_ENTRIES)

    async def _named(self, batches: AsyncIterator[Sequence[str]]) -> AsyncIterator[EntityPage[ItemRecord]]:
        """Yield the items of these paths; the feed learns which of them there are not."""
        async for batch in batches:
            missing = dict.fromkeys(path for path in batch if self._paths.keeps(path))
            if not missing:
                continue
            async for page in self._listed(Condition("path", "in", list(missing))):
                for item in page.entries:
                    missing.pop(item.path, None)
                yield page
            for path in missing:
                self._gone.append(Refused(path, NotFound(f"{path}: the dataset has no such item any more")))
            yield EntityPage(())

    async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> Target | Origin | None:
        item: ItemRecord = transfer.key
        return await self._renewals(item.id)

    def arrived(self, outcome: Outcome) -> None:
        if self._books is not None:
            self._books.arrived(outcome)

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        if self._books is not None:
            await self._books.flush()
        return outcomes

    async def _received(self, to_fetch: list[tuple[ItemRecord, Path]]) -> dict[str, Received]:
        """Return, by path, what is half received of large items, and where their ranges are told."""
        threshold = self._session.engine.config.multipart_threshold
        large = [item.path for item, _ in to_fetch if item.size_bytes > threshold]
        return await self._books.receive(large) if self._books is not None and large else {}

    async def _origins(self, item_ids: Sequence[str]) -> tuple[Origin | None, ...]:
        message = PrepareDownloads(dataset_id=self._dataset_id, item_ids=tuple(item_ids))
        return (await self._session.send(message)).origins

    def _look(self, items: list[ItemRecord], known: Mapping[str, Entry]) -> list[Path | Skipped | Refused]:
        """Return, for each item, where it goes, or why it does not. Blocking."""
        return [self._look_at(item, known.get(item.path)) for item in items]

    def _look_at(self, item: ItemRecord, entry: Entry | None) -> Path | Skipped | Refused:
        try:
            path = path_below(self._folder, item.path)
            if self._clashes is not None and not self._clashes.take(item.path):
                raise Conflict(f"{path}: an item before it has a name that this disk does not tell from this one")
            if entry is not None and crc32c_hex(entry.crc32c) == item.crc32c and is_as_written(path, entry):
                return Skipped(item.path, item.size_bytes, item)
            if self._on_existing == "overwrite":
                return path
            try:
                status = os.stat(path)  # noqa: PTH116  # pathlib's way costs 3 us more, for each of ten million files
            except (FileNotFoundError, NotADirectoryError):
                return path
            if self._on_existing == "fail":
                if entry is not None and Identity.of(status) == entry.identity:
                    return path  # ours, with other bytes: a loss of power took them, or the item has others by now
                if not self._is_ours(path, status, item):
                    raise Conflict(f"{path}: stands there already; remove it or choose another on_existing")
                return Skipped(item.path, item.size_bytes, item)
            if not stat.S_ISREG(status.st_mode) or status.st_size != item.size_bytes:
                return path
            if checksum_of_file(path, item.size_bytes) != item.crc32c:
                return path
        except AsyncSDKError as error:
            return Refused(item.path, error, item)
        except (OSError, ValueError):  # it cannot be looked at: writing will tell, with the error that fits
            return path
        return Skipped(item.path, item.size_bytes, item)

    def _is_ours(self, path: Path, status: os.stat_result, item: ItemRecord) -> bool:
        """Whether a file is one that this run wrote before it was killed, moments before that could be kept."""
        if self._books is None or not stat.S_ISREG(status.st_mode) or status.st_size != item.size_bytes:
            return False
        return self._books.is_ours(status) and checksum_of_file(path, item.size_bytes) == item.crc32c
