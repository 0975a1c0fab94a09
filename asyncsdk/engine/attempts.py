"""One attempt of a request: what it moved, since when it has its slot; and when a refused URL is renewed for it."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from asyncsdk.engine.expiry import TOLERANCE_SECONDS, Clocks
from asyncsdk.errors import ResponseError

if TYPE_CHECKING:
    from asyncsdk.engine.work import Work

__all__ = ["Airtime", "Count", "RenewalRow", "UrlExpired"]


class UrlExpired(Exception):
    """The server refused a URL that has expired; holds the refusal.

    Args:
        error: What it said.
        overdue_seconds: How long ago the URL had expired by the server's clock, which may be a little in the future;
            None: that clock does not explain it, the server's word for it does.
    """

    def __init__(self, error: ResponseError, overdue_seconds: float | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.overdue_seconds = overdue_seconds


class Airtime:
    """Since when a request has its slot: waits for it, and pauses between attempts, are not the server's lateness.

    Attributes:
        started: When the attempt under way got its slot, by the monotonic clock; None: it waits for one.
    """

    __slots__ = ("started",)

    def __init__(self) -> None:
        self.started: float | None = None

    def begin(self) -> None:
        """The request has its slot."""
        self.started = monotonic()

    def pause(self) -> None:
        """It waits for one."""
        self.started = None


class Count:
    """Bytes that one attempt moved, so that they can be taken back when it fails.

    Args:
        work: What they are of.
        is_part: Whether they are of a part: what the lane of parts learns from.
        airtime: Told when the attempt has its slot.
    """

    __slots__ = ("_airtime", "_is_part", "_work", "size_bytes")

    def __init__(self, work: Work, *, is_part: bool = False, airtime: Airtime | None = None) -> None:
        self._work = work
        self._is_part = is_part
        self._airtime = airtime
        self.size_bytes = 0

    def __call__(self, size_bytes: int) -> None:
        self.size_bytes += size_bytes
        self._work.moved(size_bytes)
        if self._is_part:
            self._work.resources.health.part_bytes += size_bytes

    def begin(self) -> None:
        """The request has its slot."""
        if self._airtime is not None:
            self._airtime.begin()

    def take_back(self) -> None:
        """Count nothing of it any more."""
        self(-self.size_bytes)


class RenewalRow:
    """Whether one more fresh URL is worth asking for, after refusals one behind the other put down to expiry.

    The first one is. After that only one whose predecessor was good for a while after it was asked for, by the clock of
    the server: time has made it old, and will not make it old at once. A server that refuses what was minted just now
    is not asked for ever: by its clock nothing will be good, or its clock has nothing to do with it. A refusal that
    only the server's word puts down to expiry is answered by one renewal.

    Args:
        clocks: What time it is.
        most: Renewals one behind the other, at most.
    """

    __slots__ = ("_clocks", "_count", "_is_word", "_most", "_since")

    def __init__(self, clocks: Clocks, most: int) -> None:
        self._clocks = clocks
        self._most = most
        self._count = 0
        self._is_word = False
        self._since = 0.0

    def allows(self, expired: UrlExpired) -> bool:
        """Whether a fresh URL is to be asked for after *expired*; counts it."""
        now, overdue = self._clocks.now(), expired.overdue_seconds
        if self._count >= self._most:
            return False
        if self._count:
            good_until = now - max(0.0, overdue or 0.0)  # of the URL that the last renewal brought
            if self._is_word if overdue is None else good_until - self._since < TOLERANCE_SECONDS:
                return False
        self._count += 1
        self._is_word = overdue is None
        self._since = now
        return True

    def end(self) -> None:
        """Something else came of an attempt."""
        self._count = 0
        self._is_word = False
