"""Bodies of requests, as they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from asyncsdk.errors import BadRequest, ServerError
from asyncsdk.server.http.replies import Receive, Scope, header

__all__ = ["ClientGone", "chunks_of", "content_length", "read_body"]

IDLE_SECONDS = 60.0
"""Longest wait for the next bytes of a body."""


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


async def chunks_of(receive: Receive, *, idle_seconds: float = IDLE_SECONDS) -> AsyncIterator[bytes]:
    """Yield a body as it comes; the parser has seen to it that it is as long as declared.

    Raises:
        ClientGone: The connection broke.
        ServerError: Nothing came for too long (408).
    """
    more = True
    while more:
        try:
            async with asyncio.timeout(idle_seconds):
                message = await receive()
        except TimeoutError:
            raise ServerError(
                f"nothing of the body came for {idle_seconds:g} s", status=408, code="request_timeout"
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        more = message.get("more_body", False)
        if data := message.get("body", b""):
            yield data


async def read_body(scope: Scope, receive: Receive, *, limit: int) -> bytes:
    """Return a whole body.

    Raises:
        BadRequest: It has more than *limit* bytes (413).
    """
    declared = content_length(scope)
    if declared is not None and declared > limit:
        raise _too_large(limit)
    parts = []
    size = 0
    async for data in chunks_of(receive):
        size += len(data)
        if size > limit:
            raise _too_large(limit)
        parts.append(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> BadRequest:
    return BadRequest(f"the body has more than {limit} bytes; send less at once", status=413, code="too_large")
