"""A TCP connection to a host that may have several addresses, some of them dead.

All state is in one object and all of its cleanup is synchronous: there is no task that could be left behind, and a
cancellation finds every socket.

Source: RFC 8305 (happy eyeballs), sections 4 and 5; RFC 6724 for the order within a family, which the resolver knows.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import socket
from collections.abc import Iterable
from itertools import chain, zip_longest
from typing import Any

__all__ = ["ATTEMPT_DELAY_SECONDS", "open_connection"]

ATTEMPT_DELAY_SECONDS = 0.25
"""How long one address is tried alone before the next is tried beside it; what RFC 8305 recommends."""

Target = tuple[int, int, int, Any]
"""Family, kind, protocol and address of a socket."""

_UNDER_WAY = {0, errno.EINPROGRESS, errno.EINTR}
"""Not EAGAIN: to TCP it means that no local port is free."""

_LITTLE_SAID = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}
"""What a host without IPv6 says of every IPv6 address; why the others failed says more."""


async def open_connection(host: str, port: int) -> socket.socket:
    """Return a connected, non-blocking socket that sends without delay (``TCP_NODELAY``).

    The families take turns; an address that does not answer within 250 ms gets company, one that fails is followed at
    once. The first to connect wins, the others are closed. The name is looked up in a thread.

    Args:
        host: Name or IP address; an IP address is not looked up.
        port: Its port.

    Raises:
        OSError: The name is not known, or no address could be connected to: the most telling reason.
        UnicodeError: No name server takes that name.
    """
    targets = _literal(host, port)
    if targets is None:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        targets = _interleaved((family, kind, protocol, address) for family, kind, protocol, _, address in found)
    return await _Race(targets).winner()


def _literal(host: str, port: int) -> list[Target] | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if address.version == 4:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, (host, port))]
    # One with a zone needs the number of the interface, which the resolver knows.
    return None if "%" in host else [(socket.AF_INET6, socket.SOCK_STREAM, 0, (host, port, 0, 0))]


def _interleaved(targets: Iterable[Target]) -> list[Target]:
    """Return *targets* with the families in turn, that of the first one first."""
    families: dict[int, list[Target]] = {}
    for target in dict.fromkeys(targets):
        families.setdefault(target[0], []).append(target)
    return [target for target in chain.from_iterable(zip_longest(*families.values())) if target is not None]


class _Race:
    """Attempts to connect, beside each other."""

    def __init__(self, targets: list[Target]) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting = targets[::-1]
        self._running: dict[int, socket.socket] = {}
        self._errors: list[OSError] = []
        self._timer: asyncio.TimerHandle | None = None
        self._won: asyncio.Future[socket.socket] = self._loop.create_future()

    async def winner(self) -> socket.socket:
        self._try_next()
        try:
            return await self._won
        except asyncio.CancelledError:
            if self._won.done() and not self._won.cancelled() and self._won.exception() is None:
                self._won.result().close()  # it won in the very turn in which nobody wanted it any more
            raise
        finally:
            self._stop()

    def _try_next(self) -> None:
        """Begin with the next address; set the clock for the one after it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and not self._won.done():
            try:
                self._begin(self._waiting.pop())
            except OSError as error:
                self._errors.append(error)
                continue
            if self._waiting and not self._won.done():
                self._timer = self._loop.call_later(ATTEMPT_DELAY_SECONDS, self._try_next)
            return
        if not self._running and not self._won.done():
            self._won.set_exception(_most_telling(self._errors))

    def _begin(self, target: Target) -> None:
        family, kind, protocol, address = target
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = sock.connect_ex(address)
            if number not in _UNDER_WAY:
                raise OSError(number, os.strerror(number))
            self._loop.add_writer(sock.fileno(), self._ready, sock)
        except BaseException:  # nobody else knows of the socket yet; raised again
            sock.close()
            raise
        self._running[sock.fileno()] = sock

    def _ready(self, sock: socket.socket) -> None:
        """The system is done with *sock*, one way or the other."""
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._loop.remove_writer(sock.fileno())
        del self._running[sock.fileno()]
        if not number and not self._won.done():
            self._won.set_result(sock)
            return
        sock.close()
        if number:
            self._errors.append(OSError(number, os.strerror(number)))
            self._try_next()

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number, sock in self._running.items():
            self._loop.remove_writer(number)
            sock.close()
        self._running.clear()


def _most_telling(errors: list[OSError]) -> OSError:
    if not errors:
        return OSError(errno.EADDRNOTAVAIL, "the name has no address")
    return next((error for error in errors if error.errno not in _LITTLE_SAID), errors[-1])
