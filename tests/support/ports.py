"""Ports that a test keeps for itself while the server behind them is away."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["held_port"]


@contextmanager
def held_port() -> Iterator[int]:
    """Give a loopback port at which a server can be started, killed and started again, as long as the block lasts.

    A port that nobody has is given to whoever asks next: another test, or a client of the dead server, whose own end
    may get that very number, so that it is connected with itself and the port is taken. Here a socket that does not
    listen holds it: connections are refused, nobody is given it, and a server (which reuses addresses) may listen.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
