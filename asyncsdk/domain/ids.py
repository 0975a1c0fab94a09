"""Ids: 24 lower-case hexadecimal digits that sort by time of making.

Eight digits are seconds since 1970 (services that know ids of this form read the time from them), four are the
fraction of the second, twelve are random and count up within one tick, so that ids made by one process always sort
in the order they were made. Clients may make them: creating with an id made before is how a create is repeated
safely after its reply was lost.
"""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from typing import Annotated

from pydantic import StringConstraints

__all__ = ["Id", "is_id", "make_id", "time_of_id"]

Id = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{24}$")]
"""24 lower-case hexadecimal digits."""

_PATTERN = re.compile(r"[0-9a-f]{24}")
_RANDOM_BITS = 48


class _Clock:
    """The last id given, so that the next one is greater."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.last = 0

    def next(self) -> int:
        ticks = int(time.time() * 65536)
        with self.lock:
            value = (ticks << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS - 1)
            if value <= self.last:
                value = self.last + 1 + secrets.randbits(8)
            self.last = value
        return value


_clock = _Clock()


def _renew_clock() -> None:
    global _clock  # noqa: PLW0603  # a forked child must not share the parent's lock state or its next id
    _clock = _Clock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_clock)


def make_id() -> str:
    """Return a new id; greater than every id this process made before."""
    return f"{_clock.next():024x}"


def is_id(text: str) -> bool:
    """Whether *text* has the form of an id."""
    return _PATTERN.fullmatch(text) is not None


def time_of_id(value: str) -> int:
    """Return when an id was made, in milliseconds since 1970 UTC."""
    return int(value[:12], 16) * 1000 // 65536
