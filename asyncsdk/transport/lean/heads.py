"""Heads of HTTP/1.1 messages, without I/O: writing that of a request, reading that of a reply.

A head is checked line by line against the grammar; nothing gets through that it does not name (bare CR or LF, NUL,
folded lines, a space before a colon). Lines that a server repeats in every reply are known after the first.

Source: RFC 9112 sections 2 to 6, RFC 9110 section 5.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from asyncsdk.errors import ConfigError
from asyncsdk.transport.base import Headers, ReplyHead

__all__ = ["MAX_HEADERS", "MAX_HEAD_BYTES", "Head", "HeadWriter", "NotHttp", "encode_head", "parse_head"]

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 256
_MAX_DIGITS = 18
_MAX_KNOWN = 512
_MAX_KNOWN_BYTES = 256
_REPEATED = frozenset({"accept-ranges", "cache-control", "connection", "content-type", "date", "keep-alive", "server"})
"""What is remembered: nothing that could hold a secret, or that differs for every object."""

_SHORT_DIGITS = 3
"""A Content-Length of so many digits is remembered, too: that of an empty body or a short answer."""

_NAME = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_TEXT = rb"[\t\x20-\x7e\x80-\xff]*"

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: " + _TEXT + rb")?")
_LINE = re.compile(rb"(" + _NAME + rb"):(" + _TEXT + rb")")
_TEXT_BYTES = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
"""What `_TEXT` takes: a line that is nothing else is found at a third of the cost of the expression."""

_REQUEST_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_REQUEST_VALUE = re.compile(r"[\t\x20-\x7e]*")
_TARGET = re.compile(rb"[\x21-\x7e]+")

_METHODS = {method: method.encode() for method in ("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE")}
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


def parse_head(raw: bytes, method: str) -> Head:
    """Read the head of a reply, blank line included.

    What frames the body follows RFC 9112 section 6.3, in its strict reading: nothing is guessed.

    Args:
        raw: All of it.
        method: Of the request it answers.

    Raises:
        NotHttp: It is none, or its framing is ambiguous.
    """
    lines = raw[:-4].split(b"\r\n")
    first = lines.pop(0)
    status, is_new = _known_statuses.get(first) or _read_status(first)
    if len(lines) > MAX_HEADERS:
        raise NotHttp(f"the reply has more than {MAX_HEADERS} headers")
    values = dict(map(_known_lines.__getitem__, lines))  # no loop here: it would be half the cost of a head
    if len(values) < len(lines):
        values = _joined(lines)
    length: int | None = None
    is_chunked = False
    if (declared := values.get("content-length")) is not None:
        length = _declared(declared)
    if (encoding := values.get("transfer-encoding")) is not None:
        if encoding.lower() != "chunked" or not is_new:
            raise NotHttp("the reply's Transfer-Encoding is not `chunked` alone")
        if length is not None:
            raise NotHttp("the reply declares both a Content-Length and a Transfer-Encoding")
        is_chunked = True
    keep_alive = is_new
    if (connection := values.get("connection")) is not None and connection != "keep-alive":
        tokens = [token.strip() for token in connection.lower().split(",")]
        keep_alive = (is_new or "keep-alive" in tokens) and "close" not in tokens
    elif connection is not None:
        keep_alive = True
    if method == "HEAD" or status < 200 or status in {204, 304}:
        length, is_chunked = 0, False
    elif length is None and not is_chunked:
        keep_alive = False
    return Head(status, Headers.of(values), length, is_chunked, keep_alive)


class _Lines(dict[bytes, tuple[str, str]]):
    """Names and values of header lines: kept for those that a server repeats in every reply, else read as they come."""

    __slots__ = ()

    def __missing__(self, line: bytes) -> tuple[str, str]:
        raw, colon, text = line.partition(b":")
        name = _known_names.get(raw)
        if name is not None and colon and not text.translate(None, _TEXT_BYTES):
            return name, text.strip(b" \t").decode("latin-1")
        match = _LINE.fullmatch(line)
        if match is None:
            raise NotHttp("what came back is no HTTP/1.1")
        pair = name, value = match[1].lower().decode("ascii"), match[2].strip(b" \t").decode("latin-1")
        if name in _REPEATED or (name == "content-length" and len(value) <= _SHORT_DIGITS):
            if len(line) <= _MAX_KNOWN_BYTES:
                if len(self) >= _MAX_KNOWN:
                    self.clear()
                self[line] = pair
        elif len(raw) <= _MAX_KNOWN_BYTES and len(_known_names) < _MAX_KNOWN:
            _known_names[raw] = name
        return pair


_known_statuses: dict[bytes, tuple[int, bool]] = {}
_known_lines = _Lines()
_known_names: dict[bytes, str] = {}
"""Names of the headers that are not remembered with their value."""


def _joined(lines: list[bytes]) -> dict[str, str]:
    """Return the headers of *lines*, some of which have the same name."""
    values: dict[str, str] = {}
    for line in lines:
        name, value = _known_lines[line]
        values[name] = f"{values[name]}, {value}" if name in values else value
    return values


def _read_status(line: bytes) -> tuple[int, bool]:
    match = _STATUS.fullmatch(line)
    if match is None:
        raise NotHttp("what came back is no HTTP/1.1")
    status = int(match[2]), match[1] == b"1"
    if len(line) <= _MAX_KNOWN_BYTES and len(_known_statuses) < _MAX_KNOWN:
        _known_statuses[line] = status
    return status


def _declared(value: str) -> int:
    """Return a Content-Length; the same one said again is tolerated, as RFC 9110 section 8.6 allows."""
    if value.isascii() and value.isdecimal() and len(value) <= _MAX_DIGITS:
        return int(value)
    sizes = {text.strip(" \t") for text in value.split(",")}
    size = sizes.pop()
    if sizes or not (size.isascii() and size.isdecimal()) or len(size) > _MAX_DIGITS:
        raise NotHttp("the reply's Content-Length is no size, or there are several")
    return int(size)


class HeadWriter:
    """Writes the heads of requests to one server. It remembers headers: most often the next has the same.

    Args:
        authority: For ``Host``, unless a request has one.

    Attributes:
        says_close: Whether the head written last asks for the connection to be closed afterwards.
    """

    __slots__ = ("_authority", "_headers", "_start", "says_close")

    def __init__(self, authority: str) -> None:
        self._authority = authority
        self._headers: Mapping[str, str] = {}
        self._start = _start(authority, self._headers)
        self.says_close = False

    def write(
        self,
        method: str,
        target: bytes,
        headers: Mapping[str, str],
        size_bytes: int | None,
        more: bytes = b"",
    ) -> bytes:
        """Return the head of a request; see `encode_head`."""
        name = _METHODS.get(method) or _method(method)
        if not _TARGET.fullmatch(target):
            raise ConfigError("its URL holds what HTTP forbids")
        if headers != self._headers:
            self._start = _start(self._authority, headers)
            self._headers, self.says_close = dict(headers), _says_close(headers)
        if size_bytes is None:
            if method in _WITH_LENGTH:
                more = b"Content-Length: 0\r\n" + more
            return b"%b %b%b%b\r\n" % (name, target, self._start, more)
        if size_bytes < 0:
            raise ConfigError("its body ends before it begins")
        return b"%b %b%bContent-Length: %d\r\n%b\r\n" % (name, target, self._start, size_bytes, more)


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
    return HeadWriter(authority).write(method, target, headers, size_bytes, more)


def _method(method: str) -> bytes:
    if not _REQUEST_NAME.fullmatch(method):
        raise ConfigError("its method holds what HTTP forbids")
    return method.encode("ascii")


def _start(authority: str, headers: Mapping[str, str]) -> bytes:
    """Return the rest of the request line, and all headers."""
    host, encoding, lines = authority, "identity", ""
    for name, value in headers.items():
        if not _REQUEST_NAME.fullmatch(name) or not _REQUEST_VALUE.fullmatch(value):
            raise ConfigError("its headers hold what HTTP forbids")
        lower = name.lower()
        if lower == "host":
            host = value
        elif lower == "transfer-encoding":
            raise ConfigError("its headers frame the body in another way than it is sent")
        elif lower == "accept-encoding":
            encoding = value
        elif lower != "content-length":
            lines += f"{name}: {value}\r\n"
    return f" HTTP/1.1\r\nHost: {host}\r\nAccept-Encoding: {encoding}\r\n{lines}".encode("ascii")


def _says_close(headers: Mapping[str, str]) -> bool:
    return any(name.lower() == "connection" and "close" in value.lower() for name, value in headers.items())
