"""A relay below HTTP: bytes pass both ways as they come, but single bits flip, in heads as well as in bodies.

TCP's own checksum lets about one in 65,536 damaged segments through; this is what they look like to a client.
"""

from __future__ import annotations

import random

from tests.support.faults.fault import Direction
from tests.support.faults.relay import Relay

__all__ = ["FlippingRelay"]


class FlippingRelay(Relay):
    """Use it as an async context manager.

    Args:
        port: Of the server on loopback that it leads to.
        direction: Whose bytes are damaged: what the client sends, or what it receives.
        every_bytes: How many bytes pass between two flips, on average.
        seed: Of chance.

    Attributes:
        flips: How many bits it flipped.
    """

    def __init__(self, port: int, *, direction: Direction, every_bytes: int, seed: int = 0) -> None:
        super().__init__(port)
        self._direction = direction
        self._every_bytes = every_bytes
        self._random = random.Random(seed)
        self._left: dict[int, int] = {}
        self.flips = 0

    def through(self, data: bytes, direction: Direction, number: int) -> bytes:
        """Return *data* with what chance does to it."""
        if direction != self._direction:
            return data
        left = self._left.pop(number, None)
        if left is None:
            left = self._next()
        if left < len(data):
            changed = bytearray(data)
            while left < len(changed):
                changed[left] ^= 1 << self._random.randrange(8)
                self.flips += 1
                left += 1 + self._next()
            data = bytes(changed)
        self._left[number] = left - len(data)
        return data

    def _next(self) -> int:
        return int(self._random.expovariate(1 / self._every_bytes))
