"""What a download of items keeps in its journal, and what it finds there when it goes on.

A file counts as the one that was written when size, time and inode are the same, and the machine was not started anew
meanwhile: after a loss of power a file may have its size and not its bytes, so it is read. The journal is asked of
files that the platform says have the same checksum still; what was half received is gone on with by the engine.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from asyncsdk.engine import Download
from asyncsdk.engine.journal import Entry, Finished, Identity, Journal, boot_number, digest_of
from asyncsdk.engine.received import Received
from asyncsdk.entities.local_files import checksum_of_file
from asyncsdk.errors import AsyncSDKError

if TYPE_CHECKING:
    from asyncsdk.engine import Outcome

__all__ = ["DownloadBooks", "is_as_written"]


class DownloadBooks:
    """The journal of downloads to files.

    Args:
        journal: Of the run.

    Attributes:
        arrived: To be called with the outcome of every download that is done: keeps, soon, which file was written.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.arrived: Callable[[Outcome], None] = journal.note  # itself: a call more for every file is too much
        journal.describe_by(_finished, notes_are_final=True)

    @property
    def has_entries(self) -> bool:
        """Whether anything is known from before."""
        return self._journal.has_entries

    async def recall(self, names: Sequence[str]) -> dict[str, Entry]:
        """Return what is known of files that were written before, by the names of their objects."""
        return await self._journal.find(names)

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
