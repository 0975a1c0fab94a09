"""Requests that carry bytes of a source: how one goes out, and what is known when it has arrived."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
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
        success: Statuses that mean that they arrived, wherever one of 3xx leads; None: all of 2xx.
        takes: Digests to be taken of the bytes besides those that empty headers ask for.
        with_digests: Makes what is sent when these are known; None: it is this.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    expires_at: float | None = None
    before: bytes = b""
    after: bytes = b""
    success: tuple[int, ...] | None = None
    takes: tuple[str, ...] = ()
    with_digests: Callable[[Mapping[str, bytes]], Carrying] | None = None

    @property
    def wanted(self) -> tuple[str, ...]:
        """The digests that must be known before it goes out."""
        asked = asked_for(self.headers)
        return tuple(dict.fromkeys((*asked, *self.takes))) if self.takes else asked

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
    work: Work,
    part: Part,
    carrying: Carrying,
    count: Count,
    lane: LaneName,
    *,
    number: int | None = None,
    fresh: Callable[[], Awaitable[Carrying]] | None = None,
) -> Receipt:
    """Send *part* once, and compare every digest that is known of it with what the server states.

    Args:
        carrying: As it is now: says where to, and which digests are wanted.
        fresh: Says it again once there is a slot for the request, which may be long after: what goes out.

    Raises:
        ChecksumMismatch: One of them differs.
        IncompleteTransfer: The server said yes before it had everything.
        UrlExpired, ResponseError: It said no.
    """
    asked = carrying.wanted
    known = await digests_of(work, part, asked) if asked else {}
    inner = part.body()
    timeouts = work.resources.config.timeouts
    request = Request(carrying.method, carrying.url, {}, on_sent=count, timeouts=timeouts)

    async def freshen(request: Request) -> None:
        nonlocal carrying, asked, known
        if fresh is not None:
            carrying = await fresh()
        wanted = carrying.wanted
        if wanted != asked:
            asked, known = wanted, await digests_of(work, part, wanted) if wanted else {}
        request.method, request.url = carrying.method, carrying.url
        made = carrying if carrying.with_digests is None else carrying.with_digests(known)
        request.headers = filled_in(made.headers, known) if asked else made.headers
        request.body = _framed(inner, made)

    final = frozenset(status for status in carrying.success or () if 300 <= status < 400)
    reply = await work.send(request, lane, final=final, freshen=freshen, count=count)
    body = request.body
    assert body is not None
    if not carrying.has_arrived(reply.status):
        raise work.refused(reply, request, carrying.expires_at)
    if count.size_bytes != body.size_bytes:
        # What was written to the connection counts, not what was read.
        raise IncompleteTransfer(body.size_bytes, count.size_bytes, source=work.transfer.name, part=number)
    if body is not inner:
        count(inner.size_bytes - body.size_bytes)  # progress is told of the source's bytes
    checksum = await part.sent_crc32c(work, inner)
    return Receipt(part.size_bytes, checksum, is_confirmed(work, reply, checksum, number, known), reply)


def _framed(inner: Body, carrying: Carrying) -> Body:
    if not carrying.before and not carrying.after:
        return inner
    assert isinstance(inner, (BytesBody, FileBody))
    return FramedBody(carrying.before, inner, carrying.after)
