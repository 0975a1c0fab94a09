"""Heads of HTTP/1.1 messages, without I/O: writing that of a request, reading that of a reply.

A head is checked by one regular expression over all of it: 0.8 us, and nothing gets through that the grammar does not
name (bare CR or LF, NUL, folded lines, a space before a colon). What frames the body is found by a second one; the
other header lines are taken apart only when somebody asks for them.

Source: RFC 9112 sections 2 to 6, RFC 9110 section 5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from asyncsdk.errors import ConfigError
from asyncsdk.transport.base import Headers, ReplyHead

__all__ = ["MAX_HEADERS", "MAX_HEAD_BYTES", "Head", "NotHttp", "encode_head", "parse_head"]

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 256

_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TEXT = rb"[\t\x20-\x7e\x80-\xff]*"
_LINES = rb"(?:" + _NAME + rb":" + _TEXT + rb"\r\n)*"

_REPLY = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: " + _TEXT + rb")?\r\n(" + _LINES + rb")\r\n")
_FRAMING = re.compile(rb"(?:\A|\n)(?i:(content-length|transfer-encoding|connection)):[\t ]*([^\r]*?)[\t ]*\r")

_REQUEST_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REQUEST_VALUE = re.compile(r"[\t\x20-\x7e]*")
_TARGET = re.compile(rb"[\x21-\x7e]+")

_WITH_LENGTH = frozenset({"PUT", "POST", "PATCH"})
"""Methods for which a request without a body says so."""


class NotHttp(Exception):
    """What came is no reply that can be relied on; says why, knows no URL."""


@dataclass(slots=True)
class Head(ReplyHead):
    """The head of one reply, and what it says of the body.

    Attributes:
        length: Declared size of the body; None: chunked or until the connection closes, see ``is_chunked``.
        is_chunked: Whether the body comes in chunks.
        keep_alive: Whether the connection may serve another request afterwards.
    """

    length: int | None
    is_chunked: bool
    keep_alive: bool


class _LazyHeaders(Headers):
    """Headers that are taken apart when first looked at: most replies are only asked for their status."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def __getattr__(self, name: str) -> dict[str, str]:
        # Only reached while the slot is empty.
        if name != "_values":
            raise AttributeError(name)
        values: dict[str, str] = {}
        for line in self._raw.split(b"\r\n"):
            key, _, value = line.partition(b":")
            if key:
                lower = key.lower().decode("ascii")
                text = value.strip(b" \t").decode("latin-1")
                values[lower] = f"{values[lower]}, {text}" if lower in values else text
        self._values = values
        return values


def parse_head(raw: bytes, method: str) -> Head:
    """Read the head of a reply, blank line included.

    What frames the body follows RFC 9112 section 6.3, in its strict reading: nothing is guessed.

    Args:
        raw: All of it.
        method: Of the request it answers.

    Raises:
        NotHttp: It is none, or its framing is ambiguous.
    """
    match = _REPLY.fullmatch(raw)
    if match is None:
        raise NotHttp("what came back is no HTTP/1.1")
    is_new, status, lines = match[1] == b"1", int(match[2]), match[3]
    if lines.count(b"\n") > MAX_HEADERS:
        raise NotHttp(f"the reply has more than {MAX_HEADERS} headers")
    length: int | None = None
    is_chunked = is_kept = is_closed = False
    for name, value in _FRAMING.findall(lines):
        kind = len(name)  # 14, 17, 10: cheaper than lower case
        if kind == 14:
            length = _declared(value, length)
        elif kind == 17:
            if is_chunked or value.lower() != b"chunked" or not is_new:
                raise NotHttp("the reply's Transfer-Encoding is not `chunked` alone")
            is_chunked = True
        else:
            tokens = [token.strip().lower() for token in value.split(b",")]
            is_closed = is_closed or b"close" in tokens
            is_kept = is_kept or b"keep-alive" in tokens
    if is_chunked and length is not None:
        raise NotHttp("the reply declares both a Content-Length and a Transfer-Encoding")
    keep_alive = (is_new or is_kept) and not is_closed
    if method == "HEAD" or status < 200 or status in {204, 304}:
        length, is_chunked = 0, False
    elif length is None and not is_chunked:
        keep_alive = False
    return Head(status, _LazyHeaders(lines), length, is_chunked, keep_alive)


def _declared(value: bytes, before: int | None) -> int:
    """Return a Content-Length; the same one said again is tolerated, as RFC 9110 section 8.6 allows."""
    for text in value.split(b","):
        text = text.strip(b" \t")
        if not text.isdigit() or len(text) > 18 or (before is not None and int(text) != before):
            raise NotHttp("the reply's Content-Length is no size, or there are several")
        before = int(text)
    assert before is not None
    return before


def encode_head(
    method: str, target: bytes, authority: str, headers: Mapping[str, str], size_bytes: int | None, more: bytes = b""
) -> bytes:
    """Return the head of a request, blank line included.

    Args:
        method: In capitals.
        target: As it goes on the request line.
        authority: For ``Host``, unless *headers* has one.
        headers: A ``Content-Length`` among them is left out.
        size_bytes: Of the body; None: there is none.
        more: Whole header lines to add.

    Raises:
        ConfigError: Something in it cannot be written into a head; says no value.
    """
    if not _TARGET.fullmatch(target) or not _REQUEST_NAME.fullmatch(method):
        raise ConfigError("its URL or method holds what HTTP forbids")
    host, encoding, lines = authority, "identity", ""
    for name, value in headers.items():
        if not _REQUEST_NAME.fullmatch(name) or not _REQUEST_VALUE.fullmatch(value):
            raise ConfigError("its headers hold what HTTP forbids")
        lower = name.lower()
        if lower == "host":
            host = value
        elif lower == "accept-encoding":
            encoding = value
        elif lower != "content-length":
            lines += f"{name}: {value}\r\n"
    if size_bytes is not None:
        lines += f"Content-Length: {size_bytes}\r\n"
    elif method in _WITH_LENGTH:
        lines += "Content-Length: 0\r\n"
    start = f" HTTP/1.1\r\nHost: {host}\r\nAccept-Encoding: {encoding}\r\n{lines}".encode("ascii")
    return b"%b %b%b%b\r\n" % (method.encode("ascii"), target, start, more)
