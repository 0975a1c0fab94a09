"""What all connections of one front share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from asyncsdk.server.http.front.handover import Application
from asyncsdk.server.http.front.objects import ObjectBytes
from asyncsdk.server.http.front.pace import FilePace
from asyncsdk.server.http.front.rendering import DateLine

__all__ = ["Limits", "Member", "Shared"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How long clients may take, in seconds, and how many there may be.

    Args:
        head_seconds: From accepting a connection, or from the last reply, until the next head is whole.
        idle_seconds: Without a byte of a body, or without taking a byte of a reply.
        linger_seconds: For reading over what is still on the way after the last reply.
        bytes_per_second: A body must come, and a reply be taken, this fast on average, after the first *idle_seconds*.
        connections: How many there are at most. Then those that wait for a request longest make room for new ones; when
            all are busy, new ones wait to be accepted.
    """

    head_seconds: float = 90.0
    idle_seconds: float = 60.0
    linger_seconds: float = 5.0
    bytes_per_second: int = 1024
    connections: int = 10_000


class Member(Protocol):
    """A connection, as whoever keeps them all sees it."""

    @property
    def due(self) -> float:
        """When `expire` is to be called, by the shared clock."""

    def expire(self) -> None:
        """End what has taken too long."""

    def retire(self) -> None:
        """Close when nothing is under way, else after the present reply."""

    def break_off(self) -> None:
        """Close at once."""


@dataclass(slots=True, eq=False)
class Shared:
    """What all connections of one front share.

    Attributes:
        loop: The event loop; everything but pumps happens in it.
        application: Answers what is not about bytes of objects.
        objects: Answers what is.
        pool: Threads for files.
        limits: How long clients may take.
        connections: Those that are open.
        tasks: Requests in the application's hands.
        is_closing: Whether the server is shutting down: replies end their connection.
    """

    loop: asyncio.AbstractEventLoop
    application: Application
    objects: ObjectBytes
    pool: ThreadPoolExecutor
    limits: Limits
    server_address: tuple[Any, ...] | None = None
    connections: set[Member] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    is_closing: bool = False
    pace: FilePace = field(default_factory=FilePace)
    date: DateLine = field(default_factory=DateLine)
    now: Callable[[], float] = time.monotonic

    @property
    def is_idle(self) -> bool:
        """Whether no connection is open and nothing is under way."""
        return not (self.connections or self.tasks)
