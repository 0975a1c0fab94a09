"""Servers that asked for a pause, or refuse everything: who may be asked again, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from asyncsdk.engine.waits import WaitReason, waiting
from asyncsdk.errors import CircuitOpen

__all__ = ["Origins", "origin_of"]

_SHORTEST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_REFUSALS = frozenset({408, 425, 429})


def origin_of(url: str) -> str:
    """Return scheme, host and port of *url*: what answers or does not."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class _Origin:
    """What is known of one server.

    Attributes:
        hold_until: Nothing is sent to it before.
        refused: Objects given up because of its refusals, since anything went well there.
        open_until: Before, everything for it fails at once; None: the circuit is closed.
        pause_seconds: How long the next such pause is.
    """

    __slots__ = ("hold_until", "open_until", "pause_seconds", "refused")

    def __init__(self) -> None:
        self.hold_until = 0.0
        self.refused = 0
        self.open_until: float | None = None
        self.pause_seconds = _SHORTEST_PAUSE_SECONDS


class Origins:
    """Holds back what is meant for a server that said ``Retry-After``, and fails at once what is meant for one that
    refuses everything.

    The circuit breaker: when *patience* objects in a row were given up because of one server's refusals (429, 5xx),
    whatever is meant for it fails without being sent. After a pause, 1 s at first and twice as long each time up to
    30 s, one object is tried; when that goes well, all is as before.

    Args:
        patience: Objects that must have been given up.
        clock: Seconds, never going back.

    Attributes:
        is_clear: There is nothing to be said of any server: the only thing that is looked at per object.
        waited_seconds: Sum of what was waited for servers that asked for a pause.
    """

    def __init__(self, patience: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience = patience
        self._clock = clock
        self._known: dict[str, _Origin] = {}
        self.is_clear = True
        self.waited_seconds = 0.0

    def hold(self, url: str, seconds: float) -> None:
        """Send nothing to the server of *url* for *seconds*; it asked for that."""
        if seconds > 0:
            origin = self._origin(url)
            origin.hold_until = max(origin.hold_until, self._clock() + seconds)
            self.is_clear = False

    def gave_up(self, url: str) -> None:
        """An object failed for good because the server of *url* refused it again and again, with 429 or 5xx."""
        origin = self._origin(url)
        origin.refused += 1
        self.is_clear = False
        if origin.refused >= self._patience:
            origin.open_until = self._clock() + origin.pause_seconds
            origin.pause_seconds = min(2 * origin.pause_seconds, _LONGEST_PAUSE_SECONDS)

    def answered(self, url: str, status: int) -> None:
        """The server of *url* answered with *status*: any but a refusal (429, 5xx, 408) means that it works."""
        if status < 500 and status not in _REFUSALS:
            self.went_well(url)

    def went_well(self, url: str) -> None:
        """The server of *url* works: it did what it was asked, or said why it never will."""
        origin = self._known.get(origin_of(url))
        if origin is not None and (origin.refused or origin.open_until is not None):
            origin.refused = 0
            origin.open_until = None
            origin.pause_seconds = _SHORTEST_PAUSE_SECONDS
            self._look()

    def held_seconds(self, url: str) -> float:
        """How long nothing may be sent to the server of *url*; 0: it may be asked.

        Raises:
            CircuitOpen: It refuses everything.
        """
        origin = self._known.get(origin_of(url))
        if origin is None:
            return 0.0
        now = self._clock()
        if origin.open_until is not None:
            if now < origin.open_until:
                name = origin_of(url)
                raise CircuitOpen(
                    f"{name}: refused the last {origin.refused} objects, it is left alone for a while", source=name
                )
            origin.open_until = now + origin.pause_seconds  # one is tried; the others still fail
        if now < origin.hold_until:
            return origin.hold_until - now
        self._look()
        return 0.0

    async def wait(self, url: str) -> None:
        """Wait until the server of *url* may be asked.

        Raises:
            CircuitOpen: It refuses everything.
        """
        while seconds := self.held_seconds(url):
            with waiting(WaitReason.RATE):
                await asyncio.sleep(seconds)
            self.waited_seconds += seconds

    def _origin(self, url: str) -> _Origin:
        return self._known.setdefault(origin_of(url), _Origin())

    def _look(self) -> None:
        """Forget servers of which nothing is to be said any more."""
        now = self._clock()
        self._known = {
            name: origin
            for name, origin in self._known.items()
            if origin.refused or origin.open_until is not None or now < origin.hold_until
        }
        self.is_clear = not self._known
