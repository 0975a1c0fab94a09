"""What is known of one server: whether it answers, and what it asked for."""

from __future__ import annotations

import asyncio

from asyncsdk.engine.lanes import LaneName

__all__ = ["Origin"]


class Origin:
    """What is known of one server.

    Attributes:
        hold_until: Nothing is sent to it before: it asked for that.
        closed_until: Nothing is sent to it before, and nobody waits for that: it asked for too long a pause.
        failures: Requests that failed in a row.
        failing_since: When the first of them did.
        unnamed: Those among them that may not be the fault of one object.
        suspects: The objects of the others, small and large; no more than it takes.
        was_reached: Whether it ever answered.
        given_up: Objects given up because it never did.
        opened_at: Since when it counts as out; None: it does not, the circuit is closed.
        next_try: While it is out, one request may be sent from then on.
        pause_seconds: How long after that one the next may be.
        asked_at: When somebody last wanted something of it.
        last_words: How the latest request failed.
        news: Set when it works again; None: nobody waits for that.
    """

    __slots__ = (
        "asked_at",
        "closed_until",
        "failing_since",
        "failures",
        "given_up",
        "hold_until",
        "last_words",
        "news",
        "next_try",
        "opened_at",
        "pause_seconds",
        "suspects",
        "unnamed",
        "was_reached",
    )

    def __init__(self) -> None:
        self.hold_until = 0.0
        self.closed_until = 0.0
        self.failures = 0
        self.was_reached = False
        self.failing_since = 0.0
        self.unnamed = 0
        self.suspects: dict[LaneName, set[int]] = {"small": set(), "part": set()}
        self.given_up = 0
        self.opened_at: float | None = None
        self.next_try = 0.0
        self.pause_seconds = 0.0
        self.asked_at = 0.0
        self.last_words = ""
        self.news: asyncio.Event | None = None
