"""Messages of long work wait for a platform that is out for a while: a restart ends no run of many hours.

Messages that change nothing more when they are sent again, as those of bulk verbs are (keys and ids are made here), are
sent again until the platform answers, or has been out for ``outage_seconds``. One that never answered this client is
not waited for: most likely its name is wrong. What it refuses for good is told at once. Single calls outside of such
work fail as soon as ever.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable
from time import monotonic
from typing import TypeVar
from weakref import WeakKeyDictionary

import anyio

from asyncsdk.config import Settings
from asyncsdk.engine import Engine, RetryPolicy, WaitReason
from asyncsdk.engine.retries import wait_before_next
from asyncsdk.engine.waits import reason_of, waiting
from asyncsdk.entities.session import Session
from asyncsdk.errors import RateLimited, RequestError, ResponseError, ServerError, redact_url
from asyncsdk.protocol.base import Message

__all__ = ["Hurried", "PatientSession", "Presence", "patient", "presence_of"]

_log = logging.getLogger("asyncsdk.entities")

R = TypeVar("R")

_POLICY = RetryPolicy(wait_initial_seconds=0.5, wait_max_seconds=16.0)
_WAKE_SECONDS = 1.0
"""Within so many seconds those who wait come back after another message was answered, not all in one moment."""

_ALONE_SECONDS = 60.0
"""How long a message is sent again that the platform cannot digest (500) while it answers others: most likely it never
will, and whatever else the run has to do waits behind it."""

_FORGOTTEN_SECONDS = 300.0
"""When nobody asked for so long, the next failure is the first one of another outage."""


class Presence:
    """What a client knows of its platform: whether it ever answered, and since when it does not.

    Attributes:
        was_reached: Whether any message was ever answered, be it with a refusal.
        answers: How many were.
        failing_since: When the first message failed of those that failed in a row (`time.monotonic`); None: the latest
            one was answered.
    """

    def __init__(self) -> None:
        self.was_reached = False
        self.answers = 0
        self.failing_since: float | None = None
        self._failed_at = 0.0
        self._is_told = False
        self._name = ""
        self._waiters: set[asyncio.Future[None]] = set()

    def answered(self) -> None:
        """A message was answered."""
        self.was_reached = True
        self.answers += 1
        if self.failing_since is None:
            return
        if self._is_told:
            _log.warning("the platform %s answers again, after %.0f s", self._name, monotonic() - self.failing_since)
        self.failing_since, self._is_told = None, False
        _wake(self._waiters)

    def failed(self, error: RequestError | ResponseError) -> None:
        """A message failed with *error*; one that trying again does not change is an answer."""
        if isinstance(error, ResponseError):
            self.was_reached = True
        if not _is_passing(error):
            if isinstance(error, ResponseError):
                self.answered()
            return
        now = monotonic()
        if self.failing_since is None or now - self._failed_at > _FORGOTTEN_SECONDS:
            self.failing_since, self._is_told = now, False
        self._failed_at = now

    def tell(self, name: str, error: Exception, seconds: float) -> None:
        """Say once in the log that work waits for the platform called *name*, for at most *seconds*."""
        if not self._is_told:
            self._is_told, self._name = True, name
            _log.warning("the platform %s is out: %s; messages to it wait, up to %g s", name, error, seconds)

    async def wait(self, seconds: float, also: set[asyncio.Future[None]], *, hears: bool) -> None:
        """Sleep for *seconds*, or until somebody wakes those in *also*; *hears*: or until a message was answered."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        also.add(waiter)
        if hears:
            self._waiters.add(waiter)
        try:
            with anyio.move_on_after(seconds):
                await waiter
        finally:
            also.discard(waiter)
            self._waiters.discard(waiter)


def _is_passing(error: RequestError | ResponseError) -> bool:
    """Whether *error* may be gone in a while: no connection, no answer, 429, 5xx; not an answer that makes no sense."""
    return error.retryable and isinstance(error, (RequestError, RateLimited, ServerError))


def _wake(waiters: set[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


_known: WeakKeyDictionary[Session, Presence] = WeakKeyDictionary()


def presence_of(session: Session) -> Presence:
    """Return what the client *session* knows of its platform."""
    return _known.setdefault(session, Presence())


class PatientSession:
    """A session whose messages wait for a platform that is out; see `patient`.

    Args:
        session: The client.
        outage_seconds: How long is waited, from the first message that failed.
        uniform: Draws waits.
    """

    def __init__(
        self, session: Session, outage_seconds: float, uniform: Callable[[float, float], float] = random.uniform
    ) -> None:
        self._session = session
        self._presence = presence_of(session)
        self._outage_seconds = outage_seconds
        self._uniform = uniform
        self._is_hurried = False
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def engine(self) -> Engine:
        """The engine that moves the client's bytes."""
        return self._session.engine

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._session.settings

    async def ensure_worker(self, kind: str, *, start: bool = True) -> bool:
        """As `Session.ensure_worker`."""
        return await self._session.ensure_worker(kind, start=start)

    async def send(self, message: Message[R]) -> R:
        """Return the platform's reply to *message*, as soon as it gives one.

        Raises:
            RequestError, RateLimited, ServerError: It has been out for too long, or asks for a pause (``retry_after``)
                that would take longer than is waited; or nobody is to wait any more (`wait_no_longer`).
            ResponseError: It refused.
        """
        if not message.is_repeatable:
            return await self._session.send(message)
        first, number, answers = math.inf, 0, self._presence.answers
        while True:
            try:
                return await self._session.send(message)
            except (RequestError, ResponseError) as error:
                number += 1
                first = min(first, monotonic(), self._presence.failing_since or math.inf)
                left = first + self._outage_seconds - monotonic()
                if isinstance(error, ServerError) and error.status == 500 and self._presence.answers != answers:
                    left = min(left, first + _ALONE_SECONDS - monotonic())
                seconds = self._pause(error, number, left)
                if seconds is None:
                    raise
                if number == 1:  # one that is refused for ever while others are answered is not told of again and again
                    self._presence.tell(redact_url(self.settings.url or ""), error, self._outage_seconds)
                reason, hears = reason_of(error), isinstance(error, RequestError)
            await self._wait(seconds, reason, hears=hears)

    def wait_no_longer(self) -> None:
        """From now on wait for no platform that is out: what waits is tried once more."""
        self._is_hurried = True
        _wake(self._waiters)

    def _pause(self, error: RequestError | ResponseError, number: int, left: float) -> float | None:
        """Return how long to wait after failure *number* of a message that may wait *left* seconds; None: no more."""
        if self._is_hurried or left <= 0 or not self._presence.was_reached or not _is_passing(error):
            return None
        asked = error.retry_after if isinstance(error, ResponseError) else None
        if asked is not None and asked > left:
            return None
        return min(wait_before_next(_POLICY, number, error, self._uniform), left)

    async def _wait(self, seconds: float, reason: WaitReason, *, hears: bool) -> None:
        until = monotonic() + seconds
        with waiting(reason):
            await self._presence.wait(seconds, self._waiters, hears=hears)
            left = min(_WAKE_SECONDS, until - monotonic())
            if left > 0 and not self._is_hurried:
                await self._presence.wait(self._uniform(0.0, left), self._waiters, hears=False)


class Hurried:
    """A feed whose ``_session`` may be patient: the engine tells it when nobody is to wait any more."""

    _session: Session

    def wait_no_longer(self) -> None:
        """The run is drained, over or cancelled: what it still asks the platform is not waited for."""
        if isinstance(self._session, PatientSession):
            self._session.wait_no_longer()


def patient(session: Session) -> Session:
    """Return *session* as one call of a bulk verb uses it: its messages wait for a platform that is out.

    That is for servers, and when the engine's ``outage_seconds`` are not 0.
    """
    if isinstance(session, PatientSession) or session.settings.url is None:
        return session
    seconds = session.engine.config.outage_seconds
    return PatientSession(session, seconds) if seconds else session
