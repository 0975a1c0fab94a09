"""The head of a reply, as bytes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from http import HTTPStatus

__all__ = ["CONTINUE", "DateLine", "render_head"]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_STATUS_LINES = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}


class DateLine:
    """The header ``date``, made anew once a second.

    Args:
        clock: Seconds since 1970 UTC.
    """

    __slots__ = ("_clock", "_line", "_second")

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._second = -1
        self._line = b""

    def __call__(self) -> bytes:
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._line = b"date: %b\r\n" % formatdate(second, usegmt=True).encode()
        return self._line


def render_head(status: int, headers: Iterable[tuple[bytes, bytes]], date: bytes, *, extra: bytes = b"") -> bytes:
    """Return the head of a reply up to its empty line.

    Args:
        status: HTTP status.
        headers: Names and values; must not hold line breaks (nothing of a request ends up in them unchecked).
        date: The line of the header ``date``.
        extra: Further lines, each whole.
    """
    line = _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
    lines = [name + b": " + value for name, value in headers]
    return line + date + b"\r\n".join(lines) + (b"\r\n" if lines else b"") + extra + b"\r\n"
