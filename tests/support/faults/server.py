"""The fault server: a `WireServer` whose one script serves objects, or passes requests on, by a plan of faults."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Mapping
from types import TracebackType

from tests.support.faults.exchange import Backend, Exchange
from tests.support.faults.fault import Fault
from tests.support.faults.plan import ConnectionFault, Plan
from tests.support.faults.store import ObjectStore
from tests.support.faults.upstream import Upstream
from tests.support.wire.certificates import Certificates
from tests.support.wire.server import Wire, WireServer

__all__ = ["FaultServer", "bad_certificates", "go_through"]


class FaultServer(WireServer):
    """Use it as an async context manager.

    Args:
        plan: What goes wrong; None: nothing.
        store: Its objects; None: an empty store in memory.
        upstream: URL of the server it passes requests on to; None: it answers from the store.
        tls: What it speaks when nothing is wrong.
        bad: What it speaks to connections that are to meet a bad certificate; see `bad_certificates`.
        port: Where to listen; 0: a free one.
        keeps_requests: Whether every request is kept in ``requests``, with its body.

    Attributes:
        plan: May be replaced while it runs.
        store: Its objects.
        requests: Every request, in order.
    """

    def __init__(
        self,
        plan: Plan | None = None,
        *,
        store: ObjectStore | None = None,
        upstream: str | None = None,
        tls: ssl.SSLContext | None = None,
        bad: Mapping[ConnectionFault, ssl.SSLContext] | None = None,
        port: int = 0,
        keeps_requests: bool = True,
    ) -> None:
        super().__init__(self.serve, tls=tls, port=port, keeps_requests=keeps_requests)
        self.plan = Plan() if plan is None else plan
        self.store = ObjectStore() if store is None else store
        self._upstream = None if upstream is None else Upstream(upstream)
        self._backend: Backend = self.store if self._upstream is None else self._upstream
        self._bad = bad or {}

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(exc_type, exc, traceback)
        finally:
            if self._upstream is not None:
                await self._upstream.aclose()

    async def admit(self, number: int, sock: socket.socket) -> ssl.SSLContext | None:
        """Let the plan decide what becomes of a connection."""
        fault = self.plan.next_connection(number)
        if fault is None:
            return self._tls
        if fault in self._bad:
            return self._bad[fault]
        loop = asyncio.get_running_loop()
        if fault == "silent":
            while await loop.sock_recv(sock, 64 * 1024):
                await asyncio.sleep(0)
        elif fault == "cut":
            await loop.sock_recv(sock, 1)
        elif fault != "refuse":
            raise ValueError(f"no certificate was given that is {fault}")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise ConnectionResetError

    async def serve(self, wire: Wire) -> None:
        """Serve one connection."""
        while True:
            seen = await wire.head()
            exchange = Exchange(wire, seen, self._backend, self.plan.random)
            await go_through(exchange, self.plan.next_for(seen))
            assert exchange.answer is not None
            if exchange.answer.closes or seen.headers.get("connection", "").lower() == "close":
                return


async def go_through(exchange: Exchange, fault: Fault) -> None:
    """Answer one request, the way that *fault* wants."""
    await fault.on_head(exchange)
    if exchange.answer is None:
        await exchange.read()
        await fault.on_body(exchange)
        await exchange.ask()
        await fault.on_answer(exchange)
    await fault.send(exchange)


def bad_certificates(certificates: Certificates) -> dict[ConnectionFault, ssl.SSLContext]:
    """Return what servers speak whose certificate is no good, for a client that trusts *certificates*."""
    return {
        "expired": certificates.server(is_expired=True),
        "wrong_host": certificates.server("elsewhere.invalid"),
        "self_signed": certificates.stranger(),
    }
