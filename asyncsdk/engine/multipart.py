"""Multipart uploads: parts through signed URLs, then complete; abort when anything else happens.

Source: Amazon S3 API reference, UploadPart, CompleteMultipartUpload, AbortMultipartUpload.
"""

from __future__ import annotations

import asyncio

import anyio
from anyio.abc import TaskGroup

from asyncsdk.checksums import combine_crc32c, crc32c_base64
from asyncsdk.engine.parts import MemoryPart, Part
from asyncsdk.engine.redirects import send_following
from asyncsdk.engine.replies import complete_body, embedded_refusal, reply_crc32c, xml_text
from asyncsdk.engine.sources import OpenSource
from asyncsdk.engine.transfers import Outcome, Upload, describe_target
from asyncsdk.engine.uploads import Receipt, check_announced_size, check_expected, send_part
from asyncsdk.engine.work import Count, Work, renewed
from asyncsdk.errors import AsyncSDKError, ChecksumMismatch, IncompleteTransfer, TransferError
from asyncsdk.targets import MultipartTarget
from asyncsdk.transport.base import BytesBody, Reply, Request

__all__ = ["MAX_PARTS", "part_count", "upload_in_parts"]

MAX_PARTS = 10_000
"""The most parts an upload may have (S3 and everything that speaks its protocol)."""


def part_count(size_bytes: int, part_size: int) -> int:
    """Return how many parts an object has; an empty one has one, which is empty."""
    return max(1, -(-size_bytes // part_size))


async def upload_in_parts(work: Work, source: OpenSource) -> Outcome:
    """Send an object in parts, several at once and in any order, and complete it.

    Aborted when it fails or is cancelled. Memory: for sources that are no files, a part per request from the budget.

    Raises:
        TransferError: It would have more than 10,000 parts; nothing was sent if its size was known.
    """
    return await _Multipart(work, source).run()


class _Multipart:
    def __init__(self, work: Work, source: OpenSource) -> None:
        assert isinstance(work.transfer, Upload)
        assert isinstance(work.transfer.target, MultipartTarget)
        self._work = work
        self._source = source
        self._upload = work.transfer
        self._target = work.transfer.target
        self._books = [work.transfer.target]  # the latest last; older ones may hold URLs that it lacks
        self._renewing = asyncio.Lock()
        self._receipts: dict[int, Receipt] = {}
        self._parts_read: int | None = None  # known at the end of the source
        self._failure: Exception | None = None

    async def run(self) -> Outcome:
        size = self._source.size_bytes
        if size is not None and part_count(size, self._target.part_size) > MAX_PARTS:
            raise self._too_many_parts()
        try:
            await self._send_parts()
            checksum, total, verified = self._add_up()
            await self._source.check_unchanged()
            check_announced_size(self._upload, total)
            check_expected(self._upload, checksum)
            reply = await self._complete()
        except BaseException as error:  # aborted whatever ended it, cancellation too, then raised again
            await self._abort(error)
            raise
        etag = None
        if reply is not None:
            etag = xml_text(reply.body, "ETag") or reply.headers.get("etag")
            verified = self._compare(reply, checksum) or verified
        return self._work.done(
            total, checksum, etag=etag, verified=verified, reply=b"" if reply is None else reply.body
        )

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
        room = asyncio.Semaphore(self._work.resources.config.concurrency)
        number = 0
        while True:
            await room.acquire()
            part = await self._source.next_part(self._target.part_size)
            if part is None and number > 0:
                self._parts_read = number
                return
            number += 1
            part = part or MemoryPart(b"")
            parts.add(part)
            if number > MAX_PARTS:
                raise self._too_many_parts()
            group.start_soon(self._send_one, number, part, parts, room, group.cancel_scope)

    def _fail(self, error: Exception, scope: anyio.CancelScope) -> None:
        if self._failure is None:
            self._failure = error
        scope.cancel()

    async def _send_one(
        self, number: int, part: Part, parts: set[Part], room: asyncio.Semaphore, scope: anyio.CancelScope
    ) -> None:
        try:
            self._receipts[number] = await self._send_until_there(number, part)
        except Exception as error:  # noqa: BLE001  # raised again, alone, by `_send_parts`
            self._fail(error, scope)
        finally:
            part.release()
            parts.discard(part)
            room.release()

    async def _send_until_there(self, number: int, part: Part) -> Receipt:
        used: MultipartTarget | None = None

        async def attempt(count: Count) -> Receipt:
            nonlocal used
            used = await self._book_for(number)
            url = used.part_url(number)
            assert url is not None
            return await send_part(self._work, part, url, used.headers, count, "part", used.expires_at, number=number)

        async def renew() -> bool:
            assert used is not None
            return await self._renew(number, used)

        return await self._work.retry(attempt, renew=renew)

    async def _book_for(self, number: int) -> MultipartTarget:
        """Return the latest target that holds a URL for part *number*; asks the feed when none does."""
        book = self._find(number)
        if book is None:
            await self._renew(number, None)
            book = self._find(number)
        if book is None:
            raise TransferError(
                f"{self._upload.name}: there is no URL for part {number}, and no further ones are to be had",
                source=self._upload.name,
                destination=describe_target(self._target),
                part=number,
            )
        return book

    def _find(self, number: int) -> MultipartTarget | None:
        return next((book for book in reversed(self._books) if book.part_url(number) is not None), None)

    async def _renew(self, number: int, stale: MultipartTarget | None) -> bool:
        async with self._renewing:
            if self._find(number) is not stale:
                return True  # another part has asked meanwhile
            feed = self._work.feed
            fresh = None if feed is None else await renewed(feed, self._upload, first_part=number)
            if not isinstance(fresh, MultipartTarget) or fresh.part_url(number) is None:
                return False
            self._books = [*self._books[-8:], fresh]
            return True

    def _add_up(self) -> tuple[int, int, bool]:
        """Return checksum and size of all parts, and whether the server verified every one.

        Raises:
            IncompleteTransfer: Some are missing, whatever ended their tasks: what is completed must be whole.
        """
        sent = sum(receipt.size_bytes for receipt in self._receipts.values())
        size = self._source.size_bytes
        if self._parts_read != len(self._receipts) or size not in {None, sent}:
            raise IncompleteTransfer(sent if size is None else size, sent, source=self._upload.name)
        checksum, total, verified = 0, 0, True
        for number in range(1, len(self._receipts) + 1):
            receipt = self._receipts[number]
            checksum = combine_crc32c(checksum, receipt.checksum, receipt.size_bytes)
            total += receipt.size_bytes
            verified = verified and receipt.verified
        return checksum, total, verified

    def _too_many_parts(self) -> TransferError:
        size = self._source.size_bytes
        fitting = "" if size is None else f"; it needs parts of at least {-(-size // MAX_PARTS)} bytes"
        return TransferError(
            f"{self._upload.name}: has more than {MAX_PARTS} parts of {self._target.part_size} bytes{fitting}",
            source=self._upload.name,
            destination=describe_target(self._target),
        )

    # --- the end ---------------------------------------------------------------------------------------------

    async def _complete(self) -> Reply | None:
        """Join the parts; None when the platform does that."""
        if not self._target.complete_url:
            return None
        with_checksums = all(receipt.verified for receipt in self._receipts.values())
        body = complete_body(
            [
                (number, receipt.etag or "", crc32c_base64(receipt.checksum) if with_checksums else None)
                for number, receipt in sorted(self._receipts.items())
            ]
        )
        used = self._books[-1]

        async def attempt(count: Count) -> Reply:
            nonlocal used
            used = self._books[-1]
            url = used.complete_url or self._target.complete_url
            request = Request("POST", url, {}, BytesBody(body), timeouts=self._work.resources.config.timeouts)
            reply = await self._work.send(request, "part")
            if not 200 <= reply.status < 300:
                raise self._work.refused(reply, request, used.expires_at)
            error = embedded_refusal(reply, request.method, url, request.headers)
            if error is not None:
                raise error
            return reply

        return await self._work.retry(attempt, renew=lambda: self._renew(1, self._find(1)))

    def _compare(self, reply: Reply, checksum: int) -> bool:
        """Compare with the checksum of the whole that the server states; False when it states none."""
        theirs = reply_crc32c(
            {
                "x-amz-checksum-crc32c": xml_text(reply.body, "ChecksumCRC32C")
                or reply.headers.get("x-amz-checksum-crc32c", ""),
                "x-amz-checksum-type": xml_text(reply.body, "ChecksumType") or "",
            }
        )
        if theirs is not None and theirs != checksum:
            error: AsyncSDKError = ChecksumMismatch(
                f"crc32c:{checksum:08x}", f"crc32c:{theirs:08x}", source=self._upload.name
            )
            raise error
        return theirs is not None

    async def _abort(self, cause: BaseException) -> None:
        """Remove the parts, whatever cancels this task, for a bounded time; the cause stays what is raised."""
        url = self._books[-1].abort_url or self._target.abort_url
        if not url:
            return
        seconds = self._work.resources.config.cleanup_seconds
        with anyio.move_on_after(seconds, shield=True) as scope:
            try:
                reply = await send_following(
                    self._work.resources.transport,
                    Request("DELETE", url, timeouts=self._work.resources.config.timeouts),
                )
            except AsyncSDKError as error:
                cause.add_note(f"aborting the multipart upload failed too, its parts may remain: {error}")
            else:
                if reply.status >= 300 and reply.status != 404:
                    cause.add_note(f"aborting the multipart upload was refused with status {reply.status}")
        if scope.cancelled_caught:
            cause.add_note(f"aborting the multipart upload took longer than {seconds:g} s, its parts may remain")
