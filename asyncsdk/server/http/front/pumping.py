"""Running a pump: a step in a thread, then waiting in the loop, until it is done."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import Future

from asyncsdk.server.http.front.pumps import Pump, Step
from asyncsdk.server.http.front.shared import Shared
from asyncsdk.server.http.front.stream import NEVER

__all__ = ["PumpRun"]


class PumpRun:
    """Runs one pump on one socket. Everything here happens in the loop, but for the steps.

    Args:
        shared: Loop, pool and limits.
        connection: The socket; nobody else may read or write it until *ended* is called.
        pump: The work.
        ended: Called once, in the loop, when no thread uses the socket any more: with None when the pump is done, else
            with what ended it.

    Attributes:
        expires: When what is waited for comes too late, by the shared clock.
    """

    __slots__ = (
        "_cancelled",
        "_connection",
        "_ended",
        "_is_in_thread",
        "_pump",
        "_shared",
        "_since",
        "_waits",
        "expires",
    )

    def __init__(
        self,
        shared: Shared,
        connection: socket.socket,
        pump: Pump,
        ended: Callable[[BaseException | None], None],
    ) -> None:
        self._shared = shared
        self._connection = connection
        self._pump = pump
        self._ended = ended
        self._cancelled: BaseException | None = None
        self._is_in_thread = False
        self._waits: Step | None = None
        self._since = shared.now()
        self.expires = NEVER

    def start(self) -> None:
        """Begin."""
        self._submit(self._pump.step)

    def cancel(self, reason: BaseException) -> None:
        """Stop as soon as may be; *ended* is then called with *reason*."""
        if self._cancelled is not None:
            return
        self._cancelled = reason
        if not self._is_in_thread:
            self._stop_waiting()
            self._submit_discard()

    def _submit(self, work: Callable[[], Step]) -> None:
        self._is_in_thread = True
        self.expires = NEVER
        future = self._shared.pool.submit(work)
        future.add_done_callback(lambda done: self._shared.loop.call_soon_threadsafe(self._stepped, done))

    def _stepped(self, future: Future[Step]) -> None:
        self._is_in_thread = False
        error = future.exception()
        if error is not None:
            self._ended(self._cancelled or error)
        elif self._cancelled is not None:
            self._submit_discard()
        else:
            match future.result():
                case Step.DONE:
                    self._ended(None)
                case Step.AGAIN:
                    self._submit(self._pump.step)
                case waits:
                    self._wait(waits)

    def _submit_discard(self) -> None:
        future = self._shared.pool.submit(self._pump.discard)
        future.add_done_callback(lambda done: self._shared.loop.call_soon_threadsafe(self._discarded, done))

    def _discarded(self, future: Future[None]) -> None:
        self._ended(self._cancelled or future.exception())

    def _wait(self, step: Step) -> None:
        self._waits = step
        limits = self._shared.limits
        self.expires = min(
            self._shared.now() + limits.idle_seconds,
            self._since + limits.idle_seconds + self._pump.moved / limits.bytes_per_second,
        )
        if step is Step.READABLE:
            self._shared.loop.add_reader(self._connection, self._go_on)
        else:
            self._shared.loop.add_writer(self._connection, self._go_on)

    def _go_on(self) -> None:
        self._stop_waiting()
        self._submit(self._pump.step)

    def _stop_waiting(self) -> None:
        if self._waits is Step.READABLE:
            self._shared.loop.remove_reader(self._connection)
        elif self._waits is Step.WRITABLE:
            self._shared.loop.remove_writer(self._connection)
        self._waits = None
