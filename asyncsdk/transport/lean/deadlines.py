"""How long an exchange may stand still, looked at now and then instead of by a timer for each."""

from __future__ import annotations

from typing import Literal

from asyncsdk.errors import RequestTimeout
from asyncsdk.transport.base import Timeouts

__all__ = ["Deadlines", "Phase"]

Phase = Literal["send", "reply", "head", "body"]


_BODIES = frozenset({"send", "body"})


class Deadlines:
    """The clock of one exchange after the other.

    Attributes:
        phase: What is being waited for: room to send, the start of the reply, the rest of its head, or more of its
            body.
        since: When something last moved, by the monotonic clock.
    """

    __slots__ = ("_limits", "_rate_bytes", "_rate_since", "phase", "since")

    def __init__(self, now: float) -> None:
        self.phase: Phase = "send"
        self.since = now
        self._limits = Timeouts()
        self._rate_since = now
        self._rate_bytes = 0

    def begin(self, limits: Timeouts, now: float) -> None:
        """Start with another exchange."""
        self._limits = limits
        self.phase = "send"
        self.since = self._rate_since = now
        self._rate_bytes = 0

    def enter_body(self, now: float) -> None:
        """The head of the reply is there."""
        self.phase = "body"
        self._rate_since, self._rate_bytes = now, 0

    def skip(self, seconds: float) -> None:
        """Leave out of account what a thread took: it is not the other side's doing."""
        self.since += seconds
        self._rate_since += seconds

    def overdue(self, now: float, sent: int, received: int, url: str) -> RequestTimeout | None:
        """Return what to fail with, if it is time to.

        Args:
            now: By the monotonic clock.
            sent: Body bytes sent so far.
            received: Body bytes received so far.
            url: For the error.
        """
        limits, phase = self._limits, self.phase
        limit = limits.reply if phase == "reply" else limits.idle
        if now - self.since >= limit:
            return RequestTimeout("send" if phase == "send" else "reply", limit, url)
        if limits.rate_bytes and phase in _BODIES and now - self._rate_since >= limits.rate_seconds:
            total = sent if phase == "send" else received
            if total - self._rate_bytes < limits.rate_bytes * (now - self._rate_since):
                return RequestTimeout("rate", limits.rate_seconds, url)
            self._rate_since, self._rate_bytes = now, total
        return None
