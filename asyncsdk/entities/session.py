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

    async def ensure_worker(self, kind: str, *, start: bool = True) -> bool:
        """Let jobs of a kind be done in this process, when the platform is in it; does nothing elsewhere.

        A worker that runs for the kind is told to look for jobs at once.

        Args:
            kind: Kind of the jobs.
            start: Whether to start a worker when none runs; it ends with the client.

        Returns:
            Whether one runs now.

        Raises:
            RunnerUnavailable: What does such jobs is not installed, or something that it needs is not.
        """

    async def send(self, message: Message[R]) -> R:
        """Return the platform's reply to *message*; raises as `Platform.send`."""
