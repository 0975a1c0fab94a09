"""What a connection does when it may not go on at once: a thread has to read or write first, or there is a limit of
bytes per second and it waits for its turn.

While it waits, its socket is not watched in that direction, so the other side is slowed down by TCP itself; and none of
its deadlines run.
"""

from __future__ import annotations

import asyncio
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncsdk.transport.lean.deadlines import Deadlines
    from asyncsdk.transport.lean.exchange import Exchange
    from asyncsdk.transport.lean.pipe import TlsPipe
    from asyncsdk.transport.lean.replies import ReplyReader
    from asyncsdk.transport.lean.transport import LeanTransport
    from asyncsdk.transport.lean.watching import Watcher
    from asyncsdk.transport.pacing import Turn, Turnstile

__all__ = ["Delayed"]


class Delayed(ABC):
    """The part of a `Connection` that is at work only then."""

    __slots__ = (
        "_is_reading",
        "_loop",
        "_owner",
        "_pipe",
        "_reader",
        "_send_error",
        "_sock",
        "_turn",
        "_turn_since",
        "_unfinished",
        "_view",
        "_watcher",
        "deadlines",
        "exchange",
        "is_closed",
    )

    deadlines: Deadlines
    exchange: Exchange | None
    is_closed: bool
    _is_reading: bool
    _loop: asyncio.AbstractEventLoop
    _owner: LeanTransport
    _pipe: TlsPipe | None
    _reader: ReplyReader
    _send_error: OSError | None
    _sock: socket.socket
    _turn: Turn | None
    _turn_since: float
    _unfinished: bool | None
    _view: memoryview
    _watcher: Watcher

    @abstractmethod
    def _on_readable(self, *, is_its_turn: bool = False) -> bool: ...

    @abstractmethod
    def _read_encrypted(self, pipe: TlsPipe, limit: int = 0) -> bool: ...

    @abstractmethod
    def _decrypt(self, pipe: TlsPipe) -> None: ...

    @abstractmethod
    def _stop_reading(self) -> None: ...

    @abstractmethod
    def _take(self, view: memoryview) -> None: ...

    @abstractmethod
    def _finish(self, exchange: Exchange, *, reusable: bool) -> None: ...

    @abstractmethod
    def _ended(self) -> None: ...

    @abstractmethod
    def _drain_early_reply(self, error: OSError) -> None: ...

    @abstractmethod
    def broken(self, error: OSError) -> None:
        """End what is under way: the system, or TLS, says that the connection is gone."""

    @abstractmethod
    def drop(self, error: Exception) -> None:
        """Close, and let the exchange fail with *error*."""

    # --- threads ---------------------------------------------------------------------------------------------

    def _write_late(self, *, reusable: bool | None) -> None:
        """Let a thread write what a slow sink has to take, and read on afterwards."""
        self._unfinished = reusable
        self._stop_reading()
        self.in_thread(self._reader.write_late, self._written)

    def _written(self) -> None:
        exchange = self.exchange
        assert exchange is not None
        self._is_reading = True
        self._watcher.watch(self._sock.fileno(), self._on_readable)
        self.deadlines.since = now = monotonic()
        if self.deadlines.phase != "body":
            self.deadlines.enter_body(now)
        if self._unfinished is not None:
            self._finish(exchange, reusable=self._unfinished)
        elif self._send_error is not None:
            self._drain_early_reply(self._send_error)
        elif self._pipe is not None:
            self._decrypt(self._pipe)  # the rest may be inside already: the socket would not say so

    def in_thread(self, function: Callable[[], None], then: Callable[[], None]) -> None:
        """Call *function* in a thread, and *then* here, unless the connection was closed meanwhile."""
        exchange = self.exchange
        assert exchange is not None
        if exchange.thread is not None:  # one after the other: file and sink may both be slow
            exchange.thread.add_done_callback(lambda _: None if self.is_closed else self.in_thread(function, then))
            return
        started = monotonic()

        def done(error: BaseException | None) -> None:
            self.deadlines.skip(monotonic() - started)
            if self.is_closed:
                return
            if error is None:
                then()
            else:
                self.drop(error if isinstance(error, Exception) else RuntimeError(str(error)))

        exchange.leave_to(self._owner.in_thread(function), done)

    # --- turns -----------------------------------------------------------------------------------------------

    def _read_paced(self, pace: Turnstile, *, is_its_turn: bool) -> bool:
        """Read a piece of what is limited to so many bytes per second, or wait for the turn to."""
        if not is_its_turn and not pace.passes():
            self._stop_reading()
            self.wait_for_turn(pace, self._read_on)
            return False
        before = self._reader.received
        limit = min(pace.piece_bytes, len(self._view))
        if self._pipe is not None:
            is_more = self._read_encrypted(self._pipe, limit)
            pace.charge(max(0, self._reader.received - before))
            return is_more
        try:
            count = self._sock.recv_into(self._view[:limit])
        except BlockingIOError:
            return False
        except OSError as error:
            self.broken(error)
            return False
        pace.charge(count)
        if count == 0:
            self._ended()
            return False
        self._take(self._view[:count])
        return True

    def wait_for_turn(self, pace: Turnstile, then: Callable[[], None]) -> None:
        """Call *then* when it is the connection's turn to move bytes; it waits for one turn at a time."""
        if self._turn is None:
            self._turn_since = monotonic()
            self._turn = pace.wait(partial(self._turn_came, then))

    def _turn_came(self, then: Callable[[], None]) -> None:
        self._turn = None
        self.deadlines.skip(monotonic() - self._turn_since)  # it was no fault of the other side
        then()

    def _read_on(self) -> None:
        self._is_reading = True
        self._owner.watcher.watch(self._sock.fileno(), self._on_readable)
        if self._pipe is not None and self._owner.received_pace is None:
            self._decrypt(self._pipe)  # the rest may be inside already: the socket would not say so
        else:
            self._on_readable(is_its_turn=True)
