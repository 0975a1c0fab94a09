"""The feed behind ``dataset.upload``: examine, prepare, hand to the engine, commit.

Small files are read and summed in batches of one worker-thread hop, before they are prepared, so that their checksum
is part of what is signed and an equal item is never sent. Larger ones are summed while they are sent; only when an
item of the same path and size exists are they read first to compare.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import anyio
import anyio.to_thread

from asyncsdk.domain.ids import make_id
from asyncsdk.engine import Download, Outcome, Refused, Skipped, Source, Transfer, Upload
from asyncsdk.entities.examining import PreparedItem, examine, metadata_bytes
from asyncsdk.entities.item_source import ItemBatches
from asyncsdk.entities.item_uploads import Given
from asyncsdk.entities.local_files import checksum_of_file, known_size
from asyncsdk.entities.recent import RecentNames
from asyncsdk.entities.session import Session
from asyncsdk.entities.walking import printable
from asyncsdk.errors import (
    AsyncSDKError,
    BadRequest,
    Conflict,
    MalformedResponse,
    RequestError,
    SourceNotFound,
)
from asyncsdk.protocol.base import MAX_BULK_ENTRIES
from asyncsdk.protocol.uploads import (
    CommitEntry,
    CommitUploads,
    OnExisting,
    PreparedUpload,
    PrepareUploads,
    RenewEntry,
    RenewUploads,
    UploadEntry,
)
from asyncsdk.targets import MultipartTarget, Origin, Target

__all__ = ["ItemUploadFeed"]

MAX_HELD_BYTES = 32 * 1024 * 1024
"""Small files read and not yet settled: the feed waits above this."""

_BATCH_BYTES = 8 * 1024 * 1024
_TOO_LARGE = 413
_COMPARED_AT_ONCE = 4


class ItemUploadFeed:
    """Gives the uploads that make items of a dataset.

    Args:
        session: Where messages go.
        dataset_id: The dataset.
        batches: What to upload.
        on_existing: What happens to items whose path is taken.
        dry_run: Whether to say what would be sent instead of sending it: such outcomes are ``skipped`` with the
            reply ``would_send``.
        nothing: What to say when there is nothing to upload at all; None: that is fine.
    """

    def __init__(
        self,
        session: Session,
        dataset_id: str,
        batches: ItemBatches,
        *,
        on_existing: OnExisting,
        dry_run: bool = False,
        nothing: str | None = None,
    ) -> None:
        self._session = session
        self._dataset_id = dataset_id
        self._batches = batches
        self._on_existing = on_existing
        self._dry_run = dry_run
        self._nothing = nothing
        self._waiting: deque[Given] = deque()
        self._recent = RecentNames() if batches.can_repeat else None
        self._given = 0
        self._held_bytes = 0
        self._room = anyio.Event()

    # --- what the engine calls -------------------------------------------------------------------------------

    async def take(self, want: int) -> Sequence[Transfer]:
        while self._held_bytes > MAX_HELD_BYTES:
            self._room = anyio.Event()
            await self._room.wait()
        if not self._waiting:
            self._waiting.extend(await self._batches.next(min(want, MAX_BULK_ENTRIES)))
            if not self._waiting:
                if self._nothing is not None:
                    raise SourceNotFound(self._nothing)
                return ()
        self._nothing = None
        given = [self._waiting.popleft() for _ in range(min(want, MAX_BULK_ENTRIES, len(self._waiting)))]
        return await self._prepare(given)

    async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> Target | Origin | None:
        known: PreparedItem = transfer.key
        assert isinstance(transfer, Upload)
        target = transfer.target
        entry = RenewEntry(
            key=known.key,
            size_bytes=known.size_bytes,
            crc32c=known.crc32c,
            upload_id=target.upload_id if isinstance(target, MultipartTarget) else None,
            first_part=first_part,
        )
        renewed = await self._session.send(RenewUploads(scope_id=self._dataset_id, entries=(entry,)))
        fresh: Target = renewed.targets[0]
        return fresh

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        done = [outcome for outcome in outcomes if outcome.ok and isinstance(outcome.transfer, Upload)]
        done.sort(key=lambda outcome: outcome.transfer.key.number)  # positions follow the source as far as they can
        try:
            for start in range(0, len(done), MAX_BULK_ENTRIES):
                await self._commit(done[start : start + MAX_BULK_ENTRIES])
        finally:
            for outcome in outcomes:
                if isinstance(outcome.transfer, Upload):
                    self._release(outcome.transfer)
        return outcomes

    async def aclose(self) -> None:
        """Release the source; the user's iterable is closed."""
        await self._batches.aclose()

    # --- prepare ---------------------------------------------------------------------------------------------

    async def _prepare(self, given: list[Given]) -> list[Transfer]:
        result: list[Transfer] = []
        items: list[PreparedItem] = []
        for one in given:
            if isinstance(one, Refused):
                result.append(one)
                continue
            self._given += 1
            if self._recent is not None and not self._recent.add(one.item_path):
                path = printable(one.item_path)
                error = Conflict(f"{path}: given twice to one upload; the first one counts")
                result.append(Refused(path, error, PreparedItem(one, path)))
            else:
                items.append(PreparedItem(one, one.item_path, number=self._given))
        examined, rest = await anyio.to_thread.run_sync(examine, items)
        self._waiting.extendleft(known.item for known in reversed(rest))
        if self._recent is not None:
            self._recent.discard(known.path for known in rest)
        known_items: list[PreparedItem] = []
        for examined_item in examined:
            if isinstance(examined_item, Refused):
                result.append(examined_item)
            else:
                known_items.append(examined_item)
                self._held_bytes += examined_item.held_bytes
        if known_items:
            result.extend(await self._ask(known_items))
        return result

    async def _ask(self, items: list[PreparedItem]) -> list[Transfer]:
        for known in items:
            if known.size_bytes is None:
                known.size_bytes = await known_size(known.item.source)
        entries = tuple(
            UploadEntry(path=known.path, size_bytes=known.size_bytes, crc32c=known.crc32c) for known in items
        )
        message = PrepareUploads(dataset_id=self._dataset_id, entries=entries, on_existing=self._on_existing)
        reply = await self._session.send(message)
        if len(reply.entries) != len(items):
            raise MalformedResponse(f"{len(items)} uploads were prepared, {len(reply.entries)} answers came")
        result: list[Transfer] = []
        to_compare: list[PreparedItem] = []
        for known, answer in zip(items, reply.entries, strict=True):
            if answer.verdict == "compare":
                to_compare.append(known)
            else:
                result.append(self._transfer(known, answer))
        if to_compare:
            result.extend(await self._compare(to_compare))
        return result

    async def _compare(self, items: list[PreparedItem]) -> list[Transfer]:
        """Sum what is as large as the item that exists, and prepare it again."""
        result: list[Transfer] = []
        limiter = anyio.CapacityLimiter(_COMPARED_AT_ONCE)
        summed: list[PreparedItem] = []

        async def compute(known: PreparedItem) -> None:
            source = known.item.source
            assert isinstance(source, (str, PathLike))
            try:
                known.crc32c = await anyio.to_thread.run_sync(
                    checksum_of_file, Path(source), known.size_bytes, limiter=limiter
                )
            except AsyncSDKError as error:
                result.append(Refused(known.path, error, known))
            else:
                summed.append(known)

        async with anyio.create_task_group() as group:
            for known in items:
                if isinstance(known.item.source, (str, PathLike)):
                    group.start_soon(compute, known)
                else:  # a stream cannot be read twice: its bytes decide when they have arrived
                    known.crc32c = None
                    known.size_bytes = None
                    summed.append(known)
        if summed:
            result.extend(await self._ask(summed))
        return result

    def _transfer(self, known: PreparedItem, answer: PreparedUpload) -> Transfer:
        if answer.verdict == "upload" and not self._dry_run:
            if answer.key is None or answer.target is None:
                raise MalformedResponse(f"{known.path}: prepared without saying where it goes")
            known.key = answer.key
            source: Source = known.item.source if known.data is None else known.data
            known.data = None
            return Upload(
                source, answer.target, size_bytes=known.size_bytes, crc32c=known.crc32c, key=known, name=known.path
            )
        self._held_bytes -= known.held_bytes
        known.held_bytes, known.data = 0, None
        if answer.verdict == "refused":
            problem = answer.problem
            error = problem.to_error(name=known.path) if problem else BadRequest(f"{known.path}: refused")
            return Refused(printable(known.path), error, known)
        reply = "would_send" if answer.verdict == "upload" else answer
        return Skipped(known.path, known.size_bytes or 0, known, reply)

    # --- commit ----------------------------------------------------------------------------------------------

    async def _commit(self, outcomes: list[Outcome]) -> None:
        """Commit in as many messages as it takes for none to be too large; what is wrong with one fails it alone."""
        batch: list[tuple[Outcome, CommitEntry]] = []
        size_bytes = 0
        for outcome in outcomes:
            known: PreparedItem = outcome.transfer.key
            added = metadata_bytes(known.item)
            if batch and size_bytes + added > _BATCH_BYTES:
                await self._send_commit(batch)
                batch, size_bytes = [], 0
            size_bytes += added
            entry = CommitEntry(
                item_id=make_id(),
                path=known.path,
                key=known.key,
                size_bytes=outcome.size_bytes,
                crc32c=outcome.crc32c or "",
                metadata=None if known.item.metadata is None else dict(known.item.metadata),
            )
            batch.append((outcome, entry))
        if batch:
            await self._send_commit(batch)

    async def _send_commit(self, batch: list[tuple[Outcome, CommitEntry]]) -> None:
        entries = tuple(entry for _, entry in batch)
        message = CommitUploads(dataset_id=self._dataset_id, entries=entries, on_existing=self._on_existing)
        try:
            reply = await self._session.send(message)
        except RequestError as error:
            # The bytes arrived and nobody knows whether they were committed: recorded for each of them. Running the
            # upload again finds out and repeats nothing.
            for outcome, _ in batch:
                outcome.status, outcome.error = "failed", error
            return
        except BadRequest as error:
            if error.status != _TOO_LARGE:
                raise
            if len(batch) == 1:
                batch[0][0].status, batch[0][0].error = "failed", error
                return
            middle = len(batch) // 2
            await self._send_commit(batch[:middle])
            await self._send_commit(batch[middle:])
            return
        if len(reply.entries) != len(batch):
            raise MalformedResponse(f"{len(batch)} uploads were committed, {len(reply.entries)} answers came")
        for (outcome, _), answer in zip(batch, reply.entries, strict=True):
            outcome.reply = answer
            outcome.etag = answer.etag or outcome.etag
            if answer.verdict == "refused":
                name = outcome.name
                problem = answer.problem
                outcome.status = "failed"
                outcome.error = problem.to_error(name=name) if problem else BadRequest(f"{name}: refused")

    def _release(self, transfer: Upload) -> None:
        known: PreparedItem = transfer.key
        if known.held_bytes:
            self._held_bytes -= known.held_bytes
            known.held_bytes = 0
            transfer.source = known.item.source  # an outcome that is kept must not keep the bytes
            if self._held_bytes <= MAX_HELD_BYTES:
                self._room.set()
