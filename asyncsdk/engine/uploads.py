"""Uploads of whole objects by one request, and what all uploads have in common: they may have to start over."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from asyncsdk.checksums import crc32c_hex
from asyncsdk.engine.bodies import Carrying, Receipt, send_part
from asyncsdk.engine.forms import form_request
from asyncsdk.engine.parted.blocks import blob_request
from asyncsdk.engine.parted.contract import UploadLost
from asyncsdk.engine.parts import MemoryPart, Part
from asyncsdk.engine.retries import wait_before_next
from asyncsdk.engine.sources import FileSource, OpenSource, open_source
from asyncsdk.engine.streams import StreamSource
from asyncsdk.engine.transfers import Outcome, Upload, describe_target, parse_crc32c
from asyncsdk.engine.work import Count, Work
from asyncsdk.errors import (
    AsyncSDKError,
    ChecksumMismatch,
    IncompleteTransfer,
    RequestError,
    ResponseError,
    SourceChanged,
    TransferError,
)
from asyncsdk.targets import BlobTarget, FormTarget, PutTarget, Target

__all__ = ["check_announced_size", "check_expected", "put", "start_over", "upload"]

_MOST_LOST = 2
"""Uploads that a server may lose while one object is sent."""


class _CannotAgain(Exception):
    """Starting over has no use, whatever the error that it holds."""

    def __init__(self, error: AsyncSDKError) -> None:
        super().__init__(str(error))
        self.error = error


async def start_over(work: Work, once: Callable[[bool], Awaitable[Outcome]]) -> Outcome:
    """Return what *once* returns; it is called again when the source changed and is to be sent as it is now.

    Args:
        once: Told whether it will be called again for a source that changed.
    """
    policy, number = work.resources.config.retry, 0
    retries = work.resources.config.source_changed == "retry" and isinstance(_source_of(work), (str, Path))
    while True:
        number += 1
        may_again = retries and number < policy.max_attempts
        try:
            return await once(may_again)
        except _CannotAgain as final:
            raise final.error from None
        except SourceChanged as changed:
            if not may_again:
                raise
            wait = wait_before_next(policy, number, changed)
        work.take_back()
        await anyio.sleep(wait)


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
    try:
        if not isinstance(source, FileSource):
            # The bytes are in memory: a wrong checksum is known before anything is sent.
            check_expected(transfer, await part.crc32c(work))

        async def attempt(count: Count) -> Receipt:
            nonlocal used
            used = await work.current()
            assert isinstance(used, Target)
            try:
                return await send_part(work, part, _request(used, transfer, part), count, "small")
            except RequestError as error:
                if isinstance(used, FormTarget) and not used.is_repeatable and count.size_bytes:
                    error.retryable = False  # it may have arrived, and would be there twice
                raise

        receipt = await work.retry(attempt, renew=lambda: work.renew(used))
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
