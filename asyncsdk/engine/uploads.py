"""Uploads of whole objects by one request, and what all uploads have in common: they may have to start over."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from asyncsdk.checksums import crc32c_hex
from asyncsdk.engine.bodies import Carrying, Receipt, send_part
from asyncsdk.engine.conditional import may_have_arrived, receipt_of_conflict
from asyncsdk.engine.forms import form_request
from asyncsdk.engine.parted.blocks import blob_request
from asyncsdk.engine.parted.contract import UploadLost
from asyncsdk.engine.parts import MemoryPart, Part
from asyncsdk.engine.retries import wait_before_next
from asyncsdk.engine.sources import FileSource, MemorySource, OpenSource, open_source
from asyncsdk.engine.streams import StreamSource
from asyncsdk.engine.transfers import Outcome, Upload, describe_target, parse_crc32c
from asyncsdk.engine.work import Count, Work
from asyncsdk.errors import (
    AsyncSDKError,
    ChecksumMismatch,
    Conflict,
    IncompleteTransfer,
    RequestError,
    ResponseError,
    SourceChanged,
    TransferError,
)
from asyncsdk.targets import BlobTarget, FormTarget, PutTarget, Target

__all__ = ["check_announced_size", "check_expected", "has_announced_size", "put", "start_over", "upload"]

_MOST_LOST = 2
"""Uploads that a server may lose while one object is sent."""


class _CannotAgain(Exception):
    """Starting over has no use, whatever the error that it holds."""

    def __init__(self, error: AsyncSDKError) -> None:
        super().__init__(str(error))
        self.error = error


async def start_over(work: Work, once: Callable[[bool], Awaitable[Outcome]]) -> Outcome:
    """Return what *once* returns; it is called again when the source changed and is to be sent as it is now.

    Not while it has another size than was announced: where it goes was prepared for that size.

    Args:
        once: Told whether it will be called again for a source that changed.
    """
    policy, number = work.resources.config.retry, 0
    has_changed: SourceChanged | None = None
    retries = work.resources.config.source_changed == "retry" and isinstance(_source_of(work), (str, Path))
    while True:
        number += 1
        may_again = retries and number < policy.max_attempts
        try:
            return await once(may_again)
        except _CannotAgain as final:
            raise final.error from None
        except ChecksumMismatch as mismatch:
            if has_changed is None:
                raise
            raise has_changed from mismatch  # what was announced is the checksum of what it was
        except SourceChanged as changed:
            if not may_again or not await has_announced_size(work):
                raise
            has_changed = changed
            wait = wait_before_next(policy, number, changed)
        work.take_back()
        await anyio.sleep(wait)


async def has_announced_size(work: Work) -> bool:
    """Whether the file that *work* sends has the size that was announced for it, if one was: it can be sent again."""
    assert isinstance(work.transfer, Upload)
    return await work.resources.threads.run(_is_as_large, work.transfer)


def _is_as_large(upload: Upload) -> bool:
    """Whether the file of *upload* has the size that was announced, if one was. Blocking."""
    assert isinstance(upload.source, (str, Path))
    try:
        return upload.size_bytes in {None, os.stat(upload.source).st_size}  # noqa: PTH116  # as sources are looked at
    except (OSError, ValueError):  # opening it again will say what is wrong with it
        return True


async def upload(work: Work, send: Callable[[Work, OpenSource, bool], Awaitable[Outcome]]) -> Outcome:
    """Open the source of *work*, have it sent by *send*, and make sure that it did not change meanwhile.

    Sent again from its start, if it can be read again: a source that changed, where the settings say so; one whose
    upload the server lost, where the feed gives a target that begins another one.

    Args:
        send: Also told whether it will be called again for a source that changed.

    Raises:
        SourceChanged: It did change, also when that made the server or the checksum refuse it.
    """
    lost_ones = 0

    async def once(may_again: bool) -> Outcome:
        nonlocal lost_ones
        while True:
            begun = getattr(work.end, "upload_id", None)
            opened, work.opened = work.opened, None
            source: OpenSource = await open_source(work) if opened is None else opened
            try:
                return await _watched(work, source, send, may_again)
            except UploadLost as lost:
                lost_ones += 1
                is_readable = not isinstance(source, StreamSource)  # once more
                work.take_back()
                if not is_readable or lost_ones > _MOST_LOST or not await work.replace(begun):
                    raise _CannotAgain(lost.error) from None
            finally:
                await source.aclose()

    return await start_over(work, once)


async def _watched(
    work: Work, source: OpenSource, send: Callable[[Work, OpenSource, bool], Awaitable[Outcome]], may_again: bool
) -> Outcome:
    try:
        return await send(work, source, may_again)
    except (ResponseError, ChecksumMismatch, RequestError) as error:
        if isinstance(source, MemorySource):
            raise  # it was read before, whatever became of its file
        # A file that changed while it was read fails in many ways; say what is behind them.
        try:
            await source.check_unchanged()
        except SourceChanged as changed:
            raise changed from error
        raise


def _source_of(work: Work) -> object:
    assert isinstance(work.transfer, Upload)
    return work.transfer.source


async def put(work: Work, source: OpenSource, may_again: bool = False) -> Outcome:
    """Send a whole object by one request."""
    transfer = work.transfer
    assert isinstance(transfer, Upload)
    part = await _whole(work, source)
    used = work.end
    may_be_there = may_have_arrived(work.first_error, None)
    if transfer.resume is not None and transfer.resume.may_be_there:
        may_be_there = True
    try:
        if not isinstance(source, FileSource):
            # The bytes are in memory: a wrong checksum is known before anything is sent.
            check_expected(transfer, await part.crc32c(work))

        async def attempt(count: Count) -> Receipt:
            end = work.end
            assert isinstance(end, Target)
            now = _request(end, transfer, part)

            async def fresh() -> Carrying:
                nonlocal used
                used = await work.current()
                assert isinstance(used, Target)
                return now if used is end else _request(used, transfer, part)

            nonlocal may_be_there
            try:
                return await send_part(work, part, now, count, "small", fresh=fresh)
            except AsyncSDKError as error:
                if may_have_arrived(error, count.size_bytes if part.size_bytes else None):
                    may_be_there = True
                is_once = isinstance(used, FormTarget) and not used.is_repeatable
                if is_once and isinstance(error, RequestError) and count.size_bytes:
                    error.retryable = False  # it may have arrived, and would be there twice
                raise

        try:
            receipt = await work.retry(attempt, renew=lambda: work.renew(used), lane="small")
        except Conflict as error:
            if not may_be_there:
                raise
            assert isinstance(used, Target)
            receipt = await receipt_of_conflict(work, part, used, error)
    finally:
        part.release()
    await source.check_unchanged()
    check_expected(transfer, receipt.checksum)
    return work.done(
        receipt.size_bytes,
        receipt.checksum,
        etag=receipt.etag,
        verified=receipt.verified,
        reply=receipt.reply.body,
    )


def _request(target: Target, upload: Upload, part: Part) -> Carrying:
    if isinstance(target, FormTarget):
        return form_request(target, upload.name, part.body())
    if isinstance(target, BlobTarget):
        return blob_request(target)
    assert isinstance(target, PutTarget)
    return Carrying(target.method, target.url, target.headers, target.expires_at)


async def _whole(work: Work, source: OpenSource) -> Part:
    """Return all bytes of *source* as one part.

    A stream is read into memory, for which a quarter of the budget is set aside: taking more and more while it comes
    could leave several streams waiting for each other for ever.
    """
    upload = work.transfer
    assert isinstance(upload, Upload)
    if not isinstance(source, StreamSource):
        return await source.next_part(max(1, source.size_bytes or 0)) or MemoryPart(b"")
    budget = work.resources.budget
    announced = upload.size_bytes
    limit = max(1, budget.limit_bytes // 4)
    if announced is not None and announced > limit:
        raise _too_large(upload, limit)
    part = await source.next_part(limit if announced is None else announced + 1) or MemoryPart(b"")
    try:
        if await source.has_more():
            if announced is None:
                raise _too_large(upload, limit)
            raise IncompleteTransfer(announced, part.size_bytes + 1, source=upload.name)
        check_announced_size(upload, part.size_bytes)
    except BaseException:  # memory is given back whatever ended it, then raised again
        part.release()
        raise
    return part


def _too_large(upload: Upload, limit: int) -> TransferError:
    return TransferError(
        f"{upload.name}: a stream of more than {limit} bytes does not go through a single request; use a multipart "
        "target, or give a path",
        source=upload.name,
        destination=describe_target(upload.target),
    )


def check_announced_size(upload: Upload, size_bytes: int) -> None:
    """Raise unless a stream had the size that was announced for it."""
    if upload.size_bytes is not None and upload.size_bytes != size_bytes:
        raise IncompleteTransfer(upload.size_bytes, size_bytes, source=upload.name)


def check_expected(upload: Upload, checksum: int) -> None:
    """Raise unless the bytes of *upload* have the checksum that was announced for them, if one was."""
    if upload.crc32c is not None and parse_crc32c(upload.crc32c) != checksum:
        error: AsyncSDKError = ChecksumMismatch(
            f"crc32c:{upload.crc32c.lower()}", f"crc32c:{crc32c_hex(checksum)}", source=upload.name
        )
        error.retryable = False  # the same bytes have the same checksum
        raise error
