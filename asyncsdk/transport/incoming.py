"""What httpx lets through and a transport may not: replies that two readers could understand differently.

h11 has parsed the head by then. It prefers a coding to a length, knows versions of HTTP that are not this one, and has
limits of its own; bytes that came behind a reply it would give to the next request.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterable
from typing import Any

from asyncsdk.transport.base import ReplyHead, Request

__all__ = [
    "MAX_HEADERS",
    "MAX_HEAD_BYTES",
    "ends_with_connection",
    "has_more_tls",
    "has_waiting_reply",
    "is_cut_off",
    "what_is_wrong",
]

MAX_HEAD_BYTES = 64 * 1024
"""Of a reply, blank line included."""

MAX_HEADERS = 256
"""Header lines of a reply."""

_MAX_LENGTH_DIGITS = 18
_PEEK_BYTES = MAX_HEAD_BYTES
_INFORMATIONAL = b"HTTP/1.1 1"


def what_is_wrong(version: bytes, reason: bytes, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return why the head of a reply cannot be relied on; None when it can.

    Args:
        version: As ``HTTP/1.1``.
        reason: Of the status line.
        headers: Names and values as h11 gives them: a repeated Content-Length is one already.
    """
    if version not in {b"HTTP/1.0", b"HTTP/1.1"}:
        return "what came back is no HTTP/1.1"
    size, count, length, coding = len("HTTP/1.1 200 \r\n\r\n") + len(reason), 0, b"", False
    for name, value in headers:
        count += 1
        size += len(name) + len(value) + len(": \r\n")
        if name.lower() == b"content-length":
            length = value
        elif name.lower() == b"transfer-encoding":
            coding = True
    if size > MAX_HEAD_BYTES:
        return f"the head of the reply is longer than {MAX_HEAD_BYTES} bytes"
    if count > MAX_HEADERS:
        return f"the reply has more than {MAX_HEADERS} headers"
    if coding and (length or version == b"HTTP/1.0"):
        return "the reply declares a Transfer-Encoding where it may not"
    if len(length) > _MAX_LENGTH_DIGITS:
        return "the reply's Content-Length is no size"
    return None


def has_waiting_reply(stream: Any) -> bool:
    """Whether a final reply, or the end of the connection, waits in the socket of a plain *stream*.

    Informational replies do not count: they stay where they are until the request is out. Not knowable under TLS,
    where session tickets make a socket readable too.
    """
    if stream is None or stream.get_extra_info("ssl_object") is not None or not stream.get_extra_info("is_readable"):
        return False
    # asyncio hands out a socket that cannot receive; a second one on the same connection can.
    with socket.socket(fileno=os.dup(stream.get_extra_info("socket").fileno())) as same:
        try:
            data = same.recv(_PEEK_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:
            return True
    return not data or _is_final(data)


def _is_final(data: bytes) -> bool:
    while data.startswith(_INFORMATIONAL):
        _, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            return len(data) >= _PEEK_BYTES
        data = rest
    return not _INFORMATIONAL.startswith(data)


def is_cut_off(stream: Any) -> bool:
    """Whether a TLS *stream* that has ended did so without saying so: its last bytes may be missing."""
    tls = None if stream is None else stream.get_extra_info("ssl_object")
    if tls is None:
        return False
    try:
        return bool(tls.read(1))
    except ssl.SSLError:
        return True


def has_more_tls(stream: Any) -> bool:
    """Whether a TLS *stream* holds bytes, or an end, that nobody has read."""
    tls = None if stream is None else stream.get_extra_info("ssl_object")
    if tls is None:
        return False
    try:
        tls.read(1)
    except ssl.SSLWantReadError:
        return False
    except ssl.SSLError:
        return True
    return True


def ends_with_connection(request: Request, head: ReplyHead) -> bool:
    """Whether only the end of the connection says where the body ends."""
    has_body = request.method != "HEAD" and head.status not in {204, 304}
    return has_body and not {"content-length", "transfer-encoding"} & head.headers.keys()
