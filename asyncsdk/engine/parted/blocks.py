"""Azure's block blobs behind a shared access signature: one request, or blocks in any order and then their list.

Blocks that are in no list are swept by the service after a week; nothing removes them earlier. A list that was accepted
though its reply was lost is told by the blob's own list of blocks.

Source: Azure Storage REST reference, Put Blob, Put Block, Put Block List, Get Block List.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from asyncsdk.checksums import crc32c_hex
from asyncsdk.engine.bodies import Carrying, send_part
from asyncsdk.engine.parted.contract import Finished, Limits, Piece, Standing
from asyncsdk.engine.parted.listing import Listing
from asyncsdk.engine.parted.state import SentPart
from asyncsdk.engine.replies import xml_text
from asyncsdk.engine.transfers import Upload
from asyncsdk.engine.work import Count, Work
from asyncsdk.errors import BadRequest, Conflict, PermissionDenied, ResponseError
from asyncsdk.targets import BlobTarget
from asyncsdk.transport.base import BytesBody, Reply, Request

__all__ = ["MAX_BLOCKS", "BlockUpload", "blob_request"]

MAX_BLOCKS = 50_000
"""The most blocks a blob may have."""

_CHECKSUM_HEADERS = {"md5": "Content-MD5", "crc64": "x-ms-content-crc64"}
_BLOCK = re.compile(rb"<Block>(.*?)</Block>", re.DOTALL)


def blob_request(target: BlobTarget) -> Carrying:
    """Return the request that carries a whole blob."""
    headers = {**_versioned(target), "x-ms-blob-type": "BlockBlob", **_asking(target), **target.headers}
    return Carrying("PUT", target.url, headers, target.expires_at)


class BlockUpload:
    """A `BlobTarget` whose blob is too large for one request; see `PartedUpload`."""

    def __init__(self, work: Work) -> None:
        target = work.end
        assert isinstance(target, BlobTarget)
        self._work = work
        self._target = target
        self._used = target
        self._sent_to: dict[int, BlobTarget] = {}  # by the number of a block that is under way
        self.upload_id = _own_id(work, target)
        # The names of all blocks of a blob are equally long.
        self._prefix = hashlib.sha256(self.upload_id.encode()).hexdigest()[:16]
        self._is_own = self.upload_id != target.upload_id
        self.limits = Limits(target.part_size, MAX_BLOCKS)

    def _name(self, number: int) -> str:
        return base64.b64encode(f"{self._prefix}{number:08d}".encode()).decode()

    async def what_stands(self) -> Mapping[int, Standing]:
        """Return the blocks of this upload; nothing when the signature does not let us ask.

        Where their names are this upload's alone, those that are in the blob's list count too: it was made, and who
        made it did not come to say so. A list of the same names makes the same blob.
        """
        try:
            if self._is_own:
                listed = await self._blocks("all", "CommittedBlocks", "UncommittedBlocks")
            else:
                listed = await self._blocks("uncommitted", "UncommittedBlocks")
        except PermissionDenied:
            return {}
        return {self._number(name): Standing(size, "", {}) for name, size in listed if self._number(name)}

    def _number(self, name: str) -> int:
        """Return the number in the name of a block; 0 when it belongs to another upload."""
        try:
            text = base64.b64decode(name, validate=True).decode("ascii")
        except ValueError:
            return 0
        digits = text.removeprefix(self._prefix)
        return int(digits) if len(digits) == 8 and digits.isdigit() and text != digits else 0

    # --- blocks ----------------------------------------------------------------------------------------------

    async def send(self, piece: Piece, count: Count) -> SentPart:
        async def fresh() -> Carrying:
            target = self._sent_to[piece.number] = await self._current()
            return self._carrying(target, piece.number)

        now = self._carrying(self._used, piece.number)
        receipt = await send_part(self._work, piece.part, now, count, "part", number=piece.number, fresh=fresh)
        self._sent_to.pop(piece.number, None)
        # A block that was accepted with its digest was compared with it: the service promises that, and not that it
        # says the digest again.
        is_verified = receipt.verified or bool(self._target.checksum)
        return SentPart(piece.number, receipt.size_bytes, crc32c_hex(receipt.checksum), "", is_verified)

    def _carrying(self, target: BlobTarget, number: int) -> Carrying:
        url = _with_query(target.url, f"comp=block&blockid={quote(self._name(number), safe='')}")
        return Carrying("PUT", url, {**_versioned(target), **_asking(target)}, target.expires_at)

    async def renew(self, piece: Piece | None) -> bool:
        # Others may have a fresh one since.
        return await self._work.renew(self._used if piece is None else self._sent_to.get(piece.number, self._used))

    async def _current(self) -> BlobTarget:
        target = await self._work.current()
        assert isinstance(target, BlobTarget)
        self._used = target
        return target

    # --- the end ---------------------------------------------------------------------------------------------

    async def finish(self, parts: Sequence[SentPart], checksum: int, size_bytes: int) -> Finished:
        names = [self._name(part.number) for part in parts]
        # "Latest" finds a block whether or not it is in a list already: asking twice gives the same blob.
        items = "".join(f"<Latest>{name}</Latest>" for name in names)
        body = BytesBody(f'<?xml version="1.0" encoding="utf-8"?><BlockList>{items}</BlockList>'.encode())
        asked = 0

        async def attempt(count: Count) -> Reply:
            nonlocal asked
            asked += 1
            target = await self._current()
            headers = {**_versioned(target), "Content-Type": "application/xml", **target.headers}
            url = _with_query(target.url, "comp=blocklist")
            request = Request("PUT", url, headers, body, timeouts=self._work.resources.config.timeouts)
            reply = await self._work.send(request, "part")
            if not 200 <= reply.status < 300:
                raise self._work.refused(reply, request, target.expires_at)
            return reply

        try:
            reply = await self._work.retry(attempt, renew=lambda: self.renew(None))
        except (Conflict, BadRequest) as error:
            if (asked == 1 and not self._is_own) or not await self._is_there(names):
                raise error from None
            return Finished()  # an earlier attempt made it, or an earlier process, and the reply was lost
        return Finished(reply.headers.get("etag"), body=reply.body)

    async def _is_there(self, names: list[str]) -> bool:
        """Whether the blob is made of these very blocks."""
        try:
            return [name for name, _ in await self._blocks("committed", "CommittedBlocks")] == names
        except ResponseError:
            return False  # what the list was refused with says more

    async def is_made(self, parts: Sequence[SentPart]) -> bool | None:
        return False  # finishing again is answered like the first time, so what is gone was not finished

    async def abort(self) -> Reply | None:
        return None

    async def _blocks(self, kind: str, *elements: str) -> list[tuple[str, int]]:
        """Return name and size of the blocks of one kind, in the order of the list; of all, the latest ones last."""
        listing = Listing()

        async def attempt(count: Count) -> bytes:
            target = await self._current()
            url = _with_query(target.url, f"comp=blocklist&blocklisttype={kind}")
            timeouts = self._work.resources.config.timeouts
            request = Request("GET", url, _versioned(target), on_head=listing.take, timeouts=timeouts)
            reply = await self._work.send(request, "part")
            if reply.status == 404:
                return b""  # neither a blob nor a block of one
            if reply.status != 200:
                raise self._work.refused(reply, request, target.expires_at)
            return listing.text

        text = await self._work.retry(attempt, renew=lambda: self.renew(None))
        inside = [re.search(rf"<{element}>(.*?)</{element}>".encode(), text, re.DOTALL) for element in elements]
        found = []
        for match in _BLOCK.finditer(b"".join(part[1] for part in inside if part is not None)):
            name, size = xml_text(match[1], "Name") or "", xml_text(match[1], "Size") or ""
            if name and size.isascii() and size.isdigit():
                found.append((name, int(size)))
        return found


def _own_id(work: Work, target: BlobTarget) -> str:
    """Return what names the blocks of this upload: of no other upload to the same blob, before it or at the same time.

    That of an earlier process which is gone on with, else one that is made now.
    """
    assert isinstance(work.transfer, Upload)
    resume = work.transfer.resume
    begun = "" if resume is None else resume.upload_id
    if begun == target.upload_id or begun.startswith(f"{target.upload_id}."):
        return begun
    return f"{target.upload_id}.{secrets.token_hex(8)}"


def _versioned(target: BlobTarget) -> dict[str, str]:
    return {"x-ms-version": target.version}


def _asking(target: BlobTarget) -> dict[str, str]:
    return {_CHECKSUM_HEADERS[target.checksum]: ""} if target.checksum else {}


def _with_query(url: str, query: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{query}"
