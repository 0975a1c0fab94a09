"""What an entity knows of its client."""

from __future__ import annotations

from typing import Protocol, TypeVar

from asyncsdk.config import Settings
from asyncsdk.engine import Engine
from asyncsdk.protocol.base import Message

__all__ = ["Session"]

R = TypeVar("R")


class Session(Protocol):
    """Sends messages and moves bytes for entities; the client is one."""

    @property
    def engine(self) -> Engine:
        """The engine that moves the client's bytes."""

    @property
    def settings(self) -> Settings:
        """The settings in force."""

    async def send(self, message: Message[R]) -> R:
        """Return the platform's reply to *message*; raises as `Platform.send`."""
