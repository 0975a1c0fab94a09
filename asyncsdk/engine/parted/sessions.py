"""Resumable sessions of Google Cloud Storage: parts in order; after every failure the server is asked how far it got.

The server answers ``308`` with ``Range: bytes=0-N`` while bytes are missing (without ``Range``: it has none), and 200
or 201 with the object's description when it has all. It may keep less of a part than was sent: then the rest of it
follows.

Source: Google Cloud Storage, "Resumable uploads", "Perform resumable uploads", "Hashes and ETags".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import orjson

from asyncsdk.checksums import Crc32c, combine_crc32c, crc32c_hex
from asyncsdk.engine.conditional import may_have_arrived
from asyncsdk.engine.digests import crc32c_of_body, is_confirmed, reply_crc32c
from asyncsdk.engine.parted.contract import Finished, Limits, Piece, Standing, UploadLost, unknown_completion
from asyncsdk.engine.parted.state import SentPart
from asyncsdk.engine.redirects import send_following
from asyncsdk.engine.transfers import Upload, parse_crc32c
from asyncsdk.engine.work import Count, Work
from asyncsdk.errors import (
    AsyncSDKError,
    BadRequest,
    ChecksumMismatch,
    Conflict,
    IncompleteTransfer,
    MalformedResponse,
    NotFound,
    RequestError,
    TransferError,
    redact_url,
)
from asyncsdk.targets import ResumableTarget
from asyncsdk.transport.base import Body, BytesBody, FileBody, Headers, OnBytes, Reply, Request

__all__ = ["SessionUpload"]

STREAM_PART_BYTES = 8 * 1024 * 1024

_INCOMPLETE = 308
_FINAL = frozenset({_INCOMPLETE})
_RANGE = re.compile(r"(?:bytes=)?0-([0-9]{1,18})")


class SessionUpload:
    """A `ResumableTarget`; see `PartedUpload`.

    Args:
        is_stream: Whether parts are held in memory: then they are small, whatever the target says.
    """

    def __init__(self, work: Work, *, is_stream: bool = False) -> None:
        target = work.end
        assert isinstance(target, ResumableTarget)
        self._work = work
        self._target = target
        self._offset = 0  # the server has everything before it
        self._is_sure = True  # nothing was sent since it said so
        self._is_ending = False  # what makes the object was sent, and its reply may have been lost
        self._done: Reply | None = None
        self.upload_id = target.upload_id
        part_size = min(target.part_size, STREAM_PART_BYTES) if is_stream else target.part_size
        self.limits = Limits(part_size, in_order=True)

    async def what_stands(self) -> Mapping[int, Standing]:
        """Ask how far it got; `send` leaves out what is there."""

        async def attempt(count: Count) -> None:
            await self._ask(None)

        await self._work.retry(attempt, renew=lambda: self.renew(None))
        return {}

    # --- parts -----------------------------------------------------------------------------------------------

    async def send(self, piece: Piece, count: Count) -> SentPart:
        if not self._is_sure:
            await self._ask(piece)
        if self._offset < piece.start:
            raise UploadLost(self._wrong_offset(f"it has {self._offset} bytes, it said that it had {piece.start}"))
        whole = piece.part.body()
        assert isinstance(whole, (BytesBody, FileBody))
        checksum, start = 0, min(self._offset, piece.stop)
        if start > piece.start:
            checksum = await self._checksum_of(piece, whole, start - piece.start)
            count(start - piece.start)
        while start < piece.stop or (self._done is None and piece.is_last):
            body, before, is_answered = _cut(whole, start - piece.start), count.size_bytes, True
            try:
                await self._send(body, start, piece, count)
            except (RequestError, IncompleteTransfer) as error:
                # What arrived of it stays there. Going on costs no attempt: each time there is less to send.
                if not error.retryable or not await self._got_further(piece, start):
                    raise
                is_answered = False
            kept = min(self._offset, piece.stop) - start
            if not kept and start < piece.stop:
                raise IncompleteTransfer(body.size_bytes, 0, source=self._work.transfer.name, part=piece.number)
            if kept == body.size_bytes and is_answered:
                more = await self._sum(body)
            else:
                more = await crc32c_of_body(self._work, _cut(whole, start - piece.start, kept))
            count(before + kept - count.size_bytes)  # what was sent and not kept is sent again
            checksum, start = combine_crc32c(checksum, more, kept), start + kept
        return SentPart(piece.number, piece.part.size_bytes, crc32c_hex(checksum))

    async def _got_further(self, piece: Piece, start: int) -> bool:
        """Whether the server has more than the first *start* bytes of the object by now."""
        if not self._is_sure:
            await self._ask(piece)
        return self._offset > start

    async def _send(self, body: BytesBody | FileBody, start: int, piece: Piece, count: Count) -> None:
        """Send *body*, which begins at byte *start* of the object, and take note of what the server has then."""
        before = count.size_bytes
        stop = start + body.size_bytes
        total = str(stop) if piece.is_last else "*"
        extent = f"{start}-{stop - 1}" if body.size_bytes else "*"
        self._is_sure = False

        def counted(size_bytes: int) -> None:
            if size_bytes < 0:  # the transport sends it once more
                self._is_ending = self._is_ending or piece.is_last
            count(size_bytes)

        try:
            reply = await self._request(body, f"bytes {extent}/{total}", counted)
        except (BadRequest, Conflict) as error:
            # The transport sends a request once more whose connection died before the reply; the server may have taken
            # the first one, and refuse the second.
            await self._ask(piece)
            if self._offset == start:
                raise error from None
            raise IncompleteTransfer(stop, self._offset, source=self._work.transfer.name, part=piece.number) from error
        except AsyncSDKError as error:
            self._is_ending = self._is_ending or (piece.is_last and may_have_arrived(error, None))
            raise
        sent = start + count.size_bytes - before
        if reply.status != _INCOMPLETE:
            if not piece.is_last or sent != stop:
                raise self._wrong_offset("it took the object for whole before it was")
            self._offset = stop
        else:
            offset = self._told(reply)
            if not start <= offset <= sent:
                raise UploadLost(self._wrong_offset(f"it has {offset} bytes after it was sent {start} to {sent}"))
            if offset == stop and piece.is_last:
                raise IncompleteTransfer(stop, offset, source=self._work.transfer.name, part=piece.number)
            self._offset = offset
        self._is_sure = True

    async def _ask(self, piece: Piece | None) -> None:
        """Ask how much the server has, or whether it is done: its answer is the truth."""
        reply = await self._request(BytesBody(b""), "bytes */*")
        if reply.status != _INCOMPLETE:
            if piece is not None and not piece.is_last:
                raise self._wrong_offset("it took the object for whole before it was")
            self._offset = 1 << 62 if piece is None else piece.stop
        else:
            offset = self._told(reply)
            if piece is not None and offset > piece.stop:
                raise UploadLost(self._wrong_offset(f"it has {offset} bytes, {piece.stop} were sent"))
            self._offset = offset
        self._is_sure = True

    async def _request(self, body: BytesBody | FileBody, content_range: str, count: OnBytes | None = None) -> Reply:
        target = self._work.end
        assert isinstance(target, ResumableTarget)
        timeouts = self._work.resources.config.timeouts
        request = Request("PUT", target.url, {}, body, on_sent=count, timeouts=timeouts)

        async def freshen(request: Request) -> None:
            nonlocal target
            target = await self._work.current()
            assert isinstance(target, ResumableTarget)
            if target.upload_id != self.upload_id:  # renewed ahead of its end: another session, which has nothing yet
                raise UploadLost(TransferError(f"{self._work.transfer.name}: its session is about to end"))
            request.url, request.headers = target.url, {**target.headers, "Content-Range": content_range}

        reply = await self._work.send(request, "part", final=_FINAL, freshen=freshen)
        if reply.status in {200, 201}:
            self._done = reply
        elif reply.status != _INCOMPLETE:
            error = self._work.refused(reply, request, target.expires_at)
            if isinstance(error, NotFound):
                # Google answers for a session that has made its object; not everything that speaks its protocol does.
                assert isinstance(self._work.transfer, Upload)
                raise UploadLost(unknown_completion(self._work.transfer, error) if self._is_ending else error)
            raise error
        return reply

    def _told(self, reply: Reply) -> int:
        """Return how many bytes a 308 says that it has."""
        text = reply.headers.get("range")
        if text is None:
            return 0
        match = _RANGE.fullmatch(text.strip())
        if match is None:
            raise self._wrong_offset("what it says of the bytes that it has is no range")
        stop = int(match[1]) + 1
        # Google keeps multiples of 256 KiB. A server that keeps nothing and says so in these words (an emulator does)
        # refuses what begins after it; one that has the byte passes over it.
        return 0 if stop == 1 else stop

    def _wrong_offset(self, what: str) -> MalformedResponse:
        error = MalformedResponse(f"PUT {redact_url(self._target.url)}: the session is of no use any more: {what}")
        error.retryable = False
        return error

    async def _checksum_of(self, piece: Piece, whole: BytesBody | FileBody, size_bytes: int) -> int:
        """Return the checksum of the start of a part that the server has."""
        remembered = piece.remembered
        is_whole = size_bytes == whole.size_bytes and remembered is not None and remembered.size_bytes == size_bytes
        if remembered is not None and is_whole and isinstance(whole, FileBody):
            return parse_crc32c(remembered.crc32c)
        return await crc32c_of_body(self._work, _cut(whole, 0, size_bytes))

    async def _sum(self, body: BytesBody | FileBody) -> int:
        if isinstance(body, FileBody):
            assert body.checksum is not None
            return body.checksum.value
        return await self._work.crc32c(body.data)

    # --- the end ---------------------------------------------------------------------------------------------

    async def renew(self, piece: Piece | None) -> bool:
        """Get a fresh URL; it may be that of another session, to which everything must be sent."""
        used = self._work.end
        if not await self._work.renew(used):
            return False
        end = self._work.end
        if getattr(end, "upload_id", None) != self.upload_id:
            raise UploadLost(TransferError(f"{self._work.transfer.name}: its session has expired"))
        self._is_sure = False
        return True

    async def finish(self, parts: Sequence[SentPart], checksum: int, size_bytes: int) -> Finished:
        reply = self._done
        assert reply is not None
        described = _description(reply)
        size = described.get("size", str(size_bytes))
        if size != str(size_bytes):
            raise IncompleteTransfer(size_bytes, int(size) if size.isdecimal() else 0, source=self._work.transfer.name)
        is_verified = is_confirmed(self._work, reply, checksum)
        theirs = reply_crc32c(Headers.of({"x-goog-hash": f"crc32c={described.get('crc32c', '')}"}))
        if theirs is not None:
            if theirs != checksum:
                ours = f"crc32c:{crc32c_hex(checksum)}"
                raise ChecksumMismatch(ours, f"crc32c:{crc32c_hex(theirs)}", source=self._work.transfer.name)
            is_verified = True
        return Finished(reply.headers.get("etag") or described.get("etag"), is_verified, reply.body)

    async def is_made(self, parts: Sequence[SentPart]) -> bool | None:
        return False  # finishing again is answered like the first time, so what is gone was not finished

    async def abort(self) -> Reply | None:
        if self._done is not None:
            return None  # there is no session any more, but an object
        target = self._work.end
        assert isinstance(target, ResumableTarget)
        timeouts = self._work.resources.config.timeouts
        request = Request("DELETE", target.url, target.headers, BytesBody(b""), timeouts=timeouts)
        return await send_following(self._work.resources.transport, request)


def _cut(body: Body, start: int, size_bytes: int | None = None) -> BytesBody | FileBody:
    """Return *size_bytes* of *body* from *start*, by default all the rest, with a checksum of its own."""
    stop = body.size_bytes if size_bytes is None else start + size_bytes
    if isinstance(body, FileBody):
        return FileBody(body.fd, body.start + start, body.start + stop, name=body.name, checksum=Crc32c())
    assert isinstance(body, BytesBody)
    return BytesBody(memoryview(body.data)[start:stop])


def _description(reply: Reply) -> dict[str, str]:
    """Return what the JSON of the reply says of the object, where it is text; nothing when there is none."""
    try:
        said = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return {}
    return {key: value for key, value in said.items() if isinstance(value, str)} if isinstance(said, dict) else {}
