"""Servers that asked for a pause, or that are out: who may be asked again, and when."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType
from urllib.parse import urlsplit

import anyio

from asyncsdk.engine.lanes import LaneName
from asyncsdk.engine.limits.origin import Origin
from asyncsdk.engine.waits import WaitReason, waiting
from asyncsdk.errors import CircuitOpen, RequestError
from asyncsdk.transport.retry_after import SPREAD

__all__ = ["LEAST_FAILURES", "LEAST_OBJECTS", "Origins", "origin_of"]

_log = logging.getLogger("asyncsdk.engine")

LEAST_FAILURES = 32
"""Requests in a row that must have failed. When one of five is refused at random, that happens once in 10**22."""

LEAST_OBJECTS = 8
"""Of so many objects they must have been, or of as many as are moved at once: a few that are refused whatever is done
are no outage."""

_SUSPECT_SECONDS = 2.0
"""For how long nothing may have gone well: a limit of requests per second refuses everything for the rest of one."""

_SHORTEST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 30.0
_FORGOTTEN_SECONDS = 2 * _LONGEST_PAUSE_SECONDS
_DRAINED_SECONDS = 10.0
"""The longest pause that is still waited by what is to end soon."""

_MAX_REACHED = 1024
_REFUSALS = frozenset({408, 425, 429})


def origin_of(url: str) -> str:
    """Return scheme, host and port of *url*: what answers or does not."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class Origins:
    """Holds back what is meant for a server that said ``Retry-After``, and for one that is out.

    The circuit breaker: when 32 requests in a row, of at least 8 objects (or as many as are moved at once), failed in a
    way that may pass (429, 5xx, no connection, no answer), and for two seconds, the server is out; or when half as many
    did, and an object would be given up because of that. What is meant for it waits then; one request is sent after a
    second, the next ones after 2, 4 ... 30 more. When one is answered, all is as before. After *outage_seconds* that
    ends: what waited, and what comes, fails. Fewer objects, that fail alone, do so with their own errors: they may be
    all that is refused.

    A server that never answered is not out; most likely its name is wrong. Nothing waits for it: when 32 objects were
    given up after all their attempts, what else is meant for it fails.

    Args:
        outage_seconds: How long is waited for a server that is out; 0: not at all.
        least_failures: Requests in a row that must have failed; of no more objects than that.
        clock: Seconds, never going back.
        uniform: Draws the share of a pause that is added to it, so that not everybody comes back at once.
        longest_hold: The longest pause, in seconds, that is waited because a server asked for it. What is meant for one
            that asks for more fails until that is over.
        at_once: Objects that are moved at once, small and large ones (``part``); where that is fewer than eight, it
            takes so many, but never only one.

    Attributes:
        is_clear: There is nothing to be said of any server: the only thing that is looked at per object.
        waited_seconds: Sum of what was waited for servers that asked for a pause, or were out.
        has_changed: Told the name of a server (`origin_of`) that works again.
        has_begun_waiting: Called after something began to wait in `wait`, each with nothing.
    """

    def __init__(
        self,
        outage_seconds: float,
        least_failures: int = LEAST_FAILURES,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
        longest_hold: float = math.inf,
        at_once: Mapping[LaneName, int] = MappingProxyType({"small": LEAST_OBJECTS, "part": LEAST_OBJECTS}),
    ) -> None:
        self._outage_seconds = outage_seconds
        self._longest_hold = longest_hold
        self._hurried: asyncio.Event | None = None
        self._least_failures = least_failures
        self._least_unnamed = min(LEAST_OBJECTS, least_failures)
        self._least_at_the_end = max(self._least_unnamed, least_failures // 2)
        self._least_objects = {lane: max(2, min(self._least_unnamed, count)) for lane, count in at_once.items()}
        self._clock = clock
        self._uniform = uniform
        self._known: dict[str, Origin] = {}
        self._reached: dict[str, None] = {}
        self._waiters: dict[LaneName, Counter[int]] = {"small": Counter(), "part": Counter()}
        self.is_clear = True
        self.waited_seconds = 0.0
        self.has_changed: list[Callable[[str], None]] = []
        self.has_begun_waiting: list[Callable[[], None]] = []

    # --- what servers did ------------------------------------------------------------------------------------

    def hold(self, url: str, seconds: float) -> None:
        """Send nothing to the server of *url* for *seconds* and up to a tenth more; it asked for that.

        If that is longer than is waited, what is meant for it fails meanwhile.
        """
        if seconds > 0:
            origin = self._known.setdefault(origin_of(url), Origin())
            until = self._clock() + seconds
            if self.is_too_long(seconds):
                origin.closed_until = max(origin.closed_until, until)
                self._tell(origin_of(url), origin)
            elif until > origin.hold_until:
                origin.hold_until = until + self._uniform(0.0, SPREAD * seconds)
            self.is_clear = False

    def is_too_long(self, seconds: object) -> bool:
        """Whether a server that asks for a pause of *seconds* is not waited for; None: it asked for none."""
        return isinstance(seconds, (int, float)) and seconds > self._longest_hold

    async def sleep(self, seconds: float) -> None:
        """Sleep for *seconds*; a long pause ends when nobody is to wait any more (`wait_no_longer`)."""
        if seconds <= _DRAINED_SECONDS:
            await anyio.sleep(seconds)
            return
        if self._hurried is None:
            self._hurried = asyncio.Event()
        with anyio.move_on_after(seconds):
            await self._hurried.wait()

    def failed(
        self, url: str, error: Exception | None = None, who: int | None = None, lane: LaneName = "small"
    ) -> None:
        """A request to the server of *url* failed: refused with 429 or 5xx, not answered, or without a connection.

        Args:
            error: How; what is given up because of it says so.
            who: A number of the object, which may be what is refused, and not everything: whatever it does, it is one
                of those it takes. None: this is not the object's fault, and counts like another one.
            lane: Of the object: small or large.
        """
        name = origin_of(url)
        origin = self._known.setdefault(name, Origin())
        self.is_clear = False
        if not isinstance(error, RequestError):  # a refusal is an answer
            self._note_reached(name)
        origin.was_reached = name in self._reached
        origin.last_words = "" if error is None else str(error)
        if origin.opened_at is not None:
            return
        now = self._clock()
        if not origin.failures:
            origin.failing_since = now
        origin.failures += 1
        if who is None:
            origin.unnamed += 1
        elif len(origin.suspects[lane]) < self._least_objects[lane]:
            origin.suspects[lane].add(who)
        if (
            origin.was_reached
            and self._says_enough(origin, self._least_failures)
            and now - origin.failing_since >= _SUSPECT_SECONDS
        ):
            self._open(name, origin)

    def _says_enough(self, origin: Origin, least_failures: int) -> bool:
        """Whether what failed must be taken for the server, and not for what was asked of it."""
        share = origin.unnamed / self._least_unnamed
        for lane, suspects in origin.suspects.items():
            share += len(suspects) / self._least_objects[lane]
        return origin.failures >= least_failures and share > 1 - 1e-9

    def must_wait(self, url: str) -> bool:
        """Whether an object that would be given up because of the server of *url* waits instead: it is out."""
        name = origin_of(url)
        origin = self._known.get(name)
        if origin is not None and origin.opened_at is None:
            origin.given_up += not origin.was_reached
            # With few requests at once, one of them may use up its attempts before 32 have failed.
            is_out = self._says_enough(origin, self._least_at_the_end)
            if is_out if origin.was_reached else origin.given_up >= self._least_failures:
                self._open(name, origin)
        return self.is_out(url)

    def never_answered(self, url: str) -> bool:
        """Whether requests to the server of *url* failed, and none was ever answered: there is nobody to be spared."""
        origin = self._known.get(origin_of(url))
        return origin is not None and not origin.was_reached

    def reached(self, url: str) -> None:
        """The server of *url* answered, whatever it said. Called for every reply: 0.6 us."""
        end = url.find("/", 8)
        root = url if end < 0 else url[:end]
        if root not in self._reached:
            self._note_reached(origin_of(root))

    def _note_reached(self, name: str) -> None:
        if name not in self._reached and len(self._reached) >= _MAX_REACHED:
            del self._reached[next(iter(self._reached))]
        self._reached[name] = None

    def answered(self, url: str, status: int) -> None:
        """The server of *url* answered with *status*: any but a refusal (429, 5xx, 408) means that it works."""
        if status < 500 and status not in _REFUSALS:
            self.went_well(url)

    def went_well(self, url: str) -> None:
        """The server of *url* works: it did what it was asked, or said why it never will."""
        name = origin_of(url)
        origin = self._known.get(name)
        if origin is None or not (origin.failures or origin.opened_at is not None):
            return
        was_out, origin.opened_at = origin.opened_at, None
        origin.failures = origin.unnamed = origin.given_up = 0
        for suspects in origin.suspects.values():
            suspects.clear()
        news, origin.news = origin.news, None
        self._look()
        if was_out is not None:
            _log.warning("%s works again, after %.0f s", name, self._clock() - was_out)
            if news is not None:
                news.set()
            for tell in list(self.has_changed):
                tell(name)

    def _tell(self, name: str, origin: Origin) -> None:
        """Let everything that waits for a server look again."""
        if origin.news is not None:
            origin.news.set()
            origin.news = None
        for tell in list(self.has_changed):
            tell(name)

    def _open(self, name: str, origin: Origin) -> None:
        now = self._clock()
        origin.opened_at = origin.asked_at = now
        origin.pause_seconds = _SHORTEST_PAUSE_SECONDS
        origin.next_try = now + origin.pause_seconds
        if not origin.was_reached:
            _log.warning("%s never answered (%s); what is meant for it fails", name, origin.last_words)
            return
        _log.warning(
            "%s is out: the last %d requests failed (%s); what is meant for it waits, up to %g s",
            name,
            origin.failures,
            origin.last_words,
            self._outage_seconds,
        )

    def wait_no_longer(self) -> None:
        """From now on wait for no server that is out, or that asked for a pause of more than ten seconds: what waits
        for one fails."""
        self._outage_seconds = 0.0
        self._longest_hold = min(self._longest_hold, _DRAINED_SECONDS)
        if self._hurried is not None:
            self._hurried.set()
        now = self._clock()
        for name, origin in list(self._known.items()):
            if origin.hold_until - now > _DRAINED_SECONDS:
                origin.closed_until = max(origin.closed_until, origin.hold_until)
            if origin.opened_at is not None or origin.closed_until > now or origin.news is not None:
                self._tell(name, origin)

    # --- who may ask -----------------------------------------------------------------------------------------

    def is_out(self, url: str) -> bool:
        """Whether the server of *url* is out, and waited for."""
        origin = self._known.get(origin_of(url))
        return origin is not None and origin.opened_at is not None and not self._is_over(origin)

    def is_given_up(self, url: str) -> bool:
        """Whether the server of *url* has been out for too long: nobody waits for it any more."""
        origin = self._known.get(origin_of(url))
        return origin is not None and self._is_over(origin)

    def seconds_left(self, url: str) -> float:
        """How long nothing may be sent to the server of *url*; 0: it may be asked, or is no longer waited for."""
        origin = self._asked(url)
        if origin is None:
            return 0.0
        now = self._clock()
        if self._is_over(origin):
            return 0.0
        if origin.opened_at is None:
            return max(0.0, origin.hold_until - now)
        due = max(origin.next_try, origin.hold_until)
        return max(0.0, min(due, origin.opened_at + self._longest(origin)) - now)

    def held_seconds(self, url: str) -> float:
        """How long nothing may be sent to the server of *url*; 0: whoever asked sends something now.

        Raises:
            CircuitOpen: It has been out for too long, or asked for too long a pause.
        """
        origin = self._asked(url)
        if origin is None:
            return 0.0
        if self._is_closed(origin):
            raise self.given_up(url)
        if origin.opened_at is None:
            seconds = max(0.0, origin.hold_until - self._clock())
            if not seconds:
                self._look()
            return seconds
        now = self._clock()
        if now >= max(origin.next_try, origin.hold_until):
            origin.pause_seconds = min(2 * origin.pause_seconds, _LONGEST_PAUSE_SECONDS)
            origin.next_try = now + origin.pause_seconds
            return 0.0  # this one is tried; the others go on waiting
        if self._is_over(origin):
            raise self.given_up(url)
        return self.seconds_left(url)

    def given_up(self, url: str) -> CircuitOpen:
        """Return the error of what was meant for the server of *url*, which has been out for too long."""
        name = origin_of(url)
        origin = self._known.get(name)
        said = "" if origin is None or not origin.last_words else f" ({origin.last_words})"
        if origin is not None and self._is_closed(origin):
            return CircuitOpen(
                f"{name}: asked for a longer pause than is waited{said}; run it again later", source=name
            )
        if origin is not None and not origin.was_reached:
            return CircuitOpen(f"{name}: never answered{said}; is that its name?", source=name)
        return CircuitOpen(f"{name}: out for too long{said}; run it again later", source=name)

    async def wait(self, url: str, lane: LaneName = "small", who: object = None) -> bool:
        """Wait until the server of *url* may be asked; returns whether that is to try if it works again.

        Args:
            lane: Of the request.
            who: Whose request it is, see `waiting_in`.

        Raises:
            CircuitOpen: It has been out for too long.
        """
        seconds = self.held_seconds(url)
        if not seconds:
            return self.is_out(url)
        waiters = self._waiters[lane]
        waiters[id(who)] += 1
        try:
            for tell in list(self.has_begun_waiting):
                tell()
            while seconds:
                started = self._clock()
                with waiting(WaitReason.RATE):
                    await self._sleep(url, seconds)
                self.waited_seconds += self._clock() - started
                seconds = self.held_seconds(url)
            return self.is_out(url)
        finally:
            waiters[id(who)] -= 1
            if not waiters[id(who)]:
                del waiters[id(who)]

    def waiting_in(self, lane: LaneName) -> int:
        """How many objects wait in `wait` with a request of *lane*."""
        return len(self._waiters[lane])

    async def _sleep(self, url: str, seconds: float) -> None:
        """Sleep for *seconds*, or until the server of *url* works again."""
        origin = self._known[origin_of(url)]
        if origin.news is None:
            origin.news = asyncio.Event()
        news = origin.news
        with anyio.move_on_after(seconds):
            await news.wait()

    # --- what is known ---------------------------------------------------------------------------------------

    def _is_over(self, origin: Origin) -> bool:
        if self._is_closed(origin):
            return True
        return origin.opened_at is not None and self._clock() >= origin.opened_at + self._longest(origin)

    def _is_closed(self, origin: Origin) -> bool:
        """Whether it asked for a pause that nobody waits for, which is not over."""
        return origin.closed_until > 0 and self._clock() < origin.closed_until

    def _longest(self, origin: Origin) -> float:
        """Return how long is waited for it once it is out."""
        return self._outage_seconds if origin.was_reached else 0.0

    def _asked(self, url: str) -> Origin | None:
        """Return what is known of the server of *url*, of which somebody wants something."""
        name = origin_of(url)
        origin = self._known.get(name)
        if origin is None:
            return None
        now = self._clock()
        if self._is_over(origin) and not self._is_closed(origin) and now - origin.asked_at >= _FORGOTTEN_SECONDS:
            # Nobody has wanted anything for long: whoever comes now finds out anew, and waits as the first ones did.
            del self._known[name]
            self._look()
            return None
        origin.asked_at = now
        return origin

    def _look(self) -> None:
        """Forget servers of which nothing is to be said any more."""
        now = self._clock()
        self._known = {
            name: origin
            for name, origin in self._known.items()
            if origin.failures or origin.opened_at is not None or now < max(origin.hold_until, origin.closed_until)
        }
        self.is_clear = not self._known
