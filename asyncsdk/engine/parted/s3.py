"""S3's multipart upload through signed URLs: parts in any order, then complete; abort removes them.

Source: Amazon S3 API reference, UploadPart, ListParts, CompleteMultipartUpload, AbortMultipartUpload; S3 User Guide,
"Checking object integrity" (composite and full-object checksums).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import anyio

from asyncsdk.checksums import crc32c, crc32c_base64, crc32c_hex
from asyncsdk.engine.bodies import Carrying, send_part
from asyncsdk.engine.digests import reply_crc32c, stated
from asyncsdk.engine.feed import is_judge, renewed
from asyncsdk.engine.parted.contract import Finished, Limits, Piece, Standing, UploadLost, unknown_completion
from asyncsdk.engine.parted.listing import Listing
from asyncsdk.engine.parted.state import SentPart
from asyncsdk.engine.redirects import send_following
from asyncsdk.engine.replies import complete_body, embedded_refusal, xml_text
from asyncsdk.engine.transfers import Upload, describe_target, parse_crc32c
from asyncsdk.engine.work import Count, Work
from asyncsdk.errors import AsyncSDKError, ChecksumMismatch, NotFound, ResponseError, TransferError
from asyncsdk.targets import MultipartTarget
from asyncsdk.transport.base import BytesBody, Reply, ReplyHead, Request

__all__ = ["MAX_PARTS", "MultipartUpload"]

MAX_PARTS = 10_000
"""The most parts an upload may have (S3 and everything that speaks its protocol)."""

_GONE = {"NoSuchUpload", "no_such_upload"}
_OLD_BOOKS = 8
_MOST_LOOKS = 4
_LOOK_SECONDS = 0.25
_MULTIPART_ETAG = re.compile(r'"[0-9a-f]{32}-[0-9]+"')
_MD5 = re.compile(r"[0-9a-f]{32}")

_LISTED_PARTS = 1000
"""The page of a listing that is asked for as the k-th, from 0, begins after part 1000 k."""

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
        self._believes = False  # what is remembered, as the server cannot be asked
        self.upload_id = target.upload_id
        self._begun: Counter[int] = Counter()  # how many requests sent each part
        # ETags may be others with every upload of the same bytes (SSE-KMS), and completing asks for the latest.
        may_repeat = bool(target.list_urls) or not target.complete_url
        self.limits = Limits(target.part_size, MAX_PARTS, may_repeat=may_repeat)

    # --- what is there ---------------------------------------------------------------------------------------

    async def what_stands(self) -> Mapping[int, Standing]:
        """Return the parts that ListParts names, page by page; what is on pages that are not to be had is left out.

        Where it cannot be asked, those that are remembered: completing names their ETags, and the server compares them.
        """
        if not self._target.list_urls:
            return self._believed_parts()
        found: dict[int, Standing] = {}
        page: int | None = 0
        while page is not None:
            text = await self._work.retry(partial(self._list, page), renew=lambda: self.renew(None))
            found |= self._listed(text)
            page = _page_after(text, page)
        return found

    def _believed_parts(self) -> dict[int, Standing]:
        resume = self._upload.resume
        if resume is None or not self._target.complete_url:
            return {}
        self._believes = True
        return {part.number: Standing(part.size_bytes, part.etag, {}) for part in resume.parts if part.etag}

    def _book_of_page(self, page: int) -> MultipartTarget | None:
        return next((book for book in reversed(self._books) if page < len(book.list_urls)), None)

    def _listed(self, text: bytes) -> dict[int, Standing]:
        found: dict[int, Standing] = {}
        for match in _PART.finditer(text):
            number, size = xml_text(match[1], "PartNumber") or "", xml_text(match[1], "Size") or ""
            if _is_number(number) and _is_number(size):
                headers = {header: xml_text(match[1], name) or "" for name, header in _DIGESTS.items()}
                digests = stated(headers)
                if "crc32c" in digests:
                    self._summed.add(int(number))
                found[int(number)] = Standing(int(size), xml_text(match[1], "ETag") or "", digests)
        return found

    async def _list(self, page: int, count: Count) -> bytes:
        book = self._book_of_page(page)
        if book is None and await self.renew(None):  # pages after the first come with a renewal
            book = self._book_of_page(page)
        if book is None:
            return b""
        listing = Listing()
        timeouts = self._work.resources.config.timeouts
        request = Request("GET", book.list_urls[page], on_head=listing.take, timeouts=timeouts)
        reply = await self._work.send(request, "part")
        if reply.status == 404:
            error = self._work.refused(reply, request, book.expires_at)
            # Ours knows of an upload when its first part is there.
            if isinstance(error, ResponseError) and error.server_code == "no_such_upload":
                return b""
            raise UploadLost(error) if isinstance(error, ResponseError) else error
        if reply.status != 200:
            raise self._work.refused(reply, request, book.expires_at)
        return listing.text

    # --- parts -----------------------------------------------------------------------------------------------

    async def send(self, piece: Piece, count: Count) -> SentPart:
        async def fresh() -> Carrying:
            book = self._used[piece.number] = await self._book_for(piece.number)
            self._begun[piece.number] += 1
            return self._carrying(book, piece.number)

        now = self._carrying(self._find(piece.number) or self._books[-1], piece.number)
        try:
            receipt = await send_part(self._work, piece.part, now, count, "part", number=piece.number, fresh=fresh)
        except NotFound as error:
            if error.server_code in _GONE:
                raise UploadLost(error) from None
            raise
        if reply_crc32c(receipt.reply.headers) is not None:
            self._summed.add(piece.number)
        return SentPart(
            piece.number, receipt.size_bytes, crc32c_hex(receipt.checksum), receipt.etag or "", receipt.verified
        )

    def _carrying(self, book: MultipartTarget, number: int) -> Carrying:
        """Return what carries part *number*; to some other URL of *book* when it holds none for it."""
        url = book.part_url(number) or next(iter(book.part_urls), self._target.abort_url)
        return Carrying("PUT", url, book.headers, book.expires_at)

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
            if fresh.upload_id != self.upload_id:  # its parts and those that are there would make no object
                raise UploadLost(TransferError(f"{self._upload.name}: the platform has begun another upload of it"))
            self._books = [*self._books[-_OLD_BOOKS:], fresh]
            self._work.was_renewed(number)
            return True

    # --- the end ---------------------------------------------------------------------------------------------

    async def finish(self, parts: Sequence[SentPart], checksum: int, size_bytes: int) -> Finished:
        if not self._target.complete_url:
            return Finished()  # the platform joins the parts when it commits
        if self._believes and not self._begun and await self._tells(parts):
            return Finished()  # all of them were there, and who sent them may have made it
        parts = await self._as_the_server_has_them(parts)
        asked = looks = 0

        async def attempt(count: Count) -> Reply:
            nonlocal asked
            asked += 1
            used = self._books[-1]
            url = used.complete_url or self._target.complete_url
            body = self._complete_body(parts)
            # S3 begins its answer at once and then sends a space now and then, until it has joined the parts.
            timeouts = replace(self._work.resources.config.timeouts, rate_bytes=0)
            request = Request("POST", url, {}, body, timeouts=timeouts)
            reply = await self._work.send(request, "part")
            if not 200 <= reply.status < 300:
                raise self._work.refused(reply, request, used.expires_at)
            error = embedded_refusal(reply, request.method, url, request.headers)
            if error is not None:
                raise error
            return reply

        while True:
            try:
                reply = await self._work.retry(attempt, renew=lambda: self.renew(None))
                break
            except NotFound as error:
                if error.server_code not in _GONE:
                    raise
                is_made = False if asked == 1 else await self.is_made(parts)
                if is_made is None:
                    raise UploadLost(unknown_completion(self._upload, error)) from error
                if not is_made:
                    raise UploadLost(error) from None
                return Finished()  # an earlier attempt made it, and its reply was lost
            except ResponseError as error:
                # What a request that was given up had sent may have become a part just now.
                looks += 1
                if error.server_code != "InvalidPart" or looks == _MOST_LOOKS or not self._is_doubtful:
                    self._believe_no_more(error)
                    raise
                await anyio.sleep(looks * _LOOK_SECONDS)
                parts = await self._as_the_server_has_them(parts)
        etag = xml_text(reply.body, "ETag") or reply.headers.get("etag")
        return Finished(etag, self._is_same(reply, parts, checksum), reply.body)

    def _believe_no_more(self, error: ResponseError) -> None:
        """Forget what is remembered if the server has other parts: whoever goes on sends them all."""
        resume = self._upload.resume
        if self._believes and error.server_code == "InvalidPart" and resume is not None and resume.on_begin is not None:
            resume.on_begin(self.upload_id, self.limits.part_size)

    def _complete_body(self, parts: Sequence[SentPart]) -> BytesBody:
        # A checksum is said again where the server named it: an upload that keeps none refuses it.
        with_checksums = all(part.number in self._summed for part in parts)
        named = [
            (part.number, part.etag, crc32c_base64(parse_crc32c(part.crc32c)) if with_checksums else None)
            for part in parts
        ]
        return BytesBody(complete_body(named))

    @property
    def _is_doubtful(self) -> bool:
        """Whether a part was sent more than once, and the server can be asked which of them it has."""
        return bool(self._target.list_urls) and any(count > 1 for count in self._begun.values())

    async def _as_the_server_has_them(self, parts: Sequence[SentPart]) -> Sequence[SentPart]:
        """Return *parts* with the ETags that the server has now of those that were sent more than once.

        A request that was dropped, because it was late or its reply never came, may still have been taken after the
        one that counts: with the same bytes, and where ETags are no digests with another one.
        """
        if not self._is_doubtful:
            return parts
        try:
            standing = await self.what_stands()
        except AsyncSDKError as error:
            if error.retryable:
                raise
            return parts  # it does not let us look: completing says whether that matters
        return [self._as_it_stands(part, standing.get(part.number)) for part in parts]

    def _as_it_stands(self, part: SentPart, standing: Standing | None) -> SentPart:
        if standing is None or self._begun[part.number] < 2 or not standing.etag:
            return part
        theirs = standing.digests.get("crc32c")
        is_same = standing.size_bytes == part.size_bytes and theirs in {None, bytes.fromhex(part.crc32c)}
        return replace(part, etag=standing.etag) if is_same else part  # completing with ours is refused then

    async def is_made(self, parts: Sequence[SentPart]) -> bool | None:
        """See `PartedUpload`: the object's ETag is then the MD5 of the MD5s of its parts, with their count.

        Nobody can say where there is no URL that may look, or where ETags are no MD5s (S3 with KMS keys) or others
        (``rclone serve s3`` gives the MD5 of the whole). There it counts as made if the feed compares it itself.
        """
        if not self._target.complete_url:
            return False
        told = await self._tells(parts)
        return True if told is None and is_judge(self._work.feed) else told

    async def _tells(self, parts: Sequence[SentPart]) -> bool | None:
        url = self._books[-1].object_url or self._target.object_url
        digests = [part.etag.strip('"') for part in parts]
        found = await self._etag_of(url) if url and all(_MD5.fullmatch(digest) for digest in digests) else None
        if found is None or (found and not _MULTIPART_ETAG.fullmatch(found)):
            return None
        whole = hashlib.md5(b"".join(map(bytes.fromhex, digests)), usedforsecurity=False).hexdigest()
        return found == f'"{whole}-{len(parts)}"'

    async def _etag_of(self, url: str) -> str | None:
        """Return the ETag of the object, nothing when there is none; None when it may not be looked at."""

        async def attempt(count: Count) -> str | None:
            timeouts = self._work.resources.config.timeouts
            request = Request("GET", url, {"Range": "bytes=0-0"}, on_head=_stop_at_head, timeouts=timeouts)
            try:
                reply = await self._work.send(request, "part")
            except _HeadSeen as seen:  # nobody wants the body, which may be all of it
                return seen.etag
            if reply.status >= 500:
                raise self._work.refused(reply, request, None)
            return "" if reply.status == 404 else None

        return await self._work.retry(attempt)

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


def _page_after(text: bytes, page: int) -> int | None:
    """Return which page of a listing follows, or None when *text* is the last one.

    Where parts are missing, a page reaches beyond the thousand that it begins with: the next is the one that holds what
    follows. One that ends before that (of a server that names fewer) is followed all the same.
    """
    if (xml_text(text, "IsTruncated") or "").lower() != "true":
        return None
    reached = xml_text(text, "NextPartNumberMarker") or ""
    return max(page + 1, int(reached) // _LISTED_PARTS if _is_number(reached) else 0)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16
