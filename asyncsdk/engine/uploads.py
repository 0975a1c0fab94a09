"""Uploads: one request for a whole object, and what one request for a part has in common with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from asyncsdk.checksums import crc32c_base64, crc32c_hex
from asyncsdk.engine.lanes import LaneName
from asyncsdk.engine.parts import MemoryPart, Part
from asyncsdk.engine.replies import reply_crc32c
from asyncsdk.engine.sources import FileSource, OpenSource, open_source
from asyncsdk.engine.streams import StreamSource
from asyncsdk.engine.transfers import Outcome, Upload, describe_target, parse_crc32c
from asyncsdk.engine.work import Count, Work, header
from asyncsdk.errors import (
    AsyncSDKError,
    ChecksumMismatch,
    IncompleteTransfer,
    RequestError,
    ResponseError,
    SourceChanged,
    TransferError,
)
from asyncsdk.targets import PutTarget
from asyncsdk.transport.base import Reply, Request

__all__ = [
    "Receipt",
    "asks_for_checksum",
    "check_announced_size",
    "check_expected",
    "is_confirmed",
    "put",
    "send_part",
    "upload",
    "with_checksum",
]

_CHECKSUM_HEADER = "x-amz-checksum-crc32c"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one request that carried bytes.

    Attributes:
        size_bytes: Bytes sent.
        checksum: Their crc32c.
        verified: Whether the server named the same checksum.
        reply: What it said.
    """

    size_bytes: int
    checksum: int
    verified: bool
    reply: Reply

    @property
    def etag(self) -> str | None:
        """Validator the server gave for it."""
        etag: str | None = self.reply.headers.get("etag")
        return etag


async def upload(work: Work, send: Callable[[Work, OpenSource], Awaitable[Outcome]]) -> Outcome:
    """Open the source of *work*, have it sent by *send*, and make sure that it did not change meanwhile.

    Raises:
        SourceChanged: It did change, also when that made the server or the checksum refuse it.
    """
    opened, work.opened = work.opened, None
    source: OpenSource = await open_source(work) if opened is None else opened
    try:
        try:
            return await send(work, source)
        except (ResponseError, ChecksumMismatch, RequestError) as error:
            # A file that changed while it was read fails in many ways; say what is behind them.
            try:
                await source.check_unchanged()
            except SourceChanged as changed:
                raise changed from error
            raise
    finally:
        await source.aclose()


async def put(work: Work, source: OpenSource) -> Outcome:
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
            used = target = work.end
            assert isinstance(target, PutTarget)
            return await send_part(
                work, part, target.url, target.headers, count, "small", target.expires_at, method=target.method
            )

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


async def send_part(
    work: Work,
    part: Part,
    url: str,
    headers: Mapping[str, str],
    count: Count,
    lane: LaneName,
    expires_at: float | None,
    *,
    method: str = "PUT",
    number: int | None = None,
) -> Receipt:
    """Send *part* once.

    A checksum header that the target leaves empty is filled in; one that it gives is what the bytes must have. Nothing
    else is added: a header that was not signed makes some services refuse the request.
    """
    if asks_for_checksum(headers):
        headers = with_checksum(headers, await part.crc32c(work))
    body = part.body()
    request = Request(method, url, headers, body, on_sent=count, timeouts=work.resources.config.timeouts)
    reply = await work.send(request, lane)
    if not 200 <= reply.status < 300:
        raise work.refused(reply, request, expires_at)
    if count.size_bytes != part.size_bytes:
        # It said yes before it had everything. What was written to the connection counts, not what was read.
        raise IncompleteTransfer(part.size_bytes, count.size_bytes, source=work.transfer.name, part=number)
    checksum = await part.sent_crc32c(work, body)
    return Receipt(part.size_bytes, checksum, is_confirmed(work, reply, checksum, number), reply)


def asks_for_checksum(headers: Mapping[str, str]) -> bool:
    """Whether a target leaves a checksum header to be filled in."""
    return bool(headers) and header(headers, _CHECKSUM_HEADER) == ""


def with_checksum(headers: Mapping[str, str], checksum: int) -> dict[str, str]:
    """Return *headers* with the checksum header filled in."""
    value = crc32c_base64(checksum)
    return {name: value if name.lower() == _CHECKSUM_HEADER else text for name, text in headers.items()}


def is_confirmed(work: Work, reply: Reply, checksum: int, part: int | None = None) -> bool:
    """Whether the server states the same checksum.

    Raises:
        ChecksumMismatch: It states another one.
    """
    theirs = reply_crc32c(reply.headers)
    if theirs is None:
        return False
    if theirs != checksum:
        raise ChecksumMismatch(
            f"crc32c:{crc32c_hex(checksum)}", f"crc32c:{crc32c_hex(theirs)}", source=work.transfer.name, part=part
        )
    return True


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
