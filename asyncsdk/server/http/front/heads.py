"""The head of a request, strictly: whatever two programs could read in two ways is refused.

Source: RFC 9112 (HTTP/1.1), sections 2.2 (parsing), 3.2 (Host), 6 (where a body ends), 11.2 (request smuggling).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import httptools

__all__ = ["MAX_HEADERS", "MAX_HEAD_BYTES", "HeadReader", "MalformedRequest", "RequestHead"]

MAX_HEAD_BYTES = 64 * 1024
MAX_HEADERS = 128

_END = b"\r\n\r\n"
_LENGTH_DIGITS = 18


class MalformedRequest(Exception):
    """The bytes are no request that is taken here; nothing after them can be understood either."""


@dataclass(slots=True)
class RequestHead:
    """What stands before the body.

    Attributes:
        method: In capitals.
        path: Raw, as it came, not decoded.
        query: Raw, without the question mark.
        headers: Names in lower case, in the order they came.
        is_http_1_0: Whether the client speaks HTTP/1.0.
        keep_alive: Whether the client wants to go on with this connection.
        content_length: Declared bytes of the body; None without a declaration.
        is_chunked: Whether the body comes in chunks of unknown number.
        expects_continue: Whether the client waits for "100 Continue".
        first: Value of each header, the first one where it stands twice.
    """

    method: str
    path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    is_http_1_0: bool
    keep_alive: bool
    content_length: int | None
    is_chunked: bool
    expects_continue: bool
    first: dict[bytes, bytes] = field(repr=False)

    @property
    def has_body(self) -> bool:
        """Whether any byte of a body is to come."""
        return self.is_chunked or bool(self.content_length)


class HeadReader:
    """Reads one head, in as many pieces as it comes. Nonsense shows with the first byte that has no place.

    Memory: `MAX_HEAD_BYTES` and the largest piece.
    """

    __slots__ = ("_data", "_headers", "_is_whole", "_keep_alive", "_parser", "_url")

    def __init__(self) -> None:
        self._data = b""
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._is_whole = False
        self._keep_alive = False
        self._parser = httptools.HttpRequestParser(self)

    def feed(self, data: bytes) -> tuple[RequestHead, bytes] | None:
        """Take the next bytes; returns the head and what follows it, None while it is not whole.

        Raises:
            MalformedRequest: It is no head, or a larger one than is taken.
        """
        before = len(self._data)
        if not before:
            data = data.lstrip(b"\r\n") if data[:1] in {b"\r", b"\n"} else data  # empty lines before a request
            if not data:
                return None
        whole = self._data + data if before else data
        end = whole.find(_END, max(0, before - 3))
        stop = len(whole) if end < 0 else end + len(_END)
        if stop > MAX_HEAD_BYTES:
            raise MalformedRequest("the head is too large")
        try:
            self._parser.feed_data(whole[before:stop])
        except httptools.HttpParserUpgrade:
            pass  # another protocol is offered; it is answered in this one, as RFC 9110 section 7.8 allows
        except httptools.HttpParserError as error:
            raise MalformedRequest(str(error)) from None
        if self._is_whole is (end < 0):
            raise MalformedRequest("the head ends where it should not")
        if end < 0:
            self._data = whole
            return None
        return self._head(whole[:stop]), whole[stop:]

    @property
    def is_begun(self) -> bool:
        """Whether a part of the head is here."""
        return bool(self._data)

    # Called by the parser.

    def on_url(self, url: bytes) -> None:
        """Take (a piece of) the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Note that the head is whole."""
        self._is_whole = True
        # Asked now: a moment later, when there is no body, the parser has forgotten it.
        self._keep_alive = self._parser.should_keep_alive()

    def _head(self, raw: bytes) -> RequestHead:
        parser, headers = self._parser, self._headers
        method: bytes = parser.get_method()
        version: str = parser.get_http_version()
        if version not in {"1.1", "1.0"} or not raw.startswith(method + b" " + self._url + b" HTTP/1."):
            raise MalformedRequest("the first line must be METHOD TARGET HTTP/1.1")
        if len(headers) > MAX_HEADERS:
            raise MalformedRequest("there are too many headers")
        first = dict(reversed(headers))
        is_http_1_0 = version == "1.0"
        if len(first) != len(headers) or b"host" not in first or b"transfer-encoding" in first:
            _check_framing(headers, first, is_http_1_0=is_http_1_0)
        length = first.get(b"content-length")
        path, query = _split_target(self._url)
        return RequestHead(
            method.decode(),
            path,
            query,
            headers,
            is_http_1_0,
            self._keep_alive,
            None if length is None else _length(length),
            b"transfer-encoding" in first,
            not is_http_1_0 and first.get(b"expect", b"").strip().lower() == b"100-continue",
            first,
        )


def _check_framing(headers: list[tuple[bytes, bytes]], first: dict[bytes, bytes], *, is_http_1_0: bool) -> None:
    """Refuse what makes the end of a body, or the server meant, a matter of opinion."""
    for name in (b"host", b"content-length", b"transfer-encoding"):
        if sum(key == name for key, _ in headers) > 1:
            raise MalformedRequest(f"the header {name.decode()} stands there twice")
    if b"host" not in first and not is_http_1_0:
        raise MalformedRequest("HTTP/1.1 demands the header Host")
    encoding = first.get(b"transfer-encoding")
    if encoding is not None and (
        is_http_1_0 or b"content-length" in first or encoding.strip(b" \t").lower() != b"chunked"
    ):
        raise MalformedRequest("Transfer-Encoding may be chunked only, in HTTP/1.1 and without Content-Length")


def _length(value: bytes) -> int:
    digits = value.strip(b" \t")
    if not digits.isdigit() or len(digits) > _LENGTH_DIGITS:
        raise MalformedRequest("Content-Length must be a number")
    return int(digits)


def _split_target(target: bytes) -> tuple[bytes, bytes]:
    """Return path and query of a request's target: almost always it is just these two."""
    if target[:1] == b"/" and target[1:2] != b"/" and b"#" not in target:
        path, _, query = target.partition(b"?")
        return path, query
    try:
        parts = httptools.parse_url(target)
    except httptools.HttpParserInvalidURLError:
        raise MalformedRequest("the target of the request is no URL") from None
    return parts.path or b"/", parts.query or b""
