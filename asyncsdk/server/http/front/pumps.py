"""Large bodies between socket and file: steps of work for threads of a pool.

A step moves bytes for as long as the other side keeps up. When the socket has nothing for it, or takes nothing,
for a moment, or little comes at a time, the step ends and says what to wait for: a slow client holds no thread, a fast
one costs no trip through the event loop. Every call in here that takes long (receiving, checksums, writing,
``sendfile``) lets other threads run.
Memory: one batch.

The socket is non-blocking and the loop's; while a step runs, nobody else touches it.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Sequence
from enum import Enum
from time import perf_counter
from typing import Generic, Protocol, TypeVar

from asyncsdk.server.http.bodies import ClientGone
from asyncsdk.server.http.front.objects import Found, Put, Taker
from asyncsdk.server.http.replies import Reply

__all__ = ["Call", "Pump", "ReceivePump", "SendPump", "Step"]

RECEIVE_BYTES = 120 * 1024
"""Received at once. Objects of 128 KiB and more come fresh from the kernel each time: ten times the page faults."""

BATCH_BYTES = 512 * 1024
"""Written at once: a part takes and leaves its lock for each batch. Two of them fill a core's cache."""

SEND_BYTES = 4 * 1024 * 1024
"""Given to ``sendfile`` at once."""

TURN_SECONDS = 0.05
"""Length of one step, then others that wait for a thread come first."""

GRACE_MS = 10.0
"""How long a thread waits for the client before it gives the socket back: more than most gaps on a fast link, and
three trips through the loop for it would cost a twentieth of that."""

EARNING_BYTES = 4096
"""Bytes that earn a millisecond of waiting: who is slower than 4 MiB/s is waited for in the loop, not in a thread."""


T = TypeVar("T")


class Step(Enum):
    """Why a step ended."""

    DONE = "done"
    READABLE = "wait until the client has sent more"
    WRITABLE = "wait until the client takes more"
    AGAIN = "others first"


class Pump(Protocol):
    """Work in steps, each in some thread of the pool."""

    @property
    def moved(self) -> int:
        """Bytes moved so far."""

    def step(self) -> Step:
        """Work until there is a reason to stop. Whatever it raises, `discard` has been done then."""

    def discard(self) -> None:
        """Close what is open and leave nothing half-done behind; does nothing the second time. Blocking."""


class Call(Generic[T]):
    """One function that blocks, called in a thread for what it returns.

    Args:
        function: Called once.
        discard: Given what it returned when nobody takes that.
    """

    moved = 0

    def __init__(self, function: Callable[[], T], discard: Callable[[T], None] | None = None) -> None:
        self._function = function
        self._discard = discard
        self._results: list[T] = []

    def step(self) -> Step:
        self._results.append(self._function())
        return Step.DONE

    def take(self) -> T:
        """Return the result, which is the caller's from now on."""
        return self._results.pop()

    def discard(self) -> None:
        if self._results and self._discard is not None:
            self._discard(self._results.pop())


class _Patience:
    """How long steps may still wait for one client. It has to earn that, once the first grace is used up: a byte every
    few milliseconds would otherwise hold a thread for as long as somebody likes to send bytes.
    """

    __slots__ = ("_left_ms", "_poll")

    def __init__(self, connection: socket.socket, events: int) -> None:
        self._poll = select.poll()
        self._poll.register(connection.fileno(), events)
        self._left_ms = GRACE_MS

    def earn(self, size_bytes: int) -> None:
        """Count bytes that were moved."""
        self._left_ms = min(GRACE_MS, self._left_ms + size_bytes / EARNING_BYTES)

    def wait(self) -> bool:
        """Wait for the socket; False when it is not ready in time."""
        if self._left_ms <= 0:
            return False
        started = perf_counter()
        is_ready = bool(self._poll.poll(self._left_ms))
        self._left_ms -= 1000 * (perf_counter() - started)
        return is_ready


class ReceivePump:
    """Takes the body of a PUT from the socket.

    Args:
        connection: The client's socket.
        put: What takes the bytes.
        first: Bytes of the body that came with the head.
    """

    def __init__(self, connection: socket.socket, put: Put, first: bytes) -> None:
        self._connection = connection
        self._put = put
        self._taker: Taker | None = None
        self._answer: Callable[[object], Reply] | None = None
        self._batch: list[bytes] = [first] if first else []
        self._batched = len(first)
        self.reply = Reply(500)  # until it is finished
        self.moved = len(first)
        self._patience = _Patience(connection, select.POLLIN)

    @property
    def left(self) -> int:
        """Bytes of the body that have not come yet."""
        return self._put.size_bytes - self.moved

    def step(self) -> Step:
        try:
            if self._taker is None:
                self._taker, self._answer = self._put.begin()
            step = self._receive(self._taker)
            if step is Step.DONE:
                assert self._answer is not None
                self.reply = self._answer(self._taker.finish())
                self.discard()
        except BaseException:  # nothing stays open or half written, whatever ended it; raised again
            self.discard()
            raise
        return step

    def _receive(self, taker: Taker) -> Step:
        turn = perf_counter() + TURN_SECONDS
        receive = self._connection.recv
        while left := self.left:
            try:
                data = receive(min(RECEIVE_BYTES, left))
            except (BlockingIOError, InterruptedError):
                self._write(taker)  # nothing comes this moment: time to write
                if not self._patience.wait():
                    return Step.READABLE
                if perf_counter() >= turn:
                    return Step.AGAIN
                continue
            except OSError as error:
                raise ClientGone from error
            if not data:
                raise ClientGone
            self.moved += len(data)
            self._batch.append(data)
            self._batched += len(data)
            if self._batched >= BATCH_BYTES:
                self._write(taker)
                if self.left and perf_counter() >= turn:
                    return Step.AGAIN
        self._write(taker)
        return Step.DONE

    def _write(self, taker: Taker) -> None:
        if self._batch:
            batch: Sequence[bytes] = self._batch
            self._patience.earn(self._batched)
            self._batch, self._batched = [], 0
            taker.write(batch)

    def discard(self) -> None:
        taker, self._taker = self._taker, None
        self._batch = []
        if taker is not None:
            taker.discard()


class SendPump:
    """Sends a file's bytes, straight from the page cache.

    Args:
        connection: The client's socket.
        head: Sent before them.
        found: The open file and which bytes of it; closed by `discard`.
    """

    def __init__(self, connection: socket.socket, head: bytes, found: Found) -> None:
        self._connection = connection
        self._head = memoryview(head)
        self._descriptor = found.descriptor
        self._at = found.start
        self._stop = found.stop
        self.moved = 0
        self._patience = _Patience(connection, select.POLLOUT)

    def step(self) -> Step:
        try:
            step = self._send()
        except BaseException:  # nothing stays open or half written, whatever ended it; raised again
            self.discard()
            raise
        if step is Step.DONE:
            self.discard()
        return step

    def _send(self) -> Step:
        turn = perf_counter() + TURN_SECONDS
        target = self._connection.fileno()
        while self._at < self._stop:
            try:
                if self._head:
                    sent = self._connection.send(self._head, socket.MSG_MORE)
                    self._head = self._head[sent:]
                    continue
                sent = os.sendfile(target, self._descriptor, self._at, min(SEND_BYTES, self._stop - self._at))
            except (BlockingIOError, InterruptedError):
                if not self._patience.wait():
                    return Step.WRITABLE
                if perf_counter() >= turn:
                    return Step.AGAIN
                continue
            except (ConnectionError, TimeoutError) as error:
                raise ClientGone from error
            if not sent:
                raise OSError("the file of an object is shorter than it was")
            self._at += sent
            self.moved += sent
            self._patience.earn(sent)
            if self._at < self._stop and perf_counter() >= turn:
                return Step.AGAIN
        return Step.DONE

    def discard(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
