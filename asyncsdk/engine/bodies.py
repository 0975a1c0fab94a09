"""Requests that carry bytes of a source: how one goes out, and what is known when it has arrived."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from asyncsdk.engine.digests import asked_for, digests_of, filled_in, is_confirmed
from asyncsdk.engine.lanes import LaneName
from asyncsdk.engine.parts import Part
from asyncsdk.engine.work import Count, Work
from asyncsdk.errors import IncompleteTransfer
from asyncsdk.transport.base import Body, BytesBody, FileBody, FramedBody, Reply, Request

__all__ = ["Carrying", "Receipt", "send_part"]


@dataclass(frozen=True, slots=True)
class Carrying:
    """The request that carries some bytes.

    Attributes:
        method: In capitals.
        url: Where to.
        headers: With those of checksums left empty that are to be filled in. Nothing else is added: a header that was
            not signed makes some services refuse the request.
        expires_at: When the URL stops working, if known otherwise than from itself.
        before: What goes before the bytes.
        after: What goes after them.
        success: Statuses that mean that they arrived; None: all of 2xx.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    expires_at: float | None = None
    before: bytes = b""
    after: bytes = b""
    success: tuple[int, ...] | None = None

    def has_arrived(self, status: int) -> bool:
        """Whether *status* says that the bytes are there."""
        return 200 <= status < 300 if self.success is None else status in self.success


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one request that carried bytes.

    Attributes:
        size_bytes: Bytes sent, what goes before and after them aside.
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


async def send_part(
    work: Work, part: Part, carrying: Carrying, count: Count, lane: LaneName, *, number: int | None = None
) -> Receipt:
    """Send *part* once, and compare every digest that is known of it with what the server states.

    Raises:
        ChecksumMismatch: One of them differs.
        IncompleteTransfer: The server said yes before it had everything.
        UrlExpired, ResponseError: It said no.
    """
    headers = carrying.headers
    asked = asked_for(headers)
    known = await digests_of(work, part, asked) if asked else {}
    if asked:
        headers = filled_in(headers, known)
    inner = part.body()
    body: Body = inner
    if carrying.before or carrying.after:
        assert isinstance(inner, (BytesBody, FileBody))
        body = FramedBody(carrying.before, inner, carrying.after)
    request = Request(
        carrying.method, carrying.url, headers, body, on_sent=count, timeouts=work.resources.config.timeouts
    )
    reply = await work.send(request, lane)
    if not carrying.has_arrived(reply.status):
        raise work.refused(reply, request, carrying.expires_at)
    if count.size_bytes != body.size_bytes:
        # What was written to the connection counts, not what was read.
        raise IncompleteTransfer(body.size_bytes, count.size_bytes, source=work.transfer.name, part=number)
    if body is not inner:
        count(inner.size_bytes - body.size_bytes)  # progress is told of the source's bytes
    checksum = await part.sent_crc32c(work, inner)
    return Receipt(part.size_bytes, checksum, is_confirmed(work, reply, checksum, number, known), reply)
