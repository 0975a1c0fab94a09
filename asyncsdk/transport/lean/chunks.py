"""Bodies in chunks, without I/O.

Source: RFC 9112 section 7.1. Extensions and trailers are read over, within limits.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from asyncsdk.transport.lean.heads import NotHttp

__all__ = ["ChunkReader"]

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[\t ]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")
_MAX_LINE_BYTES = 4096
_MAX_TRAILER_BYTES = 64 * 1024


class ChunkReader:
    """Takes a chunked body apart.

    Args:
        deliver: Given the data of chunks, in order, as it comes.
    """

    __slots__ = ("_deliver", "_left", "_line", "_state", "_trailer_bytes", "is_done")

    def __init__(self, deliver: Callable[[memoryview], None]) -> None:
        self._deliver = deliver
        self._state = self._size
        self._line = b""
        self._left = 0
        self._trailer_bytes = 0
        self.is_done = False

    def feed(self, view: memoryview) -> int:
        """Take bytes and return how many of them belong to the body.

        Raises:
            NotHttp: They are no chunked body.
        """
        used = 0
        while used < len(view) and not self.is_done:
            if self._left:
                count = min(self._left, len(view) - used)
                self._left -= count
                self._deliver(view[used : used + count])
                used += count
            else:
                used += self._read_line(view[used:])
        return used

    def _read_line(self, view: memoryview) -> int:
        piece = bytes(view[:_MAX_LINE_BYTES])
        end = piece.find(b"\n")
        count = len(piece) if end < 0 else end + 1
        self._line += piece[:count]
        if len(self._line) > _MAX_LINE_BYTES:
            raise NotHttp("a chunk of the reply's body has a line that is too long")
        if end >= 0:
            line, self._line = self._line, b""
            if not line.endswith(b"\r\n"):
                raise NotHttp("a chunk of the reply's body is not as HTTP writes it")
            self._state(line[:-2])
        return count

    def _size(self, line: bytes) -> None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise NotHttp("a chunk of the reply's body has no valid size")
        self._left = int(match[1], 16)
        self._state = self._after_data if self._left else self._trailer

    def _after_data(self, line: bytes) -> None:
        if line:
            raise NotHttp("a chunk of the reply's body is longer than it says")
        self._state = self._size

    def _trailer(self, line: bytes) -> None:
        if not line:
            self.is_done = True
            return
        self._trailer_bytes += len(line)
        if self._trailer_bytes > _MAX_TRAILER_BYTES or not _TRAILER.fullmatch(line):
            raise NotHttp("what follows the reply's body is no trailer")
