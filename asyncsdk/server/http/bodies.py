"""Bodies of requests, as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from asyncsdk.errors import BadRequest, ServerError
from asyncsdk.server.http.replies import Receive, Scope, header

__all__ = ["ClientGone", "chunks_of", "content_length", "read_body"]

IDLE_SECONDS = 60.0
"""Longest wait for the next bytes of a body."""

BYTES_PER_SECOND = 1024
"""A body must come this fast on average, after the first `IDLE_SECONDS`."""


class ClientGone(Exception):
    """The connection broke before the body was whole; there is nobody to answer."""


def content_length(scope: Scope) -> int | None:
    """Return what the request declares; None when it declares nothing (or sends chunks of unknown number)."""
    value = header(scope, b"content-length")
    if value is None or header(scope, b"transfer-encoding") is not None:
        return None
    if not value.isdigit():
        raise BadRequest("Content-Length must be a number")
    return int(value)


async def chunks_of(receive: Receive) -> AsyncIterator[bytes]:
    """Yield a body as it comes; the parser has seen to it that it is as long as declared.

    Raises:
        ClientGone: The connection broke.
        ServerError: Nothing came for too long, or less than `BYTES_PER_SECOND` (408).
    """
    now = asyncio.get_running_loop().time
    slowest = now() + IDLE_SECONDS
    more = True
    while more:
        try:
            async with asyncio.timeout_at(min(now() + IDLE_SECONDS, slowest)):
                message = await receive()
        except TimeoutError:
            raise ServerError("the body comes too slowly, or no more", status=408, code="request_timeout") from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        more = message.get("more_body", False)
        if data := message.get("body", b""):
            slowest += len(data) / BYTES_PER_SECOND
            yield data


async def read_body(scope: Scope, receive: Receive, *, limit: int) -> bytes:
    """Return a whole body.

    Raises:
        BadRequest: It has more than *limit* bytes (413).
    """
    declared = content_length(scope)
    if declared is not None and declared > limit:
        raise _too_large(limit)
    body: bytes | bytearray = b""
    async for data in chunks_of(receive):
        if len(body) + len(data) > limit:
            raise _too_large(limit)
        if not body:
            body = data
        elif isinstance(body, bytes):
            body = bytearray(body) + data
        else:  # not a list to be joined: pieces of a few bytes would take thirty times their size
            body += data
    return bytes(body)


def _too_large(limit: int) -> BadRequest:
    return BadRequest(f"the body has more than {limit} bytes; send less at once", status=413, code="too_large")
