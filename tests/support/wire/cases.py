"""Replies by name: those that must be refused, with what each tries, and those that must be understood."""

from __future__ import annotations

from typing import Self

__all__ = ["BAD_CHUNKS", "BAD_FRAMING", "BAD_HEADS", "GOOD", "Good"]

_LINE = b"HTTP/1.1 200 OK\r\n"
_BODY = b"Content-Length: 5\r\n\r\nhello"

BAD_HEADS: dict[str, bytes] = {
    "no version": b"200 OK\r\n" + _BODY,
    "no status": b"HTTP/1.1\r\n" + _BODY,
    "empty status": b"HTTP/1.1 \r\n" + _BODY,
    "status of two digits": b"HTTP/1.1 20 OK\r\n" + _BODY,
    "status of four digits": b"HTTP/1.1 2000 OK\r\n" + _BODY,
    "status with a sign": b"HTTP/1.1 +20 OK\r\n" + _BODY,
    "status below 100": b"HTTP/1.1 099 OK\r\n" + _BODY,
    "two spaces before the status": b"HTTP/1.1  200 OK\r\n" + _BODY,
    "tab before the status": b"HTTP/1.1\t200 OK\r\n" + _BODY,
    "lower case": b"http/1.1 200 OK\r\n" + _BODY,
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\n" + _BODY,
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n" + _BODY,
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\n" + _BODY,
    "HTTP/11": b"HTTP/11 200 OK\r\n" + _BODY,
    "HTTP/1.10": b"HTTP/1.10 200 OK\r\n" + _BODY,
    "other protocol": b"ICY 200 OK\r\n" + _BODY,
    "only a body": b"<html>hello</html>\r\n\r\n",
    "blank before the status line": b" HTTP/1.1 200 OK\r\n" + _BODY,
    "NUL in the reason": b"HTTP/1.1 200 O\x00K\r\n" + _BODY,
    "CR in the reason": b"HTTP/1.1 200 O\rK\r\n" + _BODY,
    "NUL in a value": _LINE + b"X: a\x00b\r\n" + _BODY,
    "bare CR in a value": _LINE + b"X: a\rContent-Length: 1\r\n" + _BODY,
    "NUL in a name": _LINE + b"X\x00: a\r\n" + _BODY,
    "space before the colon": _LINE + b"Content-Length : 3\r\n" + _BODY,
    "space in a name": _LINE + b"X Y: a\r\n" + _BODY,
    "no colon": _LINE + b"nothing\r\n" + _BODY,
    "no name": _LINE + b": a\r\n" + _BODY,
    "name beyond ASCII": _LINE + "Ä: a\r\n".encode("latin-1") + _BODY,
    "blank before the first header": _LINE + b" X: a\r\n" + _BODY,
    "bare LF after the status line": b"HTTP/1.1 200 OK\n" + _BODY,
    "bare LF after a header": _LINE + b"X: a\n" + _BODY,
    "bare LF ends the head": _LINE + b"Content-Length: 5\r\n\nhello",
    "bare LF everywhere": (_LINE + _BODY).replace(b"\r\n", b"\n"),
    "obs-fold": _LINE + b"X: a\r\n b\r\n" + _BODY,
    "empty line before the status line": b"\r\n" + _LINE + _BODY,
}
"""Heads that are no HTTP/1.1."""

BAD_FRAMING: dict[str, bytes] = {
    "two lengths": _LINE + b"Content-Length: 3\r\n" + _BODY,
    "two lengths in one line": _LINE + b"Content-Length: 5, 3\r\n\r\nhello",
    "length with a plus": _LINE + b"Content-Length: +5\r\n\r\nhello",
    "length with a minus": _LINE + b"Content-Length: -5\r\n\r\nhello",
    "length with a space": _LINE + b"Content-Length: 0 5\r\n\r\nhello",
    "length in hexadecimal": _LINE + b"Content-Length: 0x5\r\n\r\nhello",
    "length with a point": _LINE + b"Content-Length: 5.0\r\n\r\nhello",
    "length with an underscore": _LINE + b"Content-Length: 0_5\r\n\r\nhello",
    "length in other digits": _LINE + "Content-Length: \u00b2\r\n\r\nhello".encode("latin-1"),
    "empty length": _LINE + b"Content-Length:\r\n\r\nhello",
    "length in words": _LINE + b"Content-Length: five\r\n\r\nhello",
    "length of 10**18": _LINE + b"Content-Length: 1000000000000000000\r\n\r\nhello",
    "length of 2**63": _LINE + b"Content-Length: 9223372036854775808\r\n\r\nhello",
    "length of 2**64 + 5": _LINE + b"Content-Length: 18446744073709551621\r\n\r\nhello",
    "length of 40 digits": _LINE + b"Content-Length: " + b"9" * 40 + b"\r\n\r\nhello",
    "length, then chunked": _LINE + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunked, then length": _LINE + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "gzip, chunked": _LINE + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunked, gzip": _LINE + b"Transfer-Encoding: chunked, gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunked, chunked": _LINE + b"Transfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunked in two lines": _LINE + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunked and identity in two lines": _LINE
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "xchunked": _LINE + b"Transfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunked with a parameter": _LINE + b"Transfer-Encoding: chunked;q=1\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "quoted chunked": _LINE + b'Transfer-Encoding: "chunked"\r\n\r\n5\r\nhello\r\n0\r\n\r\n',
    "identity": _LINE + b"Transfer-Encoding: identity\r\n\r\nhello",
    "empty coding": _LINE + b"Transfer-Encoding:\r\n\r\nhello",
    "chunked in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
}
"""Bodies whose end two readers could see at different places, and codings that nobody asked for."""

_CHUNKED = _LINE + b"Transfer-Encoding: chunked\r\n\r\n"

BAD_CHUNKS: dict[str, bytes] = {
    "no size": _CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
    "negative size": _CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "size with a plus": _CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n",
    "size with 0x": _CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "size of no digits": _CHUNKED + b"g\r\nhello\r\n0\r\n\r\n",
    "size with an underscore": _CHUNKED + b"0_5\r\nhello\r\n0\r\n\r\n",
    "blank before the size": _CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n",
    "size of 2**64 + 5": _CHUNKED + b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "size of 100 digits": _CHUNKED + b"0" * 99 + b"5\r\nhello\r\n0\r\n\r\n",
    "size of 100,000 digits": _CHUNKED + b"0" * 99_999 + b"5\r\nhello\r\n0\r\n\r\n",
    "bare LF after the size": _CHUNKED + b"5\nhello\r\n0\r\n\r\n",
    "bare CR after the size": _CHUNKED + b"5\rhello\r\n0\r\n\r\n",
    "bare LF in an extension": _CHUNKED + b"5;a\nhello\r\n0\r\n\r\n",
    "no CRLF after the data": _CHUNKED + b"5\r\nhello0\r\n\r\n",
    "LF after the data": _CHUNKED + b"5\r\nhello\n0\r\n\r\n",
    "more data than the size": _CHUNKED + b"5\r\nhello!\r\n0\r\n\r\n",
    "no colon in a trailer": _CHUNKED + b"5\r\nhello\r\n0\r\ntrailer\r\n\r\n",
    "NUL in a trailer": _CHUNKED + b"5\r\nhello\r\n0\r\nX: \x00\r\n\r\n",
}
"""Chunked bodies that are none."""


class Good(tuple[bytes, int, bytes]):
    """What goes over the wire, and the status and the body it means."""

    __slots__ = ()

    def __new__(cls, data: bytes, status: int = 200, body: bytes = b"hello") -> Self:
        """Keep the three together."""
        return super().__new__(cls, (data, status, body))


GOOD: dict[str, Good] = {
    "length": Good(_LINE + _BODY),
    "length of zero": Good(_LINE + b"Content-Length: 0\r\n\r\n", body=b""),
    "length with leading zeros": Good(_LINE + b"Content-Length: 0005\r\n\r\nhello"),
    "the same length twice": Good(_LINE + b"Content-Length: 5\r\n" + _BODY),
    "the same length twice in one line": Good(_LINE + b"Content-Length: 5, 5\r\n\r\nhello"),
    "names in other cases": Good(_LINE + b"cOnTeNt-LeNgTh: 5\r\n\r\nhello"),
    "no blank after the colon": Good(_LINE + b"Content-Length:5\r\n\r\nhello"),
    "blanks around the value": Good(_LINE + b"Content-Length: \t 5 \t\r\n\r\nhello"),
    "empty reason": Good(b"HTTP/1.1 200 \r\n" + _BODY),
    "no reason": Good(b"HTTP/1.1 200\r\n" + _BODY),
    "long reason": Good(b"HTTP/1.1 200 " + b"very " * 200 + b"fine\r\n" + _BODY),
    "reason beyond ASCII": Good("HTTP/1.1 200 schön\r\n".encode("latin-1") + _BODY),
    "empty value": Good(_LINE + b"X:\r\n" + _BODY),
    "value beyond ASCII": Good(_LINE + "X: schön\r\n".encode("latin-1") + _BODY),
    "odd but legal name": Good(_LINE + b"!#$%&'*+-.^_`|~09: a\r\n" + _BODY),
    "ends with the connection": Good(_LINE + b"\r\nhello"),
    "ends with the connection, empty": Good(_LINE + b"\r\n", body=b""),
    "HTTP/1.0 with length": Good(b"HTTP/1.0 200 OK\r\n" + _BODY),
    "HTTP/1.0 that ends with the connection": Good(b"HTTP/1.0 200 OK\r\n\r\nhello"),
    "chunked": Good(_CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
    "chunked in capitals": Good(_LINE + b"Transfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    "chunked, empty": Good(_CHUNKED + b"0\r\n\r\n", body=b""),
    "chunk sizes with leading zeros": Good(_CHUNKED + b"0005\r\nhello\r\n000\r\n\r\n"),
    "chunk sizes in both cases": Good(
        _CHUNKED + b"a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", body=b"01234567890123456789a"
    ),
    "blank after a chunk size": Good(_CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n"),
    "chunk extensions": Good(_CHUNKED + b'2;a\r\nhe\r\n3;b=c;d="e"\r\nllo\r\n0;f\r\n\r\n'),
    "trailers": Good(_CHUNKED + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nContent-Length: 99\r\n\r\n"),
    "204": Good(b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "204 with length": Good(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, b""),
    "304 with length": Good(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b""),
    "304 with chunked": Good(b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", 304, b""),
    "a status beyond those known": Good(b"HTTP/1.1 799 Odd\r\n" + _BODY, 799),
    "CRLFs in the body": Good(_LINE + b"Content-Length: 8\r\n\r\n\r\n\r\nHTTP", body=b"\r\n\r\nHTTP"),
}
"""Replies that are fine, some of them barely. Keys starting with 204 and 304 have no body whatever they declare."""
