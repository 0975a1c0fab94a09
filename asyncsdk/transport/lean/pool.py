"""The connections of a transport: those that are idle, how many there may be by the memory they need, and who waits.

While there is memory enough nobody waits, and nothing here is done per request: a connection that is done goes on with
the next one by itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from asyncsdk.transport.lean.buffers import Buffers
from asyncsdk.transport.memory import Memory, Unbounded

if TYPE_CHECKING:
    from asyncsdk.transport.lean.connection import Connection
    from asyncsdk.transport.lean.exchange import Exchange
    from asyncsdk.transport.urls import Address

__all__ = ["Pool"]


class Pool:
    """Keeps them.

    Args:
        max_idle: Connections kept open while nobody uses them.
        memory_of: How much one to an address needs.
        open_one: Begins to make one for an exchange, and says `made` or `not_made`, with the memory that is its own.
        start: Begins an exchange on a connection.

    Attributes:
        connections: All that are open.
        waiting: Who waits for one, the longest first.
        is_short: Somebody waits for memory: a connection that is done is not gone on with, but given back.
        memory: What connections draw on.
        buffers: What large bodies are sent from.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        max_idle: int,
        memory_of: Callable[[Address], int],
        open_one: Callable[[Exchange, int], None],
        start: Callable[[Connection, Exchange], None],
    ) -> None:
        self._loop = loop
        self._max_idle = max_idle
        self._memory_of = memory_of
        self._open_one = open_one
        self._start = start
        self._idle: dict[Address, list[Connection]] = {}
        self._idle_count = 0
        self._opening = 0
        self._is_serving = False
        self._is_closed = False
        self.connections: set[Connection] = set()
        self.waiting: deque[Exchange] = deque()
        self.is_short = False
        self.memory: Memory = Unbounded()
        self.buffers = Buffers(self.memory)

    def draw_on(self, memory: Memory, own_bytes: int, least_bytes: int) -> None:
        """Hold connections to *memory*, if there is none yet.

        Args:
            own_bytes: What the transport holds besides.
            least_bytes: What it cannot do without, its first connection included.
        """
        if not isinstance(self.memory, Unbounded) or self.connections or self._opening or self._is_closed:
            return
        self.memory = self.buffers.memory = memory
        memory.begin(least_bytes, self._memory_changed)
        memory.take(own_bytes, is_needed=True)

    # --- idle ones -------------------------------------------------------------------------------------------

    def take_idle(self, address: Address) -> Connection | None:
        """Return one to *address* that nobody uses, the one used last; None: there is none."""
        idle = self._idle.get(address)
        # One that waited may have been told something that the event loop has not come to yet: its goodbye, or what
        # would be taken for the reply to this request.
        while idle and not idle[-1].link.is_quiet():
            idle[-1].close()  # takes itself from the list
        if not idle:
            return None
        self._idle_count -= 1
        return idle.pop()

    def give_back(self, connection: Connection) -> None:
        """Keep *connection* for the next request."""
        if self._is_closed or self.memory.is_squeezed:
            connection.close()
            return
        connection.deadlines.since = monotonic()
        self._idle.setdefault(connection.address, []).append(connection)
        self._idle_count += 1
        if self._idle_count > self._max_idle:
            self._close_longest_idle()
        if self.waiting:
            self._serve_soon()

    def drop_idle(self, address: Address, since: float) -> None:
        """Close those to *address* that nobody has used since then: one beside them has just been found dead.

        What cut that one off (a gateway that forgot it) may have cut them off too, and each would cost as long a wait.
        Those that were used later have shown that they work.

        Args:
            since: By the monotonic clock.
        """
        for connection in list(self._idle.get(address, ())):
            if connection.deadlines.since <= since:
                connection.close()  # takes itself from the list

    def forget(self, connection: Connection) -> None:
        """Count *connection*, which is closed now, no longer."""
        self.connections.discard(connection)
        idle = self._idle.get(connection.address)
        if idle is not None:
            if connection in idle:
                idle.remove(connection)
                self._idle_count -= 1
            if not idle:
                del self._idle[connection.address]
        self._free(connection.memory_bytes)
        connection.memory_bytes = 0

    def _close_longest_idle(self) -> None:
        min(
            (idle[0] for idle in self._idle.values() if idle), key=lambda connection: connection.deadlines.since
        ).close()

    # --- new ones --------------------------------------------------------------------------------------------

    def ask(self, exchange: Exchange) -> None:
        """Have a connection made for *exchange*, or let it wait until there may be one."""
        memory_bytes = 0 if self.waiting else self._admit(exchange.address)
        if memory_bytes:
            self._opening += 1
            self._open_one(exchange, memory_bytes)
        else:
            self.waiting.append(exchange)
            self.is_short = True

    def made(self, connection: Connection, memory_bytes: int) -> None:
        """Count *connection*, which was made with *memory_bytes*."""
        self._opening -= 1
        self.connections.add(connection)
        connection.memory_bytes = memory_bytes

    def not_made(self, memory_bytes: int) -> None:
        """There is no connection after all."""
        self._opening -= 1
        self._free(memory_bytes)

    def forsake(self, exchange: Exchange) -> None:
        """Let *exchange* wait no longer, if it does."""
        if self.waiting and exchange in self.waiting:
            self.waiting.remove(exchange)
            self._look()

    def close(self) -> list[Exchange]:
        """Open no more. Returns who waited for one."""
        self._is_closed = True
        left = list(self.waiting)
        self.waiting.clear()
        return left

    def _admit(self, address: Address) -> int:
        """Take memory for a connection to *address*, from what nobody uses if need be; 0: there is none now."""
        size = self._memory_of(address)
        while not self.memory.take(size, is_needed=not self.connections and not self._opening):
            if not self._drop_spare():
                return 0
        return size

    def _drop_spare(self) -> bool:
        """Give some memory back that nobody uses; False: there is none."""
        if self._idle_count:
            self._close_longest_idle()
            return True
        return self.buffers.drop_spare()

    # --- who waits -------------------------------------------------------------------------------------------

    def _free(self, memory_bytes: int) -> None:
        self.memory.give_back(memory_bytes)
        if self.waiting:
            self._serve_soon()

    def _look(self) -> None:
        self.is_short = bool(self.waiting) or self.memory.is_squeezed

    def _memory_changed(self) -> None:
        while self.memory.is_squeezed and self._drop_spare():
            pass
        self._serve()

    def _serve_soon(self) -> None:
        # Not at once: whoever gives something back is in the middle of something.
        if not self._is_serving and not self._loop.is_closed():
            self._is_serving = True
            self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        """Let those go on who wait, in the order in which they came."""
        self._is_serving = False
        while self.waiting:
            exchange = self.waiting[0]
            connection = self.take_idle(exchange.address)
            memory_bytes = 0 if connection is not None else self._admit(exchange.address)
            if connection is None and not memory_bytes:
                break
            self.waiting.popleft()
            if connection is None:
                self._opening += 1
                self._open_one(exchange, memory_bytes)
                continue
            try:
                self._start(connection, exchange)
            except Exception as error:  # noqa: BLE001  # handed to whoever asked, unchanged
                exchange.fail(error)
        self._look()
