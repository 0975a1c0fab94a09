"""Where the body of a request ends: after a declared number of bytes, or after the last chunk.

Source: RFC 9112 sections 6.2 (Content-Length), 7.1 (chunked).
"""

from __future__ import annotations

import re
from typing import Protocol

from asyncsdk.server.http.front.heads import MalformedRequest, RequestHead

__all__ = ["Body", "ChunkedBody", "LengthBody", "body_of"]

_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[\t -~\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*")
_MAX_LINE_BYTES = 1024
_MAX_TRAILER_BYTES = 16 * 1024


class Body(Protocol):
    """Tells the bytes of one body from what follows them."""

    @property
    def left(self) -> int | None:
        """Bytes still to come; None when nobody knows, 0 when the body is whole."""

    def take(self, data: bytes) -> tuple[list[bytes], bytes]:
        """Return what of *data* is content, and what follows the body; `MalformedRequest` when it cannot be read."""


class LengthBody:
    """A body of *left* bytes."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left: int | None = left

    def take(self, data: bytes) -> tuple[list[bytes], bytes]:
        assert self.left is not None
        if len(data) <= self.left:
            self.left -= len(data)
            return [data], b""
        stop, self.left = self.left, 0
        return [data[:stop]], data[stop:]


class ChunkedBody:
    """A body in chunks; extensions and trailers are read over. Memory: one line."""

    __slots__ = ("_in_trailer", "_line", "_missing", "_needs_end", "_trailer_bytes", "left")

    def __init__(self) -> None:
        self.left: int | None = None
        self._line = b""
        self._missing = 0  # bytes of the present chunk
        self._needs_end = False  # the line break after a chunk is still to come
        self._in_trailer = False
        self._trailer_bytes = 0

    def take(self, data: bytes) -> tuple[list[bytes], bytes]:
        pieces: list[bytes] = []
        at = 0
        while at < len(data) and self.left is None:
            if self._missing:
                piece = data[at : at + self._missing]
                at += len(piece)
                self._missing -= len(piece)
                pieces.append(piece)
                continue
            end = data.find(b"\n", at, at + _MAX_LINE_BYTES)
            stop = min(len(data), at + _MAX_LINE_BYTES) if end < 0 else end + 1
            self._line += data[at:stop]
            at = stop
            if len(self._line) > _MAX_LINE_BYTES:
                raise MalformedRequest("a line between chunks is too long")
            if end >= 0:
                line, self._line = self._line, b""
                if not line.endswith(b"\r\n"):
                    raise MalformedRequest("a line between chunks must end with CR LF")
                self._on_line(line[:-2])
        return pieces, data[at:]

    def _on_line(self, line: bytes) -> None:
        if self._needs_end:
            if line:
                raise MalformedRequest("a chunk is longer than it says")
            self._needs_end = False
        elif self._in_trailer:
            self._trailer_bytes += len(line)
            if not line:
                self.left = 0
            elif self._trailer_bytes > _MAX_TRAILER_BYTES or not _TRAILER.fullmatch(line):
                raise MalformedRequest("the trailer is malformed or too large")
        else:
            match = _CHUNK.fullmatch(line)
            if match is None:
                raise MalformedRequest("the size of a chunk cannot be read")
            self._missing = int(match[1], 16)
            self._needs_end = self._missing > 0
            self._in_trailer = self._missing == 0


def body_of(head: RequestHead) -> Body:
    """Return what reads the body that a head announces."""
    return ChunkedBody() if head.is_chunked else LengthBody(head.content_length or 0)
