"""Sending what does not go out in one piece: large bodies, and the rest of what a full socket did not take.

Three ways for a body larger than 64 KiB. A file up to 4 MiB fits the socket's buffer and goes by ``sendfile``; a larger
one is read into a reused buffer of 1 MiB, which beats ``sendfile`` against a receiver that is as fast as the sender;
bytes in memory go as they are. Under TLS all of them are encrypted in pieces of seven records: what they become stays
below the size at which the allocator asks the system for fresh pages every time.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from asyncsdk.errors import os_errors
from asyncsdk.transport.base import BytesBody, FileBody
from asyncsdk.transport.lean.exchange import Exchange
from asyncsdk.transport.lean.reading import CacheReader

if TYPE_CHECKING:
    from asyncsdk.transport.lean.pipe import TlsPipe

__all__ = ["BUFFER_BYTES", "Progress", "Sender"]

BUFFER_BYTES = 1024 * 1024
_SENDFILE_BYTES = 4 * 1024 * 1024
_CHECKED_BYTES = 256 * 1024
_TLS_PIECE_BYTES = 7 * 16384
_STEPS_PER_TURN = 4
"""Pieces sent before other connections get their turn."""

_CAN_SENDFILE = hasattr(os, "sendfile")
_NO_SENDFILE = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


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
        borrow: Gives a buffer of `BUFFER_BYTES`.
    """

    __slots__ = (
        "_borrow",
        "_buffer",
        "_checked",
        "_exchange",
        "_file",
        "_may_sendfile",
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
        borrow: Callable[[], bytearray],
    ) -> None:
        self._sock = sock
        self._pipe = pipe
        self._exchange = exchange
        self._pending = pending
        self._pending_body = pending_body
        self._borrow = borrow
        self._offset = pending_body  # of the body, next to be prepared
        self._checked = 0
        self._buffer: bytearray | None = None
        self._reader: CacheReader | None = None
        self._file: FileBody | None = None
        self._view = memoryview(b"")
        body = exchange.request.body
        self._size = 0 if body is None else body.size_bytes
        self._may_sendfile = pipe is None and self._size <= _SENDFILE_BYTES and _CAN_SENDFILE
        if isinstance(body, BytesBody):
            self._view = memoryview(body.data)
        elif isinstance(body, FileBody):
            self._file = body
            self._reader = CacheReader(body.fd, body.stop)

    def pump(self) -> Progress:
        """Send until the socket is full, or others should get their turn.

        Raises:
            SourceChanged, SourceUnreadable: The file that is sent.
            OSError: The connection.
        """
        for _ in range(_STEPS_PER_TURN):
            if self._pending:
                count = self._sock.send(self._pending)
                if count < len(self._pending):
                    self._pending = self._pending[count:]
                    return Progress.FULL
                self._pending = memoryview(b"")
                if self._pending_body:
                    self._exchange.moved(self._pending_body)
                    self._pending_body = 0
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
        self._reader.warm(self._file.start + max(self._offset, self._checked))

    def release(self) -> bytearray | None:
        """Give the buffer back, if one was borrowed."""
        buffer, self._buffer = self._buffer, None
        self._pending = memoryview(b"")
        return buffer

    def _next_of_memory(self) -> None:
        if self._pipe is None:
            self._ready(self._view[self._offset : self._offset + BUFFER_BYTES])
        else:
            piece = self._view[self._offset : self._offset + _TLS_PIECE_BYTES]
            self._ready(memoryview(self._pipe.encrypt(piece)), len(piece))

    def _next_of_file(self, body: FileBody) -> bool:
        if self._buffer is None:
            self._buffer = self._borrow()
        view = memoryview(self._buffer)[: BUFFER_BYTES if self._pipe is None else _TLS_PIECE_BYTES]
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
        """Send from the page cache what was checksummed; None: go on."""
        if body.checksum is None:
            self._checked = self._size
        elif self._checked <= self._offset:
            if self._buffer is None:
                self._buffer = self._borrow()
            count = self._read(body, memoryview(self._buffer)[:_CHECKED_BYTES], self._checked)
            if count is None:
                return Progress.COLD
            self._checked += count
        try:
            sent = os.sendfile(self._sock.fileno(), body.fd, body.start + self._offset, self._checked - self._offset)
        except BlockingIOError:
            return Progress.FULL
        except OSError as error:
            if error.errno not in _NO_SENDFILE:
                raise
            # A file system without it. What was checksummed already is not checksummed again.
            self._may_sendfile = False
            assert self._buffer is not None
            self._ready(memoryview(self._buffer)[: self._checked - self._offset])
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
