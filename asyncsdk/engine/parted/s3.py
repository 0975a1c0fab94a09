"""S3's multipart upload through signed URLs: parts in any order, then complete; abort removes them.

Source: Amazon S3 API reference, UploadPart, ListParts, CompleteMultipartUpload, AbortMultipartUpload; S3 User Guide,
"Checking object integrity" (composite and full-object checksums).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping, Sequence

from asyncsdk.checksums import crc32c, crc32c_base64, crc32c_hex
from asyncsdk.engine.bodies import Carrying, send_part
from asyncsdk.engine.digests import reply_crc32c, stated
from asyncsdk.engine.parted.contract import Finished, Limits, Piece, Standing, UploadLost
from asyncsdk.engine.parted.listing import Listing
from asyncsdk.engine.parted.state import SentPart
from asyncsdk.engine.redirects import send_following
from asyncsdk.engine.replies import complete_body, embedded_refusal, xml_text
from asyncsdk.engine.transfers import Upload, describe_target, parse_crc32c
from asyncsdk.engine.work import Count, Work, renewed
from asyncsdk.errors import ChecksumMismatch, NotFound, ResponseError, TransferError
from asyncsdk.targets import MultipartTarget
from asyncsdk.transport.base import BytesBody, Reply, ReplyHead, Request

__all__ = ["MAX_PARTS", "MultipartUpload"]

MAX_PARTS = 10_000
"""The most parts an upload may have (S3 and everything that speaks its protocol)."""

_GONE = {"NoSuchUpload", "no_such_upload"}
_OLD_BOOKS = 8
_MD5 = re.compile(r"[0-9a-f]{32}")

_PART = re.compile(rb"<Part>(.*?)</Part>", re.DOTALL)
_DIGESTS = {
    "ChecksumCRC32C": "x-amz-checksum-crc32c",
    "ChecksumCRC32": "x-amz-checksum-crc32",
    "ChecksumCRC64NVME": "x-amz-checksum-crc64nvme",
    "ChecksumSHA1": "x-amz-checksum-sha1",
    "ChecksumSHA256": "x-amz-checksum-sha256",
}


class MultipartUpload:
    """A `MultipartTarget`; see `PartedUpload`."""

    def __init__(self, work: Work) -> None:
        target = work.end
        assert isinstance(target, MultipartTarget)
        assert isinstance(work.transfer, Upload)
        self._work = work
        self._upload = work.transfer
        self._target = target
        self._books = [target]  # the latest last; older ones may hold URLs that it lacks
        self._used: dict[int, MultipartTarget] = {}
        self._renewing = asyncio.Lock()
        self._summed: set[int] = set()  # parts whose crc32c the server has stated
        self.upload_id = target.upload_id
        self.limits = Limits(target.part_size, MAX_PARTS)

    # --- what is there ---------------------------------------------------------------------------------------

    async def what_stands(self) -> Mapping[int, Standing]:
        """Return the parts that ListParts names. The first thousand of them at S3: its URL is signed for one page."""
        if not self._target.list_url:
            return {}
        reply = await self._work.retry(self._list, renew=lambda: self.renew(None))
        found: dict[int, Standing] = {}
        for match in _PART.finditer(reply):
            number, size = xml_text(match[1], "PartNumber") or "", xml_text(match[1], "Size") or ""
            if _is_number(number) and _is_number(size):
                headers = {header: xml_text(match[1], name) or "" for name, header in _DIGESTS.items()}
                digests = stated(headers)
                if "crc32c" in digests:
                    self._summed.add(int(number))
                found[int(number)] = Standing(int(size), xml_text(match[1], "ETag") or "", digests)
        return found

    async def _list(self, count: Count) -> bytes:
        book = self._books[-1]
        listing = Listing()
        request = Request(
            "GET",
            book.list_url or self._target.list_url,
            on_head=listing.take,
            timeouts=self._work.resources.config.timeouts,
        )
        reply = await self._work.send(request, "part")
        if reply.status == 404:
            error = self._work.refused(reply, request, book.expires_at)
            # Ours knows of an upload when its first part is there.
            if isinstance(error, ResponseError) and error.code == "no_such_upload":
                return b""
            raise UploadLost(error) if isinstance(error, ResponseError) else error
        if reply.status != 200:
            raise self._work.refused(reply, request, book.expires_at)
        return listing.text

    # --- parts -----------------------------------------------------------------------------------------------

    async def send(self, piece: Piece, count: Count) -> SentPart:
        book = self._used[piece.number] = await self._book_for(piece.number)
        url = book.part_url(piece.number)
        assert url is not None
        carrying = Carrying("PUT", url, book.headers, book.expires_at)
        try:
            receipt = await send_part(self._work, piece.part, carrying, count, "part", number=piece.number)
        except NotFound as error:
            if error.code in _GONE:
                raise UploadLost(error) from None
            raise
        if reply_crc32c(receipt.reply.headers) is not None:
            self._summed.add(piece.number)
        return SentPart(
            piece.number, receipt.size_bytes, crc32c_hex(receipt.checksum), receipt.etag or "", receipt.verified
        )

    async def renew(self, piece: Piece | None) -> bool:
        if piece is None:
            return await self._renew(1, self._find(1))
        return await self._renew(piece.number, self._used.get(piece.number))

    async def _book_for(self, number: int) -> MultipartTarget:
        """Return the latest target that holds a URL for part *number*, and one that works a little longer.

        The feed is asked when there is none; what it gives is taken, whatever its expiry.
        """
        book = self._find(number)
        if book is not None and self._expires_soon(book, number):
            await self._renew(number, book)
        elif book is None:
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

    def _expires_soon(self, book: MultipartTarget, number: int) -> bool:
        url = book.part_url(number)
        clocks = self._work.resources.clocks
        return url is not None and self._work.feed is not None and clocks.expires_soon(url, book.expires_at)

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
            self._books = [*self._books[-_OLD_BOOKS:], fresh]
            self._work.was_renewed(number)
            return True

    # --- the end ---------------------------------------------------------------------------------------------

    async def finish(self, parts: Sequence[SentPart], checksum: int, size_bytes: int) -> Finished:
        if not self._target.complete_url:
            return Finished()  # the platform joins the parts when it commits
        # A checksum is said again where the server named it: an upload that keeps none refuses it.
        with_checksums = all(part.number in self._summed for part in parts)
        body = BytesBody(
            complete_body(
                [
                    (part.number, part.etag, crc32c_base64(parse_crc32c(part.crc32c)) if with_checksums else None)
                    for part in parts
                ]
            )
        )
        asked = 0

        async def attempt(count: Count) -> Reply:
            nonlocal asked
            asked += 1
            used = self._books[-1]
            url = used.complete_url or self._target.complete_url
            request = Request("POST", url, {}, body, timeouts=self._work.resources.config.timeouts)
            reply = await self._work.send(request, "part")
            if not 200 <= reply.status < 300:
                raise self._work.refused(reply, request, used.expires_at)
            error = embedded_refusal(reply, request.method, url, request.headers)
            if error is not None:
                raise error
            return reply

        try:
            reply = await self._work.retry(attempt, renew=lambda: self.renew(None))
        except NotFound as error:
            if error.code not in _GONE:
                raise
            if asked == 1 or not await self._is_made(parts):
                raise UploadLost(error) from None
            return Finished()  # an earlier attempt made it, and its reply was lost
        etag = xml_text(reply.body, "ETag") or reply.headers.get("etag")
        return Finished(etag, self._is_same(reply, parts, checksum), reply.body)

    async def _is_made(self, parts: Sequence[SentPart]) -> bool:
        """Whether the object is made of these very parts: its ETag is then the MD5 of their MD5s, with their count."""
        url = self._books[-1].object_url or self._target.object_url
        digests = [part.etag.strip('"') for part in parts]
        if not url or not all(_MD5.fullmatch(digest) for digest in digests):
            return False
        whole = hashlib.md5(b"".join(map(bytes.fromhex, digests)), usedforsecurity=False).hexdigest()

        async def attempt(count: Count) -> str:
            timeouts = self._work.resources.config.timeouts
            request = Request("GET", url, {"Range": "bytes=0-0"}, on_head=_stop_at_head, timeouts=timeouts)
            try:
                reply = await self._work.send(request, "part")
            except _HeadSeen as seen:  # nobody wants the body, which may be all of it
                return seen.etag
            if reply.status >= 500:
                raise self._work.refused(reply, request, None)
            return ""

        return await self._work.retry(attempt) == f'"{whole}-{len(parts)}"'

    def _is_same(self, reply: Reply, parts: Sequence[SentPart], checksum: int) -> bool:
        """Compare with the checksum of the whole that the server states; False when it states none.

        Either that of all bytes, or the checksum of the checksums of the parts, with their number behind it.
        """
        text = xml_text(reply.body, "ChecksumCRC32C") or reply.headers.get("x-amz-checksum-crc32c", "")
        kind = xml_text(reply.body, "ChecksumType") or reply.headers.get("x-amz-checksum-type", "")
        value, _, count = text.partition("-")
        if count or kind.upper() == "COMPOSITE":
            if count and count != str(len(parts)):
                return False
            checksum = crc32c(b"".join(parse_crc32c(part.crc32c).to_bytes(4, "big") for part in parts))
        theirs = stated({"x-amz-checksum-crc32c": value}).get("crc32c")
        if theirs is None:
            return False
        if theirs != checksum.to_bytes(4, "big"):
            ours = f"crc32c:{crc32c_hex(checksum)}"
            raise ChecksumMismatch(ours, f"crc32c:{theirs.hex()}", source=self._upload.name)
        return True

    async def abort(self) -> Reply | None:
        url = self._books[-1].abort_url or self._target.abort_url
        if not url:
            return None
        request = Request("DELETE", url, timeouts=self._work.resources.config.timeouts)
        return await send_following(self._work.resources.transport, request)


class _HeadSeen(Exception):
    """The head of the object came: all that is wanted of it."""

    def __init__(self, etag: str) -> None:
        super().__init__(etag)
        self.etag = etag


def _stop_at_head(head: ReplyHead) -> None:
    if head.status in {200, 206}:
        raise _HeadSeen(head.headers.get("etag", ""))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16
