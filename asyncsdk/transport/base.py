"""The seam between the engine and whatever speaks HTTP: one request in, one reply out.

A transport moves the bytes of one request and says what came back. It does not retry, follow redirects, decode
bodies or judge a status: the engine does. It must send the URL byte for byte as given, never log a query or a header
value, keep connections alive, and be safe to call from many tasks of one event loop.

Bodies are a closed set, so that an implementation can choose its best path for each: `BytesBody`, `FileBody`, and
`FramedBody`, which is one of the two with bytes before and after it.
Where the body of a reply goes is decided by ``Request.on_head``, which sees status and headers first and returns a
`Sink` or None (then the body is kept in the reply, up to a limit). Files are read and sinks written in pieces of at
most 1 MiB, so that the event loop never stands still for longer than that takes; what the page cache does not hold,
and what a slow disk takes, is left to threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from asyncsdk.checksums import Crc32c
from asyncsdk.errors import ConfigError, SourceChanged, redact_url
from asyncsdk.os_errors import os_errors

__all__ = [
    "NOT_IDEMPOTENT",
    "Body",
    "BytesBody",
    "FileBody",
    "FramedBody",
    "Headers",
    "OnBytes",
    "Reply",
    "ReplyHead",
    "Request",
    "Sink",
    "Timeouts",
    "Transport",
    "is_conditional",
    "reset_checksum",
]

MAX_KEPT_BODY_BYTES = 64 * 1024
"""How much of a body nobody wants is kept: enough for any error message."""

NOT_IDEMPOTENT = frozenset({"POST", "PATCH"})
"""Methods that may do more when they are sent twice (RFC 9110 section 9.2.2)."""

_READING = frozenset({"GET", "HEAD"})
_CONDITIONS = frozenset({"if-match", "if-none-match", "x-goog-if-generation-match"})

OnBytes = Callable[[int], None]
"""Called with the number of bytes that just moved; must not block or raise. Negative: a body is sent once more, because
a kept connection turned out to be dead."""


class Headers(Mapping[str, str]):
    """Headers of a reply: names in any case, the values of a repeated one joined by a comma."""

    __slots__ = ("_values",)

    def __init__(self, pairs: Iterator[tuple[str, str]] | list[tuple[str, str]]) -> None:
        values: dict[str, str] = {}
        for name, value in pairs:
            name = name.lower()
            values[name] = f"{values[name]}, {value}" if name in values else value
        self._values = values

    @classmethod
    def of(cls, values: dict[str, str]) -> Headers:
        """Return headers that are *values*: names in lower case, repeated ones joined already."""
        headers = cls.__new__(cls)
        headers._values = values
        return headers

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of *name*, or *default*."""
        return self._values.get(name.lower(), default)  # a mapping's own would raise and catch for every one missing

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def has_any_of(self, names: frozenset[str]) -> bool:
        """Whether one of *names*, which are in lower case, is among them: 0.1 us, as one of them costs by itself."""
        return not names.isdisjoint(self._values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Headers({sorted(self._values)})"


@dataclass(slots=True)
class BytesBody:
    """A body in memory. Its owner keeps it unchanged until the reply is there.

    Raises:
        ConfigError: It is a view with gaps between its bytes.
    """

    data: bytes | memoryview

    def __post_init__(self) -> None:
        data = self.data
        if not isinstance(data, bytes) and (data.itemsize != 1 or data.ndim != 1 or not data.c_contiguous):
            if not data.c_contiguous:
                raise ConfigError("a body cannot be a memoryview with gaps; send bytes() of it")
            self.data = data.cast("B") if data.nbytes else b""

    @property
    def size_bytes(self) -> int:
        """Bytes that will be sent."""
        return len(self.data)


@dataclass(slots=True)
class FileBody:
    """Bytes ``[start, stop)`` of an open file.

    Args:
        fd: Read with positioned reads only; never closed by the transport.
        start: First byte.
        stop: One past the last byte.
        name: What to call the file in errors.
        checksum: Fed with the bytes in order as they are sent; a fresh one for every attempt.
    """

    fd: int
    start: int
    stop: int
    name: str = "<file>"
    checksum: Crc32c | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes that will be sent."""
        return self.stop - self.start

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Return up to *size_bytes* from *offset* (relative to ``start``), checksummed. Blocking.

        Raises:
            SourceChanged: The file ends before ``stop``.
            SourceUnreadable: The operating system cannot read it.
        """
        wanted = min(size_bytes, self.size_bytes - offset)
        with os_errors("source", source=self.name):
            data = os.pread(self.fd, wanted, self.start + offset)
        self.took(data, offset, wanted)
        return data

    def took(self, data: bytes | memoryview, offset: int, wanted: int) -> None:
        """Checksum *data*, read at *offset* (relative to ``start``) when *wanted* bytes were asked for.

        Raises:
            SourceChanged: There was none: the file ends before ``stop``.
        """
        if wanted and not data:
            raise SourceChanged(
                f"{self.name}: ends after {self.start + offset} bytes, {self.stop} were there when it was opened; "
                "it was changed while being sent, upload it again",
                source=self.name,
                bytes_done=offset,
            )
        if self.checksum is not None:
            self.checksum.update(data)


@dataclass(slots=True)
class FramedBody:
    """A body with bytes before and after it: how a form carries a file.

    Args:
        before: Sent first.
        inner: What is framed; only this is checksummed.
        after: Sent last.
    """

    before: bytes
    inner: BytesBody | FileBody
    after: bytes

    @property
    def size_bytes(self) -> int:
        """Bytes that will be sent."""
        return len(self.before) + self.inner.size_bytes + len(self.after)

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Return up to *size_bytes* from *offset*, at least one before its end. Blocking; raises as `FileBody.read`."""
        if offset < len(self.before):
            return self.before[offset : offset + size_bytes]
        offset -= len(self.before)
        if offset >= self.inner.size_bytes:
            offset -= self.inner.size_bytes
            return self.after[offset : offset + size_bytes]
        if isinstance(self.inner, FileBody):
            return self.inner.read(offset, size_bytes)
        return bytes(self.inner.data[offset : offset + size_bytes])


Body = BytesBody | FileBody | FramedBody


def reset_checksum(body: Body | None) -> None:
    """Let the checksum of the file in *body* start anew: it is sent again from its start."""
    file = body.inner if isinstance(body, FramedBody) else body
    if isinstance(file, FileBody) and file.checksum is not None:
        file.checksum.value = 0
        file.checksum.size_bytes = 0


@runtime_checkable
class Sink(Protocol):
    """Takes the body of one reply, in order."""

    def write(self, data: bytes | memoryview) -> None:
        """Take *data*, at most some 256 KiB of it. A memoryview is good for this call only: what is kept is copied.

        May write to a file; the transport decides in which thread it calls. Raises what says why *data* cannot be
        taken; the transport passes that on unchanged and drops the connection.
        """


@dataclass(slots=True)
class ReplyHead:
    """Status and headers of a reply."""

    status: int
    headers: Headers


@dataclass(slots=True)
class Reply:
    """What came back.

    Attributes:
        status: HTTP status.
        headers: All of them.
        body: What no sink took, at most 64 KiB of it.
        size_bytes: Bytes of body that came, sink or not.
    """

    status: int
    headers: Headers
    body: bytes = b""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Longest single waits, in seconds. None of them bounds a whole request.

    Args:
        connect: Name lookup, connection and TLS handshake.
        idle: No byte moves in either direction.
        reply: From the last byte sent to the first byte of the reply.
        rate_seconds: How long a body may move more slowly than ``rate_bytes`` per second, sent or received.
        rate_bytes: Bytes per second that a body must reach on average over every ``rate_seconds``; 0: any rate will do
            that is not idle. The default is far below what any link does that is alive: a server that lets one byte go
            every now and then would hold a request for ever.

    Raises:
        ConfigError: One of them is not positive; ``rate_bytes`` may be 0.
    """

    connect: float = 10.0
    idle: float = 60.0
    reply: float = 120.0
    rate_seconds: float = 60.0
    rate_bytes: int = 100

    def __post_init__(self) -> None:
        for name in ("connect", "idle", "reply", "rate_seconds", "rate_bytes"):
            value: object = getattr(self, name)
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            # Not written as "<": a value that is no number compares as False with everything.
            if not (is_number and (value > 0 or (value == 0 and name == "rate_bytes"))):  # type: ignore[operator]
                least = "0 or more bytes per second" if name == "rate_bytes" else "more than 0 seconds"
                raise ConfigError(f"the timeout {name} must be {least}, not {value!r}")


@dataclass(slots=True)
class Request:
    """One request.

    Args:
        method: In capitals.
        url: Absolute; sent byte for byte as given.
        headers: Without ``Host`` and ``Content-Length``, which the transport adds.
        body: None sends none (PUT, POST and PATCH then say ``Content-Length: 0``).
        on_head: Sees status and headers when they arrive (informational ones are passed over) and returns where the
            body goes, or None to keep the start of it in the reply. What it raises ends the request and is passed on.
        on_sent: Told of body bytes as they leave.
        on_received: Told of body bytes as they arrive.
        timeouts: None takes the transport's own.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    on_head: Callable[[ReplyHead], Sink | None] | None = None
    on_sent: OnBytes | None = None
    on_received: OnBytes | None = None
    timeouts: Timeouts | None = None

    @property
    def is_repeatable(self) -> bool:
        """Whether sending it twice does no more than sending it once, and is answered alike: by its method, and not
        where it writes under a condition, which the first one changes."""
        if self.method in NOT_IDEMPOTENT:
            return False
        return self.method in _READING or not is_conditional(self.headers)

    def __repr__(self) -> str:
        size = None if self.body is None else self.body.size_bytes
        return f"Request({self.method} {redact_url(self.url)}, body={size})"


def is_conditional(headers: Mapping[str, str]) -> bool:
    """Whether a request with *headers* is refused when what is there is not, or is, what it expects."""
    return bool(headers) and any(name.lower() in _CONDITIONS for name in headers)


class Transport(Protocol):
    """Sends requests over connections that it keeps."""

    async def send(self, request: Request) -> Reply:
        """Send *request* and return when its reply is whole.

        A reply that comes before the body was sent whole is returned as the reply; the connection is then dropped.
        When cancelled, the connection is dropped and nothing is written to the sink afterwards.

        Raises:
            ConnectionFailed: No connection, or it broke before the reply was whole.
            RequestTimeout: A wait of `Timeouts` ran out.
            IncompleteTransfer: The reply's body is shorter or longer than it declared.
            MalformedResponse: What came is no HTTP.
            SourceChanged: A `FileBody` is shorter than it was.
        """

    async def aclose(self) -> None:
        """Close all connections. Calling it again does nothing."""
