"""What a download of items keeps in its journal, and what it finds there when it goes on.

A file counts as the one that was written when size, time and inode are the same, and the machine was not started anew
meanwhile: after a loss of power a file may have its size and not its bytes, so it is read. The journal is asked of
files that the platform says have the same checksum still; what was half received is gone on with by the engine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asyncsdk.engine import Download
from asyncsdk.engine.journal import Clearing, Entry, Finished, Identity, Journal, boot_number, digest_of
from asyncsdk.engine.received import Received
from asyncsdk.engine.sinks import KEPT_BYTES
from asyncsdk.entities.local_files import checksum_of_file
from asyncsdk.errors import AsyncSDKError

if TYPE_CHECKING:
    from asyncsdk.engine import Outcome

__all__ = ["DownloadBooks", "is_as_written"]

_TICK_NS, _COARSE_TICK_NS = 20_000_000, 2_000_000_000
"""How far a file system's clock may be behind this one's. Most tick every 10 ms at least, some every two seconds."""


class DownloadBooks:
    """The journal of downloads to files.

    Args:
        journal: Of the run.

    Attributes:
        arrived: To be called with the outcome of every download that is done: keeps, soon, which file was written.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._clearing = Clearing(journal)
        self._is_expecting = False
        self.arrived: Callable[[Outcome], None] = journal.note  # itself: a call more for every file is too much
        journal.describe_by(_finished, notes_are_final=True)

    async def begin(self) -> None:
        """Return when it is kept that the run has begun; `is_ours` knows it then after any kill."""
        await self._journal.begin()

    def may_write(self) -> None:
        """A file may appear from now on that only `is_ours` can tell: cancelled just then, it has no outcome."""
        self._journal.stays_when_empty = True

    def is_ours(self, status: os.stat_result) -> bool:
        """Whether a file can have been written by this run before it was stopped, for all that its time says."""
        began = self._journal.started_at
        behind = _TICK_NS if status.st_mtime_ns % 1_000_000_000 else _COARSE_TICK_NS
        return began is not None and status.st_mtime_ns >= began * 1_000_000 - behind

    @property
    def has_entries(self) -> bool:
        """Whether anything is known from before."""
        return self._journal.has_entries

    async def recall(self, names: Sequence[str]) -> dict[str, Entry]:
        """Return what is known of files that were written before, by the names of their objects."""
        return await self._journal.find(names)

    async def expect(self, destinations: Collection[Path | str], largest_bytes: int) -> None:
        """Get ready for downloads: what a kill leaves of them will be found, and what one has left is removed.

        Args:
            destinations: Where they go.
            largest_bytes: Size of the largest; small ones are written in one go, and leave nothing.
        """
        await self._clearing.clear(destinations)
        if largest_bytes > KEPT_BYTES and not self._is_expecting:
            self._is_expecting = True
            await self._journal.begin()  # the mark in their names is known from now on

    async def receive(self, names: Sequence[str]) -> dict[str, Received]:
        """Return what is half received of the objects *names*, which are large, and where ranges of them are told."""
        begun = frozenset(await self._journal.begun(names))
        return {
            name: (
                await self._journal.recall_large(name) if name in begun else self._journal.new_large(name, {})
            ).received()
            for name in names
        }

    async def flush(self) -> None:
        """Return when everything that arrived is kept."""
        await self._journal.flush()


def is_as_written(path: Path | str, entry: Entry) -> bool:
    """Whether the file at *path* is the one of *entry*. Blocking; reads it if the machine was started since."""
    try:
        if Identity.of(os.stat(path)) != entry.identity:  # noqa: PTH116  # pathlib's way costs 3 us more
            return False
        return entry.boot == boot_number() or int(checksum_of_file(Path(path)), 16) == entry.crc32c
    except (OSError, ValueError, AsyncSDKError):  # whatever is wrong with it: it is to be fetched
        return False


def _finished(outcomes: Iterable[Outcome]) -> Iterable[Finished]:
    for outcome in outcomes:
        transfer = outcome.transfer
        checksum = outcome.checksum  # "crc32c:0a1b2c3d"; done here as it is done for every file
        if outcome.status != "done" or not isinstance(transfer, Download) or checksum is None:
            continue
        identity = outcome.identity
        if identity is None:
            assert isinstance(transfer.sink, (str, Path))
            try:
                identity = Identity.of(os.stat(transfer.sink))  # noqa: PTH116  # as above
            except OSError:  # taken away already: not there, not known
                continue
        if identity[0] == outcome.size_bytes:
            yield digest_of(transfer.name), identity, int(checksum[7:], 16), b""
