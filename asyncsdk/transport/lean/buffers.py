"""Buffers that large bodies are sent from: lent to one connection after the other, and drawn from a budget."""

from __future__ import annotations

from asyncsdk.transport.lean.sending import BUFFER_BYTES, LONG_BYTES, PIECE_BYTES
from asyncsdk.transport.memory import Memory

__all__ = ["SPARE_BYTES", "Buffers"]

_SPARE_PIECES = 2
_SPARE_LONG = 4

SPARE_BYTES = _SPARE_PIECES * PIECE_BYTES
"""Kept while nobody has use for them, whatever the budget."""


class Buffers:
    """Lends them.

    A buffer of `PIECE_BYTES` belongs to the memory of the connection that borrows it. A longer one is drawn from the
    budget for as long as it is there; when there is none, the body goes in smaller pieces.

    Attributes:
        memory: What long ones are drawn from.
    """

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self._pieces: list[bytearray] = []
        self._long: list[bytearray] = []

    def borrow(self, size_bytes: int) -> bytearray:
        """Return a buffer for a body of *size_bytes*."""
        if size_bytes >= LONG_BYTES:
            if self._long:
                return self._long.pop()
            if self.memory.take(BUFFER_BYTES):
                return bytearray(BUFFER_BYTES)
        return self._pieces.pop() if self._pieces else bytearray(PIECE_BYTES)

    def lend_back(self, buffer: bytearray) -> None:
        """Take one back; a few are kept."""
        if len(buffer) == PIECE_BYTES:
            if len(self._pieces) < _SPARE_PIECES:
                self._pieces.append(buffer)
        elif len(self._long) < _SPARE_LONG and not self.memory.is_squeezed:
            self._long.append(buffer)
        else:
            self.memory.give_back(BUFFER_BYTES)

    def drop_spare(self) -> bool:
        """Give back what one long buffer holds that nobody uses; False: there is none."""
        if not self._long:
            return False
        self._long.pop()
        self.memory.give_back(BUFFER_BYTES)
        return True
