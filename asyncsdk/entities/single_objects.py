"""One object that travels alone: prepared when it is taken, committed when it is settled, gone on with after a kill."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from asyncsdk.checksums import crc32c_hex
from asyncsdk.engine import Download, EventCallback, Feed, Outcome, ProgressCallback, Skipped, Source, Transfer, Upload
from asyncsdk.engine.journal import LargeState
from asyncsdk.entities.committing import as_damage
from asyncsdk.entities.download_books import DownloadBooks
from asyncsdk.entities.local_files import known_size
from asyncsdk.entities.patience import Hurried
from asyncsdk.entities.session import Session
from asyncsdk.entities.single_books import SingleBooks
from asyncsdk.errors import (
    AsyncSDKError,
    BadRequest,
    ChecksumMismatch,
    LeftUndone,
    MalformedResponse,
    NotFound,
    PermissionDenied,
)
from asyncsdk.protocol.uploads import PreparedUpload, RenewEntry, RenewUploads
from asyncsdk.targets import FileTarget, MultipartTarget, Origin, ResumableTarget, Target

__all__ = ["SingleDownload", "SingleUpload", "renewed", "run_one", "upload_id_of"]


class SingleUpload(Hurried, ABC):
    """The feed of one upload. Who inherits says how it is prepared and what committing it is.

    Args:
        session: The client.
        scope_id: What the object will belong to.
        source: Its bytes.
        books: Its journal; None: nothing is kept.
    """

    def __init__(self, session: Session, scope_id: str, source: Source, books: SingleBooks | None = None) -> None:
        self.judges_uploads = True  # the platform compares size and checksum before it takes the object
        self._session = session
        self._scope_id = scope_id
        self._source = source
        self._books = books
        self._key = ""
        self._is_taken = False

    @abstractmethod
    async def _begin(self, size: int | None) -> Transfer:
        """Prepare the object anew."""

    @abstractmethod
    async def _commit(self, size_bytes: int, crc32c: str) -> Any:
        """Commit the object that arrived; returns the reply for its outcome."""

    def _take_up(self, begun: LargeState) -> None:
        """Take the names that the object has at the platform from an earlier run."""
        self._key = begun.facts["key"]

    def _start_over(self) -> None:
        """Drop the names of an earlier run: it cannot be gone on with."""
        self._key = ""

    async def take(self, want: int) -> Sequence[Transfer]:
        if self._is_taken:
            return ()
        self._is_taken = True
        size = await known_size(self._source)
        begun = None if self._books is None else await self._books.recall(self._source)
        going_on = None if begun is None or size is None else await self._go_on(begun, size)
        return (await self._begin(size) if going_on is None else going_on,)

    def _upload(self, prepared: PreparedUpload, what: str, size: int | None, **facts: Any) -> Upload:
        """Return the transfer that *prepared* says; *what* names the object in errors."""
        if prepared.key is None or prepared.target is None:
            raise MalformedResponse(f"the platform prepared {what} without saying where it goes")
        self._key = prepared.key
        return Upload(self._source, prepared.target, size_bytes=size, **facts)

    async def _go_on(self, begun: LargeState, size: int) -> Transfer | None:
        """Return how an upload goes on that an earlier run began; None: not at all."""
        self._take_up(begun)
        whole = begun.whole_crc32c(size)
        crc32c = begun.facts.get("arrived") or (None if whole is None else crc32c_hex(whole))
        try:
            if isinstance(crc32c, str):
                return Skipped(str(self._source), size, reply=await self._commit(size, crc32c))
        except (BadRequest, NotFound, PermissionDenied):  # its bytes did not arrive whole, are gone, or another user's
            pass
        try:
            upload_id = begun.facts.get("upload_id")
            target = await renewed(self._session, self._scope_id, self._key, size, upload_id)
            upload = Upload(self._source, target, size_bytes=size)
            begun.follow(upload)
            return upload
        except (BadRequest, NotFound, PermissionDenied):  # too old, or of an earlier configuration
            begun.forget()
            self._start_over()
            return None

    async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> Target | Origin | None:
        assert isinstance(transfer, Upload)
        upload_id = upload_id_of(transfer.target)
        return await renewed(self._session, self._scope_id, self._key, transfer.size_bytes, upload_id, first_part)

    async def replace(self, transfer: Upload) -> Target | None:
        return await renewed(self._session, self._scope_id, self._key, transfer.size_bytes, None)

    async def examine_again(self, transfer: Upload) -> Transfer | None:
        if not isinstance(self._source, (str, PathLike)):
            return None
        size = await known_size(self._source)
        if self._books is not None:
            self._books.came_out_wrong()  # what is known is of other bytes
            await self._books.recall(self._source)
        self._start_over()
        return await self._begin(size)

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        for outcome in outcomes:
            self._note_damage(outcome)
            if outcome.status != "done" or outcome.crc32c is None:
                continue
            if self._books is not None:
                is_copy = isinstance(getattr(outcome.transfer, "target", None), FileTarget)
                await self._books.arrived(outcome.crc32c, is_copy=is_copy)
            try:
                outcome.reply = await self._commit(outcome.size_bytes, outcome.crc32c)
            except AsyncSDKError as error:
                outcome.status, outcome.error = "failed", as_damage(outcome, error)
                self._note_damage(outcome)
        return outcomes

    def _note_damage(self, outcome: Outcome) -> None:
        if isinstance(outcome.error, ChecksumMismatch) and self._books is not None:
            self._books.came_out_wrong()


class SingleDownload(Hurried):
    """The feed of one download.

    Args:
        session: The client.
        origin: Asked where the object can be read, at first and whenever that has expired.
        destination: The file.
        first: Where it can be read, when that was asked for already.
        books: Keep what is received of a large one.
        name: Names the object in the books.
    """

    def __init__(
        self,
        session: Session,
        origin: Callable[[], Awaitable[Origin]],
        destination: str | PathLike[str],
        *,
        first: Origin | None = None,
        books: DownloadBooks | None = None,
        name: str = "",
    ) -> None:
        self._session = session
        self._origin = origin
        self._first = first
        self._destination: Path | None = Path(destination)
        self._books = books
        self._name = name

    async def take(self, want: int) -> Sequence[Download]:
        if self._destination is None:
            return ()
        destination, self._destination = self._destination, None
        origin = self._first or await self._origin()
        download = Download(origin, destination)
        size = origin.size_bytes or 0
        if self._books is not None:
            await self._books.expect([destination], size)
        if self._books is not None and size > self._session.engine.config.multipart_threshold:
            download.received = (await self._books.receive([self._name]))[self._name]
        return (download,)

    async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> Target | Origin | None:
        return await self._origin()

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        return outcomes


def upload_id_of(target: Target) -> str | None:
    """Return the id of the upload in parts, or the session, that *target* leads to; None: it has none."""
    return target.upload_id if isinstance(target, (MultipartTarget, ResumableTarget)) else None


async def renewed(
    session: Session, scope_id: str, key: str, size_bytes: int | None, upload_id: str | None, first_part: int = 1
) -> Target:
    """Return a fresh target for one object that was prepared before; without *upload_id*, one that begins anew."""
    entry = RenewEntry(key=key, size_bytes=size_bytes, upload_id=upload_id, first_part=first_part)
    fresh: Target = (await session.send(RenewUploads(scope_id=scope_id, entries=(entry,)))).targets[0]
    return fresh


async def run_one(
    session: Session,
    feed: Feed,
    on_progress: ProgressCallback | None = None,
    on_event: EventCallback | None = None,
    *,
    bytes_total: int | None = None,
) -> Outcome:
    """Move the one object of *feed* and return its outcome; raises its error, `LeftUndone` when it was not begun."""
    run = session.engine.run(feed, on_progress=on_progress, on_event=on_event, objects_total=1, bytes_total=bytes_total)
    async with run as outcomes:
        found = [outcome async for outcome in outcomes]
    if not found:
        raise LeftUndone(0)
    if found[0].error is not None:
        raise found[0].error
    return found[0]
