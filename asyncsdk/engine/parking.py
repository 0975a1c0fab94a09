"""Transfers put aside, not begun, because their server asked for a pause or is out."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from asyncsdk.engine.limits.origins import Origins, origin_of
from asyncsdk.engine.transfers import Download, Upload
from asyncsdk.errors import CircuitOpen

__all__ = ["Parking", "url_of"]

_LEAST_SECONDS = 0.05
"""Between two looks at a server that may be tried: whoever tries has begun by then."""


def url_of(transfer: Upload | Download) -> str | None:
    """Return a URL that *transfer* asks first, or one of the same server; None: it asks none."""
    end = transfer.target if isinstance(transfer, Upload) else transfer.origin
    url = getattr(end, "url", None)
    if url is None:
        parts = getattr(end, "part_urls", ())
        url = parts[0] if parts else None
    return url


class Parking:
    """Holds transfers of a run until their servers may be asked.

    When one may, all of its transfers are released. While it is out, one is released each time it may be tried; when it
    has been out for too long, all of them fail.

    Args:
        origins: Knows the servers.
        release: Takes transfers that may begin now.
        fail: Takes those whose server has been out for too long, and why they failed.
        is_large: Whether a transfer is one of the large lane.

    Attributes:
        large: How many of them are large.
    """

    def __init__(
        self,
        origins: Origins,
        release: Callable[[Upload | Download], None],
        fail: Callable[[Upload | Download, CircuitOpen], None],
        is_large: Callable[[Upload | Download], bool],
    ) -> None:
        self._origins = origins
        self._release = release
        self._fail = fail
        self._is_large = is_large
        self._parked: dict[str, deque[Upload | Download]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._count = 0
        self.large = 0
        origins.has_changed.append(self._look)

    def __len__(self) -> int:
        return self._count

    def takes(self, transfer: Upload | Download, *, only_out: bool = False) -> bool:
        """Put *transfer* aside if its server may not be asked now; False: it may begin.

        Args:
            only_out: Not if it only asked for a pause: then who moves the transfer waits, and counts that for it.
        """
        origins = self._origins
        url = None if origins.is_clear else url_of(transfer)
        if url is None or (only_out and not origins.is_out(url)):
            return False
        seconds = origins.seconds_left(url)
        if seconds:
            self.put(transfer, url, seconds)
        return seconds > 0

    def put(self, transfer: Upload | Download, url: str, seconds: float) -> None:
        """Put *transfer* aside, which wants something of *url*, until that may be asked: in *seconds*, or earlier."""
        name = origin_of(url)
        self._parked.setdefault(name, deque()).append(transfer)
        self._count += 1
        self.large += self._is_large(transfer)
        if name not in self._timers:
            self._look_in(name, seconds)

    def items(self) -> list[Upload | Download]:
        """Return everything that is put aside."""
        return [transfer for parked in self._parked.values() for transfer in parked]

    def drop(self) -> int:
        """Forget everything; returns how many they were."""
        dropped = self._count
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._parked.clear()
        self._count = self.large = 0
        return dropped

    def close(self) -> None:
        """Forget everything, and look no more."""
        self.drop()
        self._origins.has_changed.remove(self._look)

    def _look_in(self, name: str, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._timers[name] = loop.call_later(max(_LEAST_SECONDS, seconds), self._look, name)

    def _look(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
        parked = self._parked.get(name)
        if not parked:
            return
        origins = self._origins
        seconds = origins.seconds_left(name)
        if not seconds and origins.is_out(name):
            self._release(self._take(name, parked))  # this one is tried
        elif not seconds:
            is_given_up = origins.is_given_up(name)
            for transfer in [self._take(name, parked) for _ in range(len(parked))]:
                if is_given_up:
                    self._fail(transfer, origins.given_up(name))
                else:
                    self._release(transfer)
        if name in self._parked and name not in self._timers:
            self._look_in(name, origins.seconds_left(name))

    def _take(self, name: str, parked: deque[Upload | Download]) -> Upload | Download:
        transfer = parked.popleft()
        self._count -= 1
        self.large -= self._is_large(transfer)
        if not parked:
            del self._parked[name]
        return transfer
