"""What ``asyncsdk transfer`` keeps in its journal. No platform can be asked: what the journal says is what counts."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import anyio.to_thread

from asyncsdk.checksums import crc32c_hex
from asyncsdk.engine import (
    BlobTarget,
    Download,
    MultipartTarget,
    Outcome,
    ResumableTarget,
    Resume,
    Skipped,
    Transfer,
    Upload,
)
from asyncsdk.engine.journal import Clearing, Entry, Finished, Identity, Journal, digest_of
from asyncsdk.engine.journal.large import LargeState
from asyncsdk.entities.download_books import is_as_written
from asyncsdk.entities.examining import TICK_NS

__all__ = ["ManifestBooks", "ask_server"]

_CHANGING = Identity(-1, -1, -1)
"""Of a file that changes while it is looked at: it is no file's, so nothing that is kept under it is gone on with."""


class ManifestBooks:
    """The journal of a manifest; keys of transfers are its lines.

    Args:
        journal: Of the run.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._clearing = Clearing(journal)
        self._under_way: set[str] = set()  # names of downloads that may have a half-received file
        journal.describe_by(_finished, notes_are_final=True)

    async def go_on(self, transfers: list[Transfer]) -> list[Transfer]:
        """Return *transfers*, those skipped that were done before, the others such that they can be gone on with."""
        moving = [transfer for transfer in transfers if isinstance(transfer, (Upload, Download))]
        names = [transfer.key.name for transfer in moving]
        entries = await self._journal.find(names)
        done = await anyio.to_thread.run_sync(_look, moving, entries)
        downloads = [one for one in moving if isinstance(one, Download) and one.key.name not in done]
        if downloads:
            await self._clearing.clear(str(one.sink) for one in downloads)
            await self._journal.begin()  # so that what a kill leaves of them is found
        in_parts = [one for one in moving if _goes_in_parts(one)]
        uploads = [one for one in in_parts if one.key.name not in done]
        begun = frozenset(await self._journal.begun([one.key.name for one in (*downloads, *in_parts)]))
        for name in begun & done.keys():  # killed before it could be kept that the parts are over
            self._journal.end_large(name)
        for download in downloads:
            name = download.key.name
            download.wants_identity = True
            if name in self._under_way:  # a line that stands there twice: each would take the file of the other
                continue
            self._under_way.add(name)
            state = await self._journal.recall_large(name) if name in begun else self._journal.new_large(name, {})
            download.received = state.received()
        for upload in uploads:
            assert isinstance(upload, Upload)
            upload.resume = (await self._state(upload, is_begun=upload.key.name in begun)).resume()
        return [
            Skipped(one.name, done[one.key.name], one.key)
            if isinstance(one, (Upload, Download)) and one.key.name in done
            else one
            for one in transfers
        ]

    async def _state(self, upload: Upload, *, is_begun: bool) -> LargeState:
        """Return what is known of an object that goes in parts: of this file, or of one that cannot be replaced."""
        name, target = upload.key.name, upload.target
        if is_begun:
            state = await self._journal.recall_large(name)
            # What a session has of another file spoils it; whoever sends finds that out, and ends the session.
            is_spoilt = isinstance(target, ResumableTarget) and state.facts.get("upload_id") == target.upload_id
            if is_spoilt or tuple(state.facts.get("identity", ())) == upload.key.file:
                return state
        return self._journal.new_large(name, {"identity": upload.key.file})

    def arrived(self, outcome: Outcome) -> None:
        """Keep, soon, that *outcome* is done."""
        self._journal.note(outcome)

    async def settle(self, outcomes: Sequence[Outcome]) -> None:
        """Return when everything that arrived is kept; of *outcomes* that are done, no parts need to be known then."""
        await self._journal.flush()
        for outcome in outcomes:
            transfer = outcome.transfer
            if isinstance(transfer, Download) and transfer.received is not None:
                self._under_way.discard(transfer.key.name)
            elif outcome.status == "done" and isinstance(transfer, Upload) and transfer.resume is not None:
                self._journal.end_large(transfer.key.name)


def ask_server(transfers: Iterable[Transfer]) -> None:
    """Have uploads in parts of which nothing is known go on with what their server has, where it can be asked.

    Parts that another call has sent then count if the server states their checksums; what a session has goes on.
    """
    for one in transfers:
        if not isinstance(one, Upload):
            continue
        target = one.target
        if isinstance(target, ResumableTarget) or (isinstance(target, MultipartTarget) and target.list_urls):
            one.resume = Resume(target.upload_id, target.part_size)


def _goes_in_parts(transfer: Transfer) -> bool:
    """Whether parts of it may be kept, of a file that could be looked at."""
    return (
        isinstance(transfer, Upload)
        and isinstance(transfer.target, (MultipartTarget, ResumableTarget, BlobTarget))
        and transfer.key.file is not None
    )


def _look(moving: Sequence[Upload | Download], entries: dict[str, Entry]) -> dict[str, int]:
    """Take the identities of files to upload; return size by name of what was done before and is the same."""
    done = {}
    _take_identities([one for one in moving if isinstance(one, Upload)])
    for transfer in moving:
        line = transfer.key
        entry = entries.get(line.name)
        if isinstance(transfer, Upload):
            if entry is not None and entry.identity == line.file and _is_meant(entry, transfer.crc32c):
                done[line.name] = entry.identity.size_bytes
        elif entry is None or not isinstance(transfer.sink, Path) or not _is_meant(entry, transfer.origin.crc32c):
            continue
        elif is_as_written(transfer.sink, entry):
            done[line.name] = entry.identity.size_bytes
    return done


def _take_identities(uploads: Sequence[Upload]) -> None:
    """Note which files these are. One that was changed this moment may change once more without another time: it is
    looked at again when that moment is over, as items are, see `TICK_NS`."""
    fresh = []
    for upload in uploads:
        upload.key.file = identity = _identity(upload.source)
        if _is_fresh(identity):
            fresh.append(upload)
    if fresh:
        time.sleep(2 * TICK_NS / 1e9)  # once for all; a time this little in the future is over then, too
    for upload in fresh:
        identity = _identity(upload.source)
        upload.key.file = _CHANGING if _is_fresh(identity) else identity


def _is_fresh(identity: Identity | None) -> bool:
    return identity is not None and abs(time.time_ns() - identity.mtime_ns) <= TICK_NS


def _is_meant(entry: Entry, crc32c: str | None) -> bool:
    """Whether what was moved is what the line says it is, if it does."""
    return crc32c is None or crc32c.lower() == crc32c_hex(entry.crc32c)


def _identity(path: Any) -> Identity | None:
    try:
        return Identity.of(os.stat(path))  # noqa: PTH116  # for every line; pathlib's way costs 3 us more
    except (OSError, ValueError):  # opening it will say what is wrong with it
        return None


def _finished(outcomes: Iterable[Outcome]) -> Iterable[Finished]:
    for outcome in outcomes:
        transfer = outcome.transfer
        line = transfer.key
        identity: tuple[int, int, int] | None = line.file if isinstance(transfer, Upload) else None
        if isinstance(transfer, Download):
            identity = outcome.identity or _identity(transfer.sink)
        if identity is not None and outcome.crc32c is not None and identity[0] == outcome.size_bytes:
            yield digest_of(line.name), identity, int(outcome.crc32c, 16), b""
