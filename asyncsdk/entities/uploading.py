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

from asyncsdk.engine import Download, Outcome, Refused, Skipped, Source, Transfer, Upload
from asyncsdk.entities.committing import ItemCommits, arrived_before
from asyncsdk.entities.drawn import Drawn
from asyncsdk.entities.examining import BATCH_BYTES, SMALL_FILE_BYTES, PreparedItem, examine
from asyncsdk.entities.item_source import ItemBatches
from asyncsdk.entities.item_uploads import Given
from asyncsdk.entities.local_files import checksum_of_file, known_size
from asyncsdk.entities.patience import Hurried
from asyncsdk.entities.recent import RecentNames
from asyncsdk.entities.session import Session
from asyncsdk.entities.together import Together
from asyncsdk.entities.upload_books import UploadBooks, as_new, is_known
from asyncsdk.entities.walking import printable
from asyncsdk.errors import (
    AsyncSDKError,
    BadRequest,
    ChecksumMismatch,
    Conflict,
    MalformedResponse,
    NotFound,
    PermissionDenied,
    RequestError,
    SourceNotFound,
)
from asyncsdk.protocol.base import MAX_BULK_ENTRIES
from asyncsdk.protocol.uploads import (
    OnExisting,
    PreparedUpload,
    PrepareUploads,
    RenewEntry,
    RenewUploads,
    UploadEntry,
)
from asyncsdk.targets import MultipartTarget, Origin, PutTarget, ResumableTarget, Target

__all__ = ["ItemUploadFeed"]

MAX_HELD_BYTES = 32 * 1024 * 1024
"""Small files read and not yet settled: the feed waits above this."""

_COMPARED_AT_ONCE = 4
_LOOKED_AT_ONCE = 4
"""Messages under way at once about what an earlier run has sent: their replies are what a resumed run waits for."""


class ItemUploadFeed(Hurried):
    """Gives the uploads that make items of a dataset.

    Args:
        session: Where messages go.
        dataset_id: The dataset.
        batches: What to upload.
        on_existing: What happens to items whose path is taken.
        dry_run: Whether to say what would be sent instead of sending it: such outcomes are ``skipped`` with the
            reply ``would_send``.
        nothing: What to say when there is nothing to upload at all; None: that is fine.
        books: Its journal; None: none is kept.
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
        books: UploadBooks | None = None,
    ) -> None:
        self.judges_uploads = True  # the platform compares size and checksum before it makes an item of anything
        self._session = session
        self._dataset_id = dataset_id
        self._batches = batches
        self._on_existing = on_existing
        self._commits = ItemCommits(session, dataset_id, on_existing)
        self._dry_run = dry_run
        self._nothing = nothing
        self._books = books
        self._is_recalling = books is not None and books.has_entries
        self._renewals = Together(self._renew_all, MAX_BULK_ENTRIES)
        self._waiting: deque[Given] = deque()
        self._ready: deque[Transfer] = deque()
        self._recent = RecentNames() if batches.can_repeat else None
        self._given = 0
        self._held = Drawn(MAX_HELD_BYTES)

    # --- what the engine calls -------------------------------------------------------------------------------

    async def take(self, want: int) -> Sequence[Transfer]:
        if not self._ready:
            # What was sent before costs a glance: as many as messages may hold, however few the engine has use for.
            count = _LOOKED_AT_ONCE * MAX_BULK_ENTRIES if self._is_recalling else min(want, MAX_BULK_ENTRIES)
            if not self._waiting:
                self._waiting.extend(await self._batches.next(count))
                if not self._waiting:
                    if self._nothing is not None:
                        raise SourceNotFound(self._nothing)
                    return ()
            self._nothing = None
            given = [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]
            self._is_recalling = False  # until some of these were sent before
            most = self._held.share(BATCH_BYTES, parts := -(-len(given) // MAX_BULK_ENTRIES))
            await self._held.reserve(min(parts * most, len(given) * SMALL_FILE_BYTES))
            self._ready.extend(await self._prepare_all(given, most))
            self._held.trim()
        return [self._ready.popleft() for _ in range(min(want, len(self._ready)))]

    async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> Target | Origin | None:
        known: PreparedItem = transfer.key
        assert isinstance(transfer, Upload)
        target = transfer.target
        entry = RenewEntry(
            key=known.key,
            size_bytes=known.size_bytes,
            crc32c=known.crc32c,
            upload_id=target.upload_id if isinstance(target, (MultipartTarget, ResumableTarget)) else None,
            first_part=first_part,
        )
        return await self._renewals(entry)

    async def replace(self, transfer: Upload) -> Target | None:
        known: PreparedItem = transfer.key
        return await self._renewals(RenewEntry(key=known.key, size_bytes=known.size_bytes, crc32c=known.crc32c))

    async def examine_again(self, transfer: Upload) -> Transfer | None:
        known: PreparedItem = transfer.key
        if not isinstance(known.item.source, (str, PathLike)):
            return None
        self._release(transfer)
        as_new(known)
        anew = PreparedItem(known.item, known.path, number=known.number)
        (fresh,), _ = await anyio.to_thread.run_sync(examine, [anew])
        if isinstance(fresh, Refused):
            return fresh
        self._held.held_bytes += fresh.held_bytes
        try:
            return (await self._ask([fresh]))[0]
        except BaseException:  # nobody keeps its bytes whatever ended it, then raised again
            self._held.held_bytes -= fresh.held_bytes
            raise

    def arrived(self, outcome: Outcome) -> None:
        if self._books is not None:
            self._books.arrived(outcome)

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        done = [outcome for outcome in outcomes if outcome.ok and isinstance(outcome.transfer, Upload)]
        done.sort(key=lambda outcome: outcome.transfer.key.number)  # positions follow the source as far as they can
        books = self._books
        if books is not None:
            await books.flush()
        try:
            for start in range(0, len(done), MAX_BULK_ENTRIES):
                await self._commits.commit(done[start : start + MAX_BULK_ENTRIES])
        finally:
            for outcome in outcomes:
                if isinstance(outcome.transfer, Upload):
                    self._release(outcome.transfer)
            self._held.trim()
        if books is not None:
            for outcome in outcomes:
                if isinstance(outcome.error, ChecksumMismatch):
                    books.came_out_wrong(outcome.transfer.key)
            books.committed(done)
            books.skipped([outcome for outcome in outcomes if outcome.status == "skipped" and not is_known(outcome)])
        return outcomes

    async def aclose(self) -> None:
        """Release the source; the user's iterable is closed."""
        self._held.release()
        await self._batches.aclose()

    # --- prepare ---------------------------------------------------------------------------------------------

    async def _prepare_all(self, given: list[Given], most_bytes: int) -> list[Transfer]:
        """Prepare *given*, in several messages at once if it takes more than one."""
        if len(given) <= MAX_BULK_ENTRIES:
            return await self._prepare(given, most_bytes)
        batches = [given[start : start + MAX_BULK_ENTRIES] for start in range(0, len(given), MAX_BULK_ENTRIES)]
        results: list[list[Transfer]] = [[] for _ in batches]
        failures: list[Exception] = []

        async def prepare(index: int) -> None:
            try:
                results[index] = await self._prepare(batches[index], most_bytes)
            except Exception as error:  # noqa: BLE001  # raised again below, outside of the group that would wrap it
                failures.append(error)
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for index in range(len(batches)):
                group.start_soon(prepare, index)
        if failures:
            raise failures[0]
        return [transfer for result in results for transfer in result]

    async def _prepare(self, given: list[Given], most_bytes: int) -> list[Transfer]:
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
        if self._books is not None and self._books.has_entries:
            await self._books.recall(items)
            self._is_recalling = self._is_recalling or any(known.is_recalled for known in items)
        examined, rest = await anyio.to_thread.run_sync(examine, items, most_bytes)
        self._waiting.extendleft(known.item for known in reversed(rest))
        if self._recent is not None:
            self._recent.discard(known.path for known in rest)
        known_items: list[PreparedItem] = []
        for examined_item in examined:
            if isinstance(examined_item, Refused):
                result.append(examined_item)
            else:
                known_items.append(examined_item)
                self._held.held_bytes += examined_item.held_bytes
        if self._books is not None and self._books.has_entries:
            known_items = await self._go_on(known_items, result)
        if known_items:
            result.extend(await self._ask(known_items))
        return result

    async def _answers(self, items: list[PreparedItem], on_existing: OnExisting) -> Sequence[PreparedUpload]:
        entries = tuple(
            UploadEntry(path=known.path, size_bytes=known.size_bytes, crc32c=known.crc32c) for known in items
        )
        message = PrepareUploads(dataset_id=self._dataset_id, entries=entries, on_existing=on_existing)
        reply = await self._session.send(message)
        if len(reply.entries) != len(items):
            raise MalformedResponse(f"{len(items)} uploads were prepared, {len(reply.entries)} answers came")
        return reply.entries

    async def _ask(self, items: list[PreparedItem]) -> list[Transfer]:
        for known in items:
            if known.size_bytes is None:
                known.size_bytes = await known_size(known.item.source)
        answers = await self._answers(items, self._on_existing)
        result: list[Transfer] = []
        to_compare: list[PreparedItem] = []
        for known, answer in zip(items, answers, strict=True):
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
            return self._upload(known, answer.target)
        self._held.held_bytes -= known.held_bytes
        known.held_bytes, known.data = 0, None
        if answer.verdict == "refused":
            problem = answer.problem
            error = problem.to_error(name=known.path) if problem else BadRequest(f"{known.path}: refused")
            return Refused(printable(known.path), error, known)
        reply = "would_send" if answer.verdict == "upload" else answer
        return Skipped(known.path, known.size_bytes or 0, known, reply)

    def _upload(self, known: PreparedItem, target: Target) -> Upload:
        source: Source = known.item.source if known.data is None else known.data
        read_from = None if known.data is None else known.read_from
        known.data = None
        upload = Upload(source, target, known.size_bytes, known.crc32c, known, known.path, read_from=read_from)
        if self._books is not None and known.identity is not None and not isinstance(target, PutTarget):
            self._books.follow(known, upload)
        return upload

    # --- going on with an earlier run ------------------------------------------------------------------------

    async def _go_on(self, items: list[PreparedItem], result: list[Transfer]) -> list[PreparedItem]:
        """Put what an earlier run has sent, or begun to send, into *result*; returns the items that are as new."""
        settled = [known for known in items if known.is_settled]
        sent = [known for known in items if known.is_recalled and not known.is_settled]
        begun = [known for known in items if known.large is not None]
        fresh = [known for known in items if not known.is_recalled and known.large is None]
        if settled:
            for known, answer in zip(settled, await self._answers(settled, "skip_same"), strict=True):
                if answer.verdict == "skip":
                    result.append(self._transfer(known, answer))
                else:  # deleted or replaced since
                    fresh.append(as_new(known))
        for known in begun:
            assert known.large is not None
            assert known.size_bytes is not None
            whole = known.large.whole_crc32c(known.size_bytes)
            if whole is not None:  # perhaps it was completed, and the news of it lost
                sent.append(known)
        committed = await self._commit_again(sent, result)
        fresh.extend(as_new(known) for known in sent if known.large is None and known.path not in committed)
        for known in [known for known in begun if known.path not in committed]:
            target = await self._renew_begun(known)
            if target is None:
                fresh.append(as_new(known))
            else:
                result.append(self._upload(known, target))
        return fresh

    async def _commit_again(self, items: list[PreparedItem], result: list[Transfer]) -> set[str]:
        """Commit what arrived in an earlier run, under the keys it had then; returns the paths that are final."""
        outcomes = [arrived_before(known) for known in items]
        await self._commits.commit(outcomes)
        final = []
        for outcome in outcomes:
            if isinstance(outcome.error, RequestError):
                raise outcome.error
            if outcome.ok:
                known = outcome.transfer.key
                known.crc32c, known.is_recalled = outcome.crc32c, True
                result.append(Skipped(known.path, known.size_bytes or 0, known, outcome.reply))
                final.append(outcome)
        assert self._books is not None
        self._books.skipped(final)
        self._books.committed(final)
        return {outcome.name for outcome in final}

    async def _renew_begun(self, known: PreparedItem) -> Target | None:
        """Return where an upload goes on that was begun in an earlier run; None: nowhere."""
        assert known.large is not None
        entry = RenewEntry(
            key=known.key,
            size_bytes=known.size_bytes,
            crc32c=known.crc32c,
            upload_id=known.large.facts.get("upload_id"),
        )
        try:
            return await self._renewals(entry)
        except (BadRequest, NotFound, PermissionDenied):  # too old, another user's, of an earlier configuration
            return None

    async def _renew_all(self, entries: Sequence[RenewEntry]) -> Sequence[Target]:
        return (await self._session.send(RenewUploads(scope_id=self._dataset_id, entries=tuple(entries)))).targets

    def _release(self, transfer: Upload) -> None:
        known: PreparedItem = transfer.key
        if known.held_bytes:
            self._held.held_bytes -= known.held_bytes
            known.held_bytes = 0
            transfer.source = known.item.source  # an outcome that is kept must not keep the bytes
            transfer.read_from = None
