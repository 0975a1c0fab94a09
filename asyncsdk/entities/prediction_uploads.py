"""How prediction rows travel: few inside a message, many as parts through signed URLs, then committed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from os import PathLike

import anyio

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.engine import Download, EventCallback, Outcome, ProgressCallback, Report, Transfer, Upload
from asyncsdk.entities.drawn import Drawn
from asyncsdk.entities.patience import Hurried, patient
from asyncsdk.entities.rows import PART_BYTES, PackedPart, RowSource, decode_part, pack_rows
from asyncsdk.entities.session import Session
from asyncsdk.errors import AsyncSDKError, MalformedResponse
from asyncsdk.protocol.predictions import (
    MAX_INLINE_BYTES,
    CommitPredictionParts,
    IngestedRows,
    PrepareRowParts,
    RowPart,
    SentRowPart,
    UploadPredictionRows,
)
from asyncsdk.protocol.uploads import RenewEntry, RenewUploads
from asyncsdk.targets import Origin, Target

__all__ = ["upload_predictions"]

_PARTS_HELD = 6
"""Parts in memory: packed and not yet committed."""


@dataclass(slots=True)
class _SentPart:
    """A part on its way; the ``key`` of its transfer."""

    key: str
    checksum: str
    size_bytes: int
    first_line: int
    lines: int
    rows: int


class _RowFeed(Hurried):
    """Packs, prepares and commits parts of rows; counts into a report what became of every row."""

    def __init__(
        self, session: Session, dataset_id: str, task: str, parts: AsyncIterator[PackedPart], report: Report, file: str
    ) -> None:
        self._session = session
        self._dataset_id = dataset_id
        self._task = task
        self._parts = parts
        self._report = report
        self._file = file
        self._held = Drawn((_PARTS_HELD - 1) * PART_BYTES)
        self._first: list[PackedPart] = []
        self._ended = False

    async def start(self) -> bool:
        """Pack the first part; when it is all and small, send it inside a message. True when nothing is left."""
        first = await self._next()
        if first is None:
            return True
        second = await self._next() if len(first.data) < MAX_INLINE_BYTES else None
        self._first = [part for part in (first, second) if part is not None]
        if len(first.data) >= MAX_INLINE_BYTES or second is not None:
            return False
        await self._send_inline(first)
        return True

    async def take(self, want: int) -> Sequence[Transfer]:
        part = self._first.pop(0) if self._first else await self._next()
        if part is None:
            return ()
        # Only now: nothing is held while rows are awaited, which may come of downloads that need memory themselves.
        await self._held.reserve(len(part.data))
        self._held.held_bytes += len(part.data)
        checksum = crc32c_hex(crc32c(part.data))
        message = PrepareRowParts(
            dataset_id=self._dataset_id, parts=(RowPart(size_bytes=len(part.data), crc32c=checksum),)
        )
        prepared = (await self._session.send(message)).entries[0]
        if prepared.key is None or prepared.target is None:
            raise MalformedResponse("the platform prepared rows without saying where they go")
        sent = _SentPart(prepared.key, checksum, len(part.data), part.first_line, part.lines, part.rows)
        name = f"rows {part.first_line} to {part.first_line + part.lines - 1}"
        return (Upload(part.data, prepared.target, size_bytes=len(part.data), crc32c=checksum, key=sent, name=name),)

    async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> Target | Origin | None:
        sent: _SentPart = transfer.key
        entry = RenewEntry(key=sent.key, size_bytes=sent.size_bytes, crc32c=sent.checksum, first_part=first_part)
        renewed = await self._session.send(RenewUploads(scope_id=self._dataset_id, entries=(entry,)))
        fresh: Target = renewed.targets[0]
        return fresh

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        for outcome in outcomes:
            sent: _SentPart = outcome.transfer.key
            if outcome.ok:
                await self._commit(outcome, sent)
            if outcome.error is not None:
                self._report.add_failures(sent.rows, outcome.name, outcome.error)
            if isinstance(outcome.transfer, Upload):
                outcome.transfer.source = b""  # an outcome that is kept must not keep the bytes
            self._held.held_bytes -= sent.size_bytes
        self._held.trim()
        return outcomes

    def close(self) -> None:
        """Give back the memory of what was not settled."""
        self._held.release()

    async def _commit(self, outcome: Outcome, sent: _SentPart) -> None:
        part = SentRowPart(key=sent.key, size_bytes=sent.size_bytes, crc32c=sent.checksum, first_line=sent.first_line)
        try:
            ingested = await self._session.send(
                CommitPredictionParts(dataset_id=self._dataset_id, task=self._task, parts=(part,))
            )
        except AsyncSDKError as error:
            outcome.status, outcome.error = "failed", error
        else:
            outcome.reply = ingested
            self._count(ingested, sent.size_bytes)

    async def _send_inline(self, part: PackedPart) -> None:
        rows, problems = decode_part(part, self._file)
        for problem in problems:
            self._report.add_failure(f"line {problem.line}", problem)
        if part.rows > len(problems):
            message = UploadPredictionRows(
                dataset_id=self._dataset_id, task=self._task, rows=tuple(rows), first_line=part.first_line
            )
            self._count(await self._session.send(message), len(part.data))

    async def _next(self) -> PackedPart | None:
        part = None if self._ended else await anext(self._parts, None)
        if part is None:
            self._ended = True
            return None
        for problem in part.problems:
            self._report.add_failure(f"line {problem.line}", problem)
        return part

    def _count(self, ingested: IngestedRows, size_bytes: int) -> None:
        self._report.done += ingested.accepted
        self._report.bytes_done += size_bytes
        for problem in ingested.problems:
            self._report.add_failure(f"line {problem.line}", problem.to_error(file=self._file))
        undescribed = ingested.refused - len(ingested.problems)
        if undescribed > 0:
            like_them = ingested.problems[-1].to_error(file=self._file)
            self._report.add_failures(undescribed, f"{undescribed} further rows", like_them)


async def upload_predictions(
    session: Session,
    dataset_id: str,
    task: str,
    rows: RowSource,
    *,
    on_progress: ProgressCallback | None,
    on_event: EventCallback | None,
) -> Report:
    """Upload *rows* and return what became of them, counted by row."""
    session = patient(session)
    file = str(rows) if isinstance(rows, (str, PathLike)) else ""
    report = Report()
    started = anyio.current_time()
    parts = pack_rows(rows)
    feed = _RowFeed(session, dataset_id, task, parts, report, file)
    try:
        if not await feed.start():
            moved = await session.engine.collect(feed, on_progress=on_progress, on_event=on_event)
            report.add_waits(moved.waits, moved.cpu_share, moved.seconds)
            report.is_complete = moved.is_complete
    finally:
        feed.close()
        close = getattr(parts, "aclose", None)
        if close is not None:
            await close()
    report.seconds = anyio.current_time() - started
    return report
