"""A relay that at some moment swallows what comes over the connections it has, as a gateway does that forgot them."""

from __future__ import annotations

from tests.support.faults.fault import Direction
from tests.support.faults.relay import Relay

__all__ = ["SwallowingRelay"]


class SwallowingRelay(Relay):
    """Use it as an async context manager.

    Args:
        port: Of the server on loopback that it leads to.

    Attributes:
        swallowed: Bytes that went nowhere.
    """

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._cut = 0
        self.swallowed = 0

    def cut(self) -> None:
        """Let nothing through any more on the connections that there are; those to come are as good as ever."""
        self._cut = self.connections

    def through(self, data: bytes, direction: Direction, number: int) -> bytes:
        """Return *data*, or nothing on a connection that was cut."""
        if number > self._cut:
            return data
        self.swallowed += len(data)
        return b""
