"""Sending what does not go out in one piece: large bodies, and the rest of what a full socket did not take.

A file whose bytes are checksummed on their way is read into a reused buffer and sent from there; read for the checksum
and then sent by ``sendfile``, it would cost a fifth more. Without a checksum ``sendfile`` costs half. Bytes in memory
go as they are. Under TLS all are encrypted in pieces of seven records: what they become stays below the size at which
the allocator asks the system for fresh pages every time.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from asyncsdk.os_errors import os_errors
from asyncsdk.transport.base import Body, BytesBody, FileBody, FramedBody
from asyncsdk.transport.lean.exchange import Exchange
from asyncsdk.transport.lean.reading import CacheReader

if TYPE_CHECKING:
    from asyncsdk.transport.lean.pipe import TlsPipe

__all__ = ["BUFFER_BYTES", "LONG_BYTES", "PIECE_BYTES", "Progress", "Sender", "read_whole"]

BUFFER_BYTES = 1024 * 1024
PIECE_BYTES = 256 * 1024
"""Fits the processor's cache: what was read and checksummed is still there when it is sent."""

LONG_BYTES = 16 * 1024 * 1024
"""From here on a whole megabyte is sent at once: fewer wake-ups of the receiver count for more."""

_TLS_PIECE_BYTES = 7 * 16384
_STEPS_PER_TURN = 4
"""Pieces sent before other connections get their turn."""

_CAN_SENDFILE = hasattr(os, "sendfile")
_NO_SENDFILE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EIO, errno.EBADF, errno.EOVERFLOW}
"""A file system without it, or a file that cannot be read: reading it works, or says what is wrong with it."""


class Progress(Enum):
    """How far a sender is."""

    DONE = 0
    """All is with the system."""
    FULL = 1
    """Call again when the socket takes more."""
    COLD = 2
    """Call again when `Sender.warm` has run in a thread."""


class Sender:
    """Sends the rest of one request.

    Args:
        sock: Non-blocking.
        pipe: Encrypts; None: plain.
        exchange: Told of body bytes as they leave.
        pending: Ready to go as it is: the head, or the rest of it with the start of the body.
        pending_body: How many bytes of the body *pending* stands for.
        borrow: Gives a buffer for a body of so many bytes: `PIECE_BYTES` or more.
        body: What is sent; None: the body of the request.
    """

    __slots__ = (
        "_borrow",
        "_buffer",
        "_exchange",
        "_file",
        "_may_sendfile",
        "_most",
        "_offset",
        "_pending",
        "_pending_body",
        "_pipe",
        "_reader",
        "_size",
        "_sock",
        "_view",
    )

    def __init__(
        self,
        sock: socket.socket,
        pipe: TlsPipe | None,
        exchange: Exchange,
        pending: memoryview,
        pending_body: int,
        borrow: Callable[[int], bytearray],
        body: Body | None = None,
    ) -> None:
        self._sock = sock
        self._pipe = pipe
        self._exchange = exchange
        self._pending = pending
        self._pending_body = pending_body
        self._borrow = borrow
        self._offset = pending_body  # of the body, next to be prepared
        self._most = 0
        self._buffer: bytearray | None = None
        self._reader: CacheReader | None = None
        self._file: FileBody | None = None
        self._view = memoryview(b"")
        body = exchange.request.body if body is None else body
        self._size = 0 if body is None else body.size_bytes
        self._may_sendfile = False
        if isinstance(body, BytesBody):
            self._view = memoryview(body.data)
        elif isinstance(body, FileBody):
            self._file = body
            self._may_sendfile = _CAN_SENDFILE and pipe is None and body.checksum is None
            self._reader = CacheReader(body.fd, body.stop)

    def pump(self, most_bytes: int = 0) -> Progress:
        """Send until the socket is full, or others should get their turn.

        Args:
            most_bytes: One piece of so many bytes at most; 0: as many as it likes.

        Raises:
            SourceChanged, SourceUnreadable: The file that is sent.
            OSError: The connection.
        """
        self._most = most_bytes
        for _ in range(1 if most_bytes else _STEPS_PER_TURN):
            if self._pending:
                try:
                    count = self._sock.send(self._pending)
                except BlockingIOError:  # what went before filled it to the last byte
                    return Progress.FULL
                left = len(self._pending) - count
                self._pending = self._pending[count:] if left else memoryview(b"")
                if self._pending_body > left:  # the body comes last, and is never longer than what it became
                    moved, self._pending_body = self._pending_body - left, left
                    self._exchange.moved(moved)
                if self._pending:
                    return Progress.FULL
            if self._offset >= self._size:
                return Progress.DONE
            if self._file is None:
                self._next_of_memory()
            elif self._may_sendfile:
                progress = self._send_file(self._file)
                if progress is not None:
                    return progress
            elif not self._next_of_file(self._file):
                return Progress.COLD
        # Whoever says that there is more to send must mean it: a reply that comes meanwhile would count as early.
        return Progress.FULL if self._pending or self._offset < self._size else Progress.DONE

    def warm(self) -> None:
        """Bring what comes next into the page cache. Blocking."""
        assert self._reader is not None
        assert self._file is not None
        self._reader.warm(self._file.start + self._offset)

    def keep(self, buffer: bytearray) -> None:
        """Take over a buffer that was borrowed, to be given back by `release`."""
        self._buffer = buffer

    def release(self) -> bytearray | None:
        """Send nothing more, and give the buffer back, if one was borrowed."""
        buffer, self._buffer = self._buffer, None
        self._pending = self._view = memoryview(b"")
        self._pending_body = 0
        self._offset = self._size
        return buffer

    def _next_of_memory(self) -> None:
        if self._pipe is None:
            self._ready(self._view[self._offset : self._offset + (self._most or BUFFER_BYTES)])
        else:
            piece = self._view[self._offset : self._offset + min(self._most or _TLS_PIECE_BYTES, _TLS_PIECE_BYTES)]
            self._ready(memoryview(self._pipe.encrypt(piece)), len(piece))

    def _next_of_file(self, body: FileBody) -> bool:
        if self._buffer is None:
            self._buffer = self._borrow(self._size if self._pipe is None else 0)
        piece = BUFFER_BYTES if self._size >= LONG_BYTES else PIECE_BYTES
        if self._pipe is not None:
            piece = _TLS_PIECE_BYTES
        view = memoryview(self._buffer)[: min(self._most or piece, piece)]
        count = self._read(body, view, self._offset)
        if count is None:
            return False
        if self._pipe is None:
            self._ready(view[:count])
        else:
            self._ready(memoryview(self._pipe.encrypt(view[:count])), count)
        return True

    def _ready(self, pending: memoryview, size_bytes: int | None = None) -> None:
        self._pending = pending
        self._pending_body = len(pending) if size_bytes is None else size_bytes
        self._offset += self._pending_body

    def _send_file(self, body: FileBody) -> Progress | None:
        """Send from the page cache, without a look at the bytes; None: go on."""
        try:
            count = min(self._size - self._offset, self._most or LONG_BYTES)
            sent = os.sendfile(self._sock.fileno(), body.fd, body.start + self._offset, count)
        except BlockingIOError:
            return Progress.FULL
        except OSError as error:
            if error.errno not in _NO_SENDFILE:
                raise
            self._may_sendfile = False
            return None
        if sent == 0:
            body.took(b"", self._offset, 1)  # it became shorter: raises
        self._offset += sent
        self._exchange.moved(sent)
        return None

    def _read(self, body: FileBody, view: memoryview, offset: int) -> int | None:
        view = view[: self._size - offset]
        assert self._reader is not None
        with os_errors("source", source=body.name):
            count = self._reader.read_into(view, body.start + offset)
        if count is not None:
            body.took(view[:count], offset, len(view))
        return count


def read_whole(body: FileBody | FramedBody, size_bytes: int) -> bytes:
    """Return all of a small file. Blocking.

    Raises:
        SourceChanged: It became shorter.
        SourceUnreadable: The operating system cannot read it.
    """
    data = body.read(0, size_bytes)
    while len(data) < size_bytes:
        data += body.read(len(data), size_bytes)  # raises at the end of a file that became shorter
    return data
