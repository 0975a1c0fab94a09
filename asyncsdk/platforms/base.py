"""The seam to whoever answers messages."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from asyncsdk.protocol.base import Message

__all__ = ["Platform"]

R = TypeVar("R")


class Platform(Protocol):
    """Answers messages. A platform *has* an operation when it handles its message."""

    name: str
    """What it is called in errors, e.g. ``embedded`` or ``rest``."""

    async def send(self, message: Message[R]) -> R:
        """Return the reply.

        Raises:
            UnsupportedOperation: The platform does not have the operation.
            ResponseError: It refused; the subclass says why.
            RequestError: It did not answer. Messages that are safe to repeat were repeated before.
        """

    def supports(self, message_type: type[Message[Any]]) -> bool:
        """Whether the platform has the operation."""

    async def aclose(self) -> None:
        """Release what it holds. Calling it again does nothing."""
