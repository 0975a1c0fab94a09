"""Replies as they come, without I/O: bytes in, at the end a `Reply`."""

from __future__ import annotations

import re
from time import monotonic

from asyncsdk.errors import ConnectionFailed, IncompleteTransfer, MalformedResponse, redact_url
from asyncsdk.transport.base import MAX_KEPT_BODY_BYTES, Reply, Request, Sink
from asyncsdk.transport.lean.chunks import ChunkReader
from asyncsdk.transport.lean.heads import MAX_HEAD_BYTES, Head, NotHttp, parse_head

__all__ = ["ReplyReader"]

_FIRST_LOOK_BYTES = 2048
"""Nearly every head ends within; looking further copies more."""

_MAX_INFORMATIONAL = 64

_TIMED_BYTES = 32 * 1024
_SLOW_SECONDS = 0.02
"""A sink that takes longer for one piece gets the rest of the body from a thread."""

_BARE_LF = re.compile(rb"(?<!\r)\n")


class ReplyReader:
    """Reads one reply after the other.

    ``begin`` says what is being answered, ``feed`` takes what comes, ``end`` says that nothing more will. What they
    raise means that the connection cannot be used any more.

    Attributes:
        is_done: The reply is whole: ``take`` it.
        has_begun: Some byte of it came, informational ones included.
        has_head: Its final head came.
        may_send: A ``100 Continue`` came.
        keep_alive: Whether the connection may serve another request afterwards.
        received: Bytes of body that came.
        late: What a slow sink has yet to take: let a thread call ``write_late`` before more is fed.
    """

    __slots__ = (
        "_chunks",
        "_head",
        "_informational",
        "_is_slow",
        "_kept",
        "_left",
        "_partial",
        "_request",
        "_sink",
        "has_begun",
        "has_head",
        "is_done",
        "keep_alive",
        "late",
        "may_send",
        "received",
    )

    def __init__(self) -> None:
        self._request: Request | None = None
        self._partial = b""
        self._informational = 0
        self._head: Head | None = None
        self._sink: Sink | None = None
        self._kept: bytearray | None = None
        self._chunks: ChunkReader | None = None
        self._left = 0
        self._is_slow = False
        self.late: list[bytes] = []
        self.received = 0
        self.has_begun = self.has_head = self.is_done = self.may_send = self.keep_alive = False

    def begin(self, request: Request) -> None:
        """Expect the reply to *request*."""
        self._request = request

    def drop(self) -> None:
        """Deliver nothing more, whatever is being fed, and let go of the sink."""
        self._request = self._sink = self._kept = self._chunks = None

    def take(self) -> Reply:
        """Return the reply, and be ready for the next."""
        head = self._head
        assert head is not None
        kept = self._kept
        reply = Reply(head.status, head.headers, bytes(kept) if kept else b"", self.received)
        # What is left as it was at the beginning by nearly every reply is not set again.
        self._head = self._sink = self._request = self._kept = self._chunks = None
        self.has_begun = self.has_head = self.is_done = self.keep_alive = False
        self.received = 0
        if self._is_slow or self._informational:
            self._is_slow, self._informational = False, 0
            self.may_send = False
        return reply

    def feed(self, view: memoryview) -> int:
        """Take bytes and return how many of them belong to this reply.

        Raises:
            MalformedResponse: They are no reply.
            Exception: Whatever ``on_head`` or the sink raises, unchanged.
        """
        try:
            if self.has_head:
                return self._feed_body(view, 0)
            self.has_begun = True
            used = self._feed_head(view)
            if self.is_done or not self.has_head:
                return used
            return self._feed_body(view, used)
        except NotHttp as error:
            raise MalformedResponse(f"{error}: {self._where}") from None

    def _feed_body(self, view: memoryview, used: int) -> int:
        chunks = self._chunks
        if chunks is not None:
            used += chunks.feed(view[used:])
            self.is_done = chunks.is_done
        elif not self.is_done and used < len(view):
            rest = view[used:] if used else view
            count = len(rest)
            if 0 <= self._left <= count:
                if count > self._left:
                    rest, count = rest[: self._left], self._left
                self._left = 0
                self.is_done = True
            elif self._left > 0:
                self._left -= count
            used += count
            self._deliver(rest)
        return used

    def end(self) -> None:
        """The connection was closed by the other side, cleanly.

        Raises:
            ConnectionFailed: Before the reply was whole.
            IncompleteTransfer: Before all the bytes that it declared.
        """
        if self.has_head and self._chunks is None and self._left < 0:
            self.is_done = True
            return
        raise self.broken(None)

    def broken(self, error: OSError | None) -> Exception:
        """Return the error for a connection that ended in the middle, by *error* or because it was closed."""
        why = "closed" if error is None else error.strerror or type(error).__name__
        head = self._head
        if head is None:
            return ConnectionFailed(f"the connection broke before a reply came ({why}): {self._where}")
        if head.length is not None:
            return IncompleteTransfer(head.length, self.received, source=self._where, bytes_done=self.received)
        return ConnectionFailed(f"the connection broke after {self.received} bytes of the reply ({why}): {self._where}")

    @property
    def is_inside_head(self) -> bool:
        """Whether a head began to come and is not whole."""
        return bool(self._partial)

    @property
    def _where(self) -> str:
        return "" if self._request is None else redact_url(self._request.url)

    # --- the head --------------------------------------------------------------------------------------------

    def _feed_head(self, view: memoryview) -> int:
        used = 0
        while True:
            raw = bytes(view[used : used + _FIRST_LOOK_BYTES])
            if self._partial:
                raw = self._partial + raw
            end = raw.find(b"\r\n\r\n")
            if end < 0 and len(view) - used > _FIRST_LOOK_BYTES:
                raw = self._partial + bytes(view[used : used + MAX_HEAD_BYTES + 4])
                end = raw.find(b"\r\n\r\n")
            if end < 0:
                if len(raw) > MAX_HEAD_BYTES:
                    raise NotHttp(f"the head of the reply is longer than {MAX_HEAD_BYTES} bytes")
                if not b"HTTP/1.".startswith(raw[:7]) or _BARE_LF.search(raw):
                    raise NotHttp("what came back is no HTTP/1.1")
                self._partial = raw
                return len(view)
            end += 4
            if end > MAX_HEAD_BYTES:
                raise NotHttp(f"the head of the reply is longer than {MAX_HEAD_BYTES} bytes")
            used += end
            if self._partial:
                used -= len(self._partial)
                self._partial = b""
            self._take_head(raw[:end])
            if self.has_head or used == len(view):
                return used

    def _take_head(self, raw: bytes) -> None:
        request = self._request
        assert request is not None
        head = parse_head(raw, request.method)
        if head.status < 200:
            self._informational += 1
            if head.status == 101 or self._informational > _MAX_INFORMATIONAL:
                raise NotHttp("informational replies that nobody asked for")
            self.may_send = self.may_send or head.status == 100
            return
        self._head = head
        self.has_head = True
        self.keep_alive = head.keep_alive
        if request.on_head is not None:
            sink = request.on_head(head)
            if self._request is None:  # dropped by what it called
                return
            self._sink = sink
        if head.is_chunked:
            self._chunks = ChunkReader(self._deliver)
        elif head.length is None:
            self._left = -1
        else:
            self._left = head.length
            self.is_done = head.length == 0

    # --- the body --------------------------------------------------------------------------------------------

    def _deliver(self, view: memoryview) -> None:
        request = self._request
        if request is None:  # dropped by what it called
            return
        count = len(view)
        self.received += count
        if request.on_received is not None:
            request.on_received(count)
            if self._request is None:
                return
        if self._sink is not None:
            if self._is_slow:
                self.late.append(bytes(view))
            elif count < _TIMED_BYTES:
                self._sink.write(view)
            else:
                started = monotonic()
                self._sink.write(view)
                self._is_slow = monotonic() - started > _SLOW_SECONDS
            return
        if self._kept is None:
            self._kept = bytearray()
        if len(self._kept) < MAX_KEPT_BODY_BYTES:
            self._kept += view[: MAX_KEPT_BODY_BYTES - len(self._kept)]

    def write_late(self) -> None:
        """Write what is late. Blocking; raises what the sink raises."""
        sink = self._sink
        late, self.late = self.late, []
        for data in late:
            if sink is None or self._request is None:  # dropped meanwhile
                return
            sink.write(data)
