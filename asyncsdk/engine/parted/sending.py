"""Sending an object in parts, over any protocol: one loop that reads, tries again, counts, resumes and adds up."""

from __future__ import annotations

from collections.abc import Mapping

import anyio
from anyio.abc import TaskGroup

from asyncsdk.checksums import combine_crc32c, crc32c_hex
from asyncsdk.engine.attempts import Airtime
from asyncsdk.engine.digests import digests_of
from asyncsdk.engine.limits.hedging import Claim
from asyncsdk.engine.parted.contract import (
    Finished,
    PartedUpload,
    Piece,
    Standing,
    UploadLost,
    unknown_completion,
)
from asyncsdk.engine.parted.room import Room
from asyncsdk.engine.parted.state import Resume, SentPart
from asyncsdk.engine.parts import MemoryPart, Part
from asyncsdk.engine.sources import FileSource, OpenSource, open_source
from asyncsdk.engine.streams import StreamSource
from asyncsdk.engine.transfers import Outcome, Upload, describe_target, parse_crc32c
from asyncsdk.engine.uploads import check_announced_size, check_expected, has_announced_size
from asyncsdk.engine.work import Count, Work
from asyncsdk.errors import AsyncSDKError, ChecksumMismatch, IncompleteTransfer, SourceChanged, TransferError

__all__ = ["part_count", "send_in_parts"]

_MOST_OF_STREAM = 16
"""Parts of one stream at once: each is in memory, and others want some of the budget too."""


def part_count(size_bytes: int, part_size: int) -> int:
    """Return how many parts an object has; an empty one has one, which is empty."""
    return max(1, -(-size_bytes // part_size))


async def send_in_parts(work: Work, source: OpenSource, parted: PartedUpload, may_again: bool = False) -> Outcome:
    """Send an object in parts and finish it.

    What the server has of it is removed when it fails or is cancelled, unless somebody wants to resume it. Memory: for
    sources that are no files, a part per request from the budget.

    Args:
        may_again: Whether all is sent again should the source have changed.

    Raises:
        UploadLost: The server has no such upload any more.
        TransferError: It would have more parts than allowed; nothing was sent if its size was known.
    """
    return await _Sending(work, source, parted, may_again).run()


class _Sending:
    def __init__(self, work: Work, source: OpenSource, parted: PartedUpload, may_again: bool) -> None:
        assert isinstance(work.transfer, Upload)
        self._work = work
        self._source = source
        self._parted = parted
        self._may_again = may_again
        self._upload = work.transfer
        self._resume: Resume | None = work.transfer.resume
        self._keeps_parts = self._resume is not None and self._resume.keeps_parts
        self._recalled: Mapping[int, SentPart] = {}  # what was sent before, whether or not it counts now
        self._remembered: Mapping[int, SentPart] = {}
        self._standing: Mapping[int, Standing] = {}
        self._sent: dict[int, SentPart] = {}
        self._parts_read: int | None = None  # known at the end of the source
        self._failure: Exception | None = None
        self._tells_parts = True

    async def run(self) -> Outcome:
        size, limits = self._size, self._parted.limits
        if size is not None and limits.max_parts is not None and part_count(size, limits.part_size) > limits.max_parts:
            raise self._too_many_parts(limits.max_parts)
        try:
            await self._begin()
            await self._send_parts()
            checksum, total, verified = self._add_up()
            await self._source.check_unchanged()
            check_announced_size(self._upload, total)
            check_expected(self._upload, checksum)
            parts = [self._sent[number] for number in range(1, len(self._sent) + 1)]
            if self._resume is not None and self._resume.flush is not None and self._tells_parts:
                await self._resume.flush()  # killed after this, somebody else knows the object for made
            finished = await self._parted.finish(parts, checksum, total)
        except UploadLost as lost:
            if not await self._was_finished(lost):
                raise
            checksum, total, verified = self._add_up()
            check_expected(self._upload, checksum)
            finished = Finished()
        except BaseException as error:  # removed whatever ended it, cancellation too, then raised again
            if isinstance(error, SourceChanged) and self._may_again and await has_announced_size(self._work):
                self._forget()
                if limits.in_order:  # what arrived of the old bytes cannot be replaced by others
                    await self._abort(error)
                    raise UploadLost(error) from None
                raise
            may_leave = self._resume is not None and self._resume.may_leave
            if not may_leave or isinstance(error, (SourceChanged, ChecksumMismatch)):
                await self._abort(error)
            raise
        return self._work.done(
            total, checksum, etag=finished.etag, verified=finished.is_verified or verified, reply=finished.body
        )

    @property
    def _size(self) -> int | None:
        """The size, as far as it is known before the end: of a stream, what was announced."""
        known = self._source.size_bytes
        return self._upload.size_bytes if known is None else known

    async def _begin(self) -> None:
        """Find out what the server has already, if this upload was begun before."""
        resume, part_size = self._resume, self._parted.limits.part_size
        if resume is None:
            return
        is_ours = (resume.upload_id, resume.part_size) == (self._parted.upload_id, part_size)
        # What a session has cannot be sent again, in whatever parts it came.
        is_begun = resume.upload_id == self._parted.upload_id and self._parted.limits.in_order
        if self._is_another_file(resume):
            await self._begin_another_file(is_ours or is_begun)
            return
        if is_ours:
            self._recalled = {part.number: part for part in resume.parts}
            if resume.keeps_parts:
                self._remembered = self._recalled
        elif resume.on_begin is not None:
            resume.on_begin(self._parted.upload_id, part_size)
        if is_begun or (is_ours and resume.keeps_parts):
            self._standing = await self._parted.what_stands()

    def _is_another_file(self, resume: Resume) -> bool:
        source = self._source
        return isinstance(source, FileSource) and resume.identity not in {None, source.identity}

    async def _begin_another_file(self, is_begun: bool) -> None:
        """The file was replaced between the look at it and its opening: what is remembered is of other bytes.

        Nothing is told of it either: that would be kept under what the other file was.
        """
        self._forget()
        self._tells_parts = False
        if not is_begun:
            return
        if self._parted.limits.in_order:  # what arrived of the old bytes cannot be replaced by others
            error = SourceChanged(
                f"{self._upload.name}: was changed since it was looked at, upload it again", source=self._upload.name
            )
            await self._abort(error)
            raise UploadLost(error)
        self._standing = await self._parted.what_stands()  # with digests, it is compared with what is read now

    def _forget(self) -> None:
        """What is remembered is of other bytes than those that come now."""
        if self._resume is not None:
            self._resume.parts = ()
            if self._resume.on_begin is not None:
                self._resume.on_begin(self._parted.upload_id, self._parted.limits.part_size)

    # --- parts -----------------------------------------------------------------------------------------------

    async def _send_parts(self) -> None:
        """Read parts in order in this task and send them in others, as many as there are slots."""
        parts: set[Part] = set()
        try:
            async with anyio.create_task_group() as group:
                try:
                    await self._start_parts(group, parts)
                except Exception as error:  # noqa: BLE001  # raised again below, outside of the group that would wrap it
                    self._fail(error, group.cancel_scope)
        finally:
            for part in parts:  # of tasks that were cancelled before they began
                part.release()
        if self._failure is not None:
            raise self._failure

    async def _start_parts(self, group: TaskGroup, parts: set[Part]) -> None:
        limits = self._parted.limits
        most = self._work.resources.config.most_concurrency
        if self._source.size_bytes is None:
            most = min(most, _MOST_OF_STREAM)
        with Room(self._work.resources.slots, 1 if limits.in_order else most) as room:
            await self._read_parts(group, parts, room)

    async def _read_parts(self, group: TaskGroup, parts: set[Part], room: Room) -> None:
        limits = self._parted.limits
        number = start = 0
        while True:
            await room.enter()
            part = await self._source.next_part(limits.part_size)
            if part is None and number > 0:
                self._parts_read = number
                return
            number += 1
            part = part or MemoryPart(b"")
            parts.add(part)
            if limits.max_parts is not None and number > limits.max_parts:
                raise self._too_many_parts(limits.max_parts)
            is_last = limits.in_order and await self._is_end(start + part.size_bytes)
            piece = Piece(number, start, part, is_last, self._remembered.get(number))
            start = piece.stop
            group.start_soon(self._send_one, piece, parts, room, group)

    async def _is_end(self, stop: int) -> bool:
        """Whether nothing follows byte *stop*; a stream is asked, which holds one piece of it."""
        if isinstance(self._source, StreamSource):
            return not await self._source.has_more()
        return stop >= (self._source.size_bytes or 0)

    def _fail(self, error: Exception, scope: anyio.CancelScope) -> None:
        if self._failure is None:
            self._failure = error
        scope.cancel()

    async def _send_one(self, piece: Piece, parts: set[Part], room: Room, group: TaskGroup) -> None:
        try:
            sent = await self._found(piece)
            if sent is None:
                if piece.is_last:
                    await self._look_before_the_end(piece)
                sent = await self._send(piece)
            self._sent[piece.number] = sent
            # What is remembered in these very words needs no telling.
            if self._tells_parts and sent != piece.remembered:
                self._tell(sent)
        except Exception as error:  # noqa: BLE001  # raised again, alone, by `_send_parts`
            self._fail(error, group.cancel_scope)
        finally:
            piece.part.release()
            parts.discard(piece.part)
            room.leave()

    async def _send(self, piece: Piece) -> SentPart:
        """Send *piece*; when that takes far longer than others took, by a second request at the same time."""

        async def once(airtime: Airtime | None = None, max_attempts: int | None = None) -> SentPart:
            return await self._work.retry(
                lambda count: self._parted.send(piece, count),
                renew=lambda: self._parted.renew(piece),
                max_attempts=max_attempts,
                airtime=airtime,
            )

        async def repeat(claim: Claim) -> SentPart:
            sent = await once(max_attempts=1)
            is_used = False
            try:
                is_used = await claim()
            finally:
                if not is_used:
                    self._work.moved(-piece.part.size_bytes)
            return sent

        if self._parted.limits.in_order or not self._parted.limits.may_repeat:
            return await once()
        return await self._work.resources.limits.hedging.run("up", piece.part.size_bytes, once, repeat)

    async def _look_before_the_end(self, piece: Piece) -> None:
        """Where the last part makes the object, a source that changed or is not the announced one shows before it."""
        await self._source.check_unchanged()
        if self._upload.crc32c is not None:
            checksum = 0
            for number in range(1, piece.number):
                part = self._sent[number]
                checksum = combine_crc32c(checksum, parse_crc32c(part.crc32c), part.size_bytes)
            last = await piece.part.crc32c(self._work)
            check_expected(self._upload, combine_crc32c(checksum, last, piece.part.size_bytes))

    async def _found(self, piece: Piece) -> SentPart | None:
        """Return the part if the server has it already, with these bytes; nothing is sent then."""
        standing, remembered = self._standing.get(piece.number), piece.remembered
        size = piece.part.size_bytes
        if standing is None or standing.size_bytes != size:
            return None
        is_known = remembered is not None and remembered.size_bytes == size
        if is_known and remembered is not None and standing.etag and remembered.etag != standing.etag:
            is_known = False
        checksum: int | None = None
        if remembered is not None and is_known:
            checksum = parse_crc32c(remembered.crc32c)
            # Bytes in memory are summed: a stream may give others than the last time. A file was looked at before.
            if isinstance(piece.part, MemoryPart) and await piece.part.crc32c(self._work) != checksum:
                return None
        names = tuple(name for name in standing.digests if name != "crc64")  # sending again is faster
        verified = remembered is not None and is_known and remembered.verified
        if "crc32c" in names and checksum is not None:
            if standing.digests["crc32c"] != checksum.to_bytes(4, "big"):
                return None
            verified = True
        elif checksum is None:
            if not names:
                return None
            ours = await digests_of(self._work, piece.part, tuple({**dict.fromkeys(names), "crc32c": None}))
            if any(ours[name] != standing.digests[name] for name in names):
                return None
            checksum, verified = int.from_bytes(ours["crc32c"], "big"), True
        count = Count(self._work)
        count(size)
        return SentPart(piece.number, size, crc32c_hex(checksum), standing.etag, verified)

    def _tell(self, sent: SentPart) -> None:
        if self._resume is not None and self._resume.on_part is not None:
            self._resume.on_part(sent)

    # --- the end ---------------------------------------------------------------------------------------------

    async def _was_finished(self, lost: UploadLost) -> bool:
        """Whether the upload is gone because it was finished, by a process that could not say so any more."""
        recalled, size, part_size = self._recalled, self._source.size_bytes, self._parted.limits.part_size
        if size is None or isinstance(self._source, StreamSource):
            return False
        if sorted(recalled) != list(range(1, part_count(size, part_size) + 1)):
            return False
        parts = [recalled[number] for number in sorted(recalled)]
        is_same = self._keeps_parts and isinstance(self._source, FileSource)
        if not is_same and not await self._has_bytes_of(parts):
            return False
        is_made = await self._parted.is_made(parts)
        if is_made is None:
            raise UploadLost(unknown_completion(self._upload, lost.error)) from lost
        if is_made:
            self._sent, self._parts_read = dict(recalled), len(parts)
            self._work.take_back()
            Count(self._work)(size)
        return is_made

    async def _has_bytes_of(self, parts: list[SentPart]) -> bool:
        """Whether the source has the bytes that *parts* had: nobody has looked whether it is the same since."""
        source = await open_source(self._work)
        try:
            for sent in parts:
                part = await source.next_part(self._parted.limits.part_size)
                if part is None:
                    return False
                try:
                    if part.size_bytes != sent.size_bytes or crc32c_hex(await part.crc32c(self._work)) != sent.crc32c:
                        return False
                finally:
                    part.release()
            await source.check_unchanged()
        finally:
            await source.aclose()
        return True

    def _add_up(self) -> tuple[int, int, bool]:
        """Return checksum and size of all parts, and whether the server verified every one.

        Raises:
            IncompleteTransfer: Some are missing, whatever ended their tasks: what is finished must be whole.
        """
        sent = sum(part.size_bytes for part in self._sent.values())
        size = self._source.size_bytes
        if self._parts_read != len(self._sent) or size not in {None, sent}:
            raise IncompleteTransfer(sent if size is None else size, sent, source=self._upload.name)
        checksum, verified = 0, True
        for number in range(1, len(self._sent) + 1):
            part = self._sent[number]
            checksum = combine_crc32c(checksum, parse_crc32c(part.crc32c), part.size_bytes)
            verified = verified and part.verified
        return checksum, sent, verified

    def _too_many_parts(self, most: int) -> TransferError:
        size = self._size
        fitting = (
            "; a stream whose size is told beforehand, or a file, may be larger"
            if size is None
            else f"; it needs parts of at least {-(-size // most)} bytes"
        )
        return TransferError(
            f"{self._upload.name}: has more than {most} parts of {self._parted.limits.part_size} bytes{fitting}",
            source=self._upload.name,
            destination=describe_target(self._upload.target),
        )

    async def _abort(self, cause: BaseException) -> None:
        """Remove the parts, whatever cancels this task, for a bounded time; the cause stays what is raised."""
        seconds = self._work.resources.config.cleanup_seconds
        with anyio.move_on_after(seconds, shield=True) as scope:
            try:
                reply = await self._parted.abort()
            except AsyncSDKError as error:
                cause.add_note(f"aborting the multipart upload failed too, its parts may remain: {error}")
            else:
                if reply is not None and reply.status >= 300 and reply.status not in {404, 410, 499}:
                    cause.add_note(f"aborting the multipart upload was refused with status {reply.status}")
        if scope.cancelled_caught:
            cause.add_note(f"aborting the multipart upload took longer than {seconds:g} s, its parts may remain")
