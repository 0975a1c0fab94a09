"""One request under way, and who is told how it ended."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from asyncsdk.transport.base import Reply, Request, reset_checksum
from asyncsdk.transport.urls import Address

if TYPE_CHECKING:
    from asyncsdk.transport.lean.connection import Connection

__all__ = ["Exchange", "Waiter"]


class Exchange(ABC):
    """A request, from `LeanTransport.begin` until one of ``succeed`` and ``fail`` is called, once, by the event loop.

    Neither may raise. Both may begin the next exchange: that is how a connection pulls its work without a task.

    Attributes:
        request: What is sent.
        address: Where to; set by the transport.
        target: As it goes on the request line; set by the transport.
        connection: Who carries it now; None while it has none.
        connecting: The task that gets it one, if there is one.
        thread: The thread that uses its file or sink now, if one does. It is told nothing before that is through.
        reported: Body bytes of this attempt that ``on_sent`` was told of.
        is_repeated: It was begun again, because a kept connection turned out to be dead.
    """

    __slots__ = (
        "_ending",
        "address",
        "connecting",
        "connection",
        "is_repeated",
        "reported",
        "request",
        "target",
        "thread",
    )

    address: Address
    target: bytes

    def __init__(self, request: Request) -> None:
        self.request = request
        self.connection: Connection | None = None
        self.connecting: asyncio.Task[None] | None = None
        self.thread: asyncio.Future[None] | None = None
        self._ending: Callable[[], None] | None = None
        self.reported = 0
        self.is_repeated = False

    @abstractmethod
    def succeed(self, reply: Reply) -> None:
        """The reply is whole; it may be a refusal."""

    @abstractmethod
    def fail(self, error: Exception) -> None:
        """There will be no reply."""

    @property
    def may_be_repeated(self) -> bool:
        """Whether it may be begun again, should the connection turn out to be dead."""
        return self.request.is_repeatable and not self.is_repeated

    def end(self, tell: Callable[[], None]) -> None:
        """Call *tell* as soon as no thread uses the file or sink: whoever is told closes it."""
        if self.thread is None:
            tell()
        else:
            self._ending = tell

    def forget_ending(self) -> None:
        """Tell nobody how it ends."""
        self._ending = None

    def leave_to(self, thread: asyncio.Future[None], then: Callable[[BaseException | None], None]) -> None:
        """Let *thread* use the file or sink; *then* gets its error, if there is one."""
        self.thread = thread

        def done(thread: asyncio.Future[None]) -> None:
            self.thread = None
            then(thread.exception())
            ending = self._ending
            if ending is not None and not self._is_in_use():  # `then` may have begun with another thread
                self._ending = None
                ending()

        thread.add_done_callback(done)

    def _is_in_use(self) -> bool:
        return self.thread is not None

    def moved(self, size_bytes: int) -> None:
        """Count body bytes that the system took."""
        self.reported += size_bytes
        if self.request.on_sent is not None:
            self.request.on_sent(size_bytes)

    def take_back(self) -> None:
        """Undo what was counted and checksummed: the same body is sent again."""
        if self.reported and self.request.on_sent is not None:
            self.request.on_sent(-self.reported)
        self.reported = 0
        reset_checksum(self.request.body)


class Waiter(Exchange):
    """An exchange that somebody awaits."""

    __slots__ = ("future",)

    def __init__(self, request: Request) -> None:
        super().__init__(request)
        self.future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def succeed(self, reply: Reply) -> None:
        """Wake whoever awaits it."""
        if not self.future.done():
            self.future.set_result(reply)

    def fail(self, error: Exception) -> None:
        """Wake whoever awaits it."""
        if not self.future.done():
            self.future.set_exception(error)
