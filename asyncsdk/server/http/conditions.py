"""Ranges and preconditions of a GET: pure functions over header values.

Source: RFC 9110 sections 13 (conditional requests) and 14 (range requests).
"""

from __future__ import annotations

import re

from asyncsdk.errors import Conflict
from asyncsdk.server.http.replies import RangeNotSatisfiable

__all__ = ["check_preconditions", "parse_range"]

_RANGE = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.IGNORECASE)
_MAX_DIGITS = 18


def parse_range(text: str, size_bytes: int) -> tuple[int, int] | None:
    """Return ``[start, stop)`` of a single range; None when the header is to be ignored (several ranges, no sense).

    Raises:
        RangeNotSatisfiable: The range lies outside the object.
    """
    match = _RANGE.fullmatch(text.strip())
    if match is None or match[1] == match[2] == "" or max(len(match[1]), len(match[2])) > _MAX_DIGITS:
        return None
    if not match[1]:
        length = int(match[2])
        if length == 0 or size_bytes == 0:
            raise RangeNotSatisfiable(size_bytes)
        return max(0, size_bytes - length), size_bytes
    start = int(match[1])
    stop = size_bytes if not match[2] else int(match[2]) + 1
    if stop <= start and match[2]:
        return None
    if start >= size_bytes:
        raise RangeNotSatisfiable(size_bytes)
    return start, min(stop, size_bytes)


def check_preconditions(etag: str, *, if_match: str | None, if_none_match: str | None) -> bool:
    """Return whether the object is to be sent; False when the client has it already (304).

    Args:
        etag: The object's, strong, with its quotes.
        if_match: Value of ``If-Match``.
        if_none_match: Value of ``If-None-Match``.

    Raises:
        Conflict: ``If-Match`` names another object (412).
    """
    if if_match is not None and not _names(if_match, etag, weak=False):
        raise Conflict("the object is not the one asked for", status=412, code="precondition_failed")
    return if_none_match is None or not _names(if_none_match, etag, weak=True)


def _names(condition: str, etag: str, *, weak: bool) -> bool:
    if condition.strip() == "*":
        return True
    tags = [tag.strip() for tag in condition.split(",")]
    if weak:
        tags = [tag.removeprefix("W/") for tag in tags]
    return etag in tags
