"""Conditional uploads whose first reply was lost: the second request finds something there, and it may be ours.

``If-None-Match: *`` makes a server refuse an object that exists. Sent again because no reply came, the request is
refused because of what it stored itself. Then whoever judges uploads decides, or the digest that the server states of
what is there; where nobody can be asked, that is said, and nothing is claimed.

Source: RFC 9110 section 13.1.2 (If-None-Match); Google Cloud Storage, "Request preconditions".
"""

from __future__ import annotations

from asyncsdk.engine.bodies import Receipt
from asyncsdk.engine.digests import confirm, digests_of, stated
from asyncsdk.engine.feed import is_judge
from asyncsdk.engine.parts import Part
from asyncsdk.engine.transfers import describe_target
from asyncsdk.engine.work import Count, Work
from asyncsdk.errors import (
    AsyncSDKError,
    ChecksumMismatch,
    CompletionUnknown,
    Conflict,
    RateLimited,
    RequestError,
    ResponseError,
)
from asyncsdk.targets import BlobTarget, FormTarget, PutTarget, Target
from asyncsdk.transport.base import Headers, Reply, ReplyHead, Request, is_conditional

__all__ = ["may_have_arrived", "receipt_of_conflict"]


def may_have_arrived(error: Exception | None, size_bytes: int | None) -> bool:
    """Whether the object may be there though the attempt that sent it failed with *error*.

    Args:
        size_bytes: How many bytes went out; None: not known.
    """
    if isinstance(error, RequestError):
        return size_bytes != 0
    if isinstance(error, ResponseError):
        return error.status >= 500 and not isinstance(error, RateLimited)
    return error is not None  # it said yes, and something was wrong with that


async def receipt_of_conflict(work: Work, part: Part, target: Target, error: Conflict) -> Receipt:
    """Return the receipt of a part that was refused with *error* after an attempt which may have stored it.

    Raises:
        Conflict: Another object is there, or *target* makes no conditions: *error*.
        CompletionUnknown: Nobody can say.
    """
    if isinstance(target, FormTarget) or not is_conditional(getattr(target, "headers", {})):
        raise error
    is_verified = False
    if not is_judge(work.feed):
        is_verified = await _is_same(work, part, target, error)
        if not is_verified:
            raise CompletionUnknown(
                f"{work.transfer.name}: it may have arrived by a request whose reply was lost; now the server says "
                f"that something is there, and not what; look at it before it is sent again ({error})",
                source=work.transfer.name,
                destination=describe_target(target),
            ) from error
    Count(work)(part.size_bytes)
    reply = Reply(error.status or 0, Headers.of({}))
    return Receipt(part.size_bytes, await part.crc32c(work), is_verified, reply)


async def _is_same(work: Work, part: Part, target: Target, error: Conflict) -> bool:
    """Whether what is there has the digest of *part*; False when none is stated. Raises *error* if it has another."""
    assert isinstance(target, (PutTarget, BlobTarget))
    try:
        headers = await _headers_of(work, target)
    except AsyncSDKError:  # it cannot be looked at, for whatever reason: that is no answer
        return False
    size = headers.get("content-length", "")
    if size.isascii() and size.isdigit() and size != str(part.size_bytes) and "content-encoding" not in headers:
        raise error
    names = dict.fromkeys([*stated(headers), *(["md5"] if "etag" in headers else [])])
    if not names:
        return False
    try:
        return confirm(await digests_of(work, part, tuple(names)), headers, source=work.transfer.name)
    except ChecksumMismatch:
        raise error from None


async def _headers_of(work: Work, target: PutTarget | BlobTarget) -> Headers:
    """Return what the server says of the object at the URL of *target*; nothing when it does not let us look."""
    headers = {"x-ms-version": target.version} if isinstance(target, BlobTarget) else {}

    async def attempt(count: Count) -> Headers:
        timeouts = work.resources.config.timeouts
        request = Request("GET", target.url, headers, on_head=_stop_at_head, timeouts=timeouts)
        try:
            reply = await work.send(request, "small")
        except _HeadSeen as seen:  # nobody wants the body
            return seen.headers
        if reply.status >= 500:
            raise work.refused(reply, request, None)
        return Headers.of({})

    return await work.retry(attempt, lane="small")


class _HeadSeen(Exception):
    """The head of the object came: all that is wanted of it."""

    def __init__(self, headers: Headers) -> None:
        super().__init__()
        self.headers = headers


def _stop_at_head(head: ReplyHead) -> None:
    if head.status == 200:
        raise _HeadSeen(head.headers)
