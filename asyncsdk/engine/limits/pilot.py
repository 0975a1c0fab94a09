"""Who looks at what happens every moment, and changes how many requests there may be at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from asyncsdk.engine.health import Health
from asyncsdk.engine.lanes import Slots
from asyncsdk.engine.limits.controller import UNIT_BYTES, LaneController, Step, Tick

__all__ = ["PART_START", "SMALL_START", "Pilot"]

SMALL_START = 16
"""Small objects at once in the beginning: what one server near by needs."""

PART_START = 8

_TICK_SECONDS = 0.05

_PART_WINDOW_SECONDS = (0.5, 5.0)


class Pilot:
    """Runs a controller for each lane while something is under way, and applies what they say to *slots*.

    It reads counts that are there anyway, twenty times a second; nothing is done per object.

    Args:
        slots: What it changes.
        health: What it reads.
        most: Requests at once of one lane; there may be as many in all.
        most_parts: Parts at once: each needs a buffer.

    Attributes:
        is_steering: Whether what the controllers say is applied: not while the caller has set a number.
    """

    def __init__(self, slots: Slots, health: Health, most: int, most_parts: int) -> None:
        self._slots = slots
        self._health = health
        self.small = LaneController("small", slots.small_limit, most)
        self.part = LaneController("part", slots.part_limit, min(most, most_parts), window_seconds=_PART_WINDOW_SECONDS)
        self.is_steering = True
        self._users = 0
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._since = 0.0
        self._cpu = 0.0
        self._seen: tuple[int, ...] = (0,) * 8

    @property
    def trace(self) -> list[Step]:
        """What was changed, and why, of both lanes in order of time; the latest 1,000 of each."""
        return sorted([*self.small.trace, *self.part.trace], key=lambda step: step.seconds)

    @property
    def latest(self) -> tuple[Step, Step]:
        """What was changed last, of both lanes: `trace_since` goes on from there."""
        return self.small.trace[-1], self.part.trace[-1]

    def trace_since(self, latest: tuple[Step, Step]) -> list[Step]:
        """Return the trace from *latest* on, these steps included as far as they are still known."""
        steps: list[Step] = []
        for lane, first in zip((self.small, self.part), latest, strict=True):
            for step in reversed(lane.trace):
                steps.append(step)
                if step is first:
                    break
        return sorted(steps, key=lambda step: step.seconds)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Look on while the block runs, in its event loop."""
        self._users += 1
        if self._users == 1:
            self._begin()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _begin(self) -> None:
        self._remember()
        self._wait()

    def _wait(self) -> None:
        self._due = time.monotonic() + _TICK_SECONDS
        self._timer = asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)

    def _remember(self) -> None:
        self._since = time.monotonic()
        self._cpu = time.thread_time()  # of the thread of this event loop, and of no other
        self._seen = self._counts()

    def _counts(self) -> tuple[int, ...]:
        health = self._health
        return (
            health.answers - health.part_answers,
            health.small_refused,
            health.small_throttled,
            health.moved_bytes - health.part_bytes,
            health.part_answers,
            health.part_refused,
            health.part_throttled,
            health.part_bytes,
        )

    def _tick(self) -> None:
        now = time.monotonic()
        seconds = max(now - self._since, 1e-6)
        late = max(0.0, now - self._due)
        cpu = (time.thread_time() - self._cpu) / seconds
        seen = [max(0, new - old) for new, old in zip(self._counts(), self._seen, strict=True)]
        small, small_refused, small_throttled, small_bytes, parts, part_refused, part_throttled, part_bytes = seen
        slots = self._slots
        # What was refused did nothing, whatever the refusal said: many of those are fast.
        small, parts = max(0, small - small_refused), max(0, parts - part_refused)
        used, part_used = slots.used("small"), slots.used("part")
        is_full = used >= slots.small_limit
        amount = small + small_bytes / UNIT_BYTES
        small_limit = self.small.observe(
            Tick(seconds, small, amount, small_throttled, is_full, cpu, late, small_bytes, used)
        )
        is_full = part_used >= slots.part_limit
        part_limit = self.part.observe(
            Tick(seconds, parts, part_bytes, part_throttled, is_full, cpu, late, part_bytes, part_used)
        )
        self._remember()
        self._wait()
        if self.is_steering and (small_limit, part_limit) != (slots.small_limit, slots.part_limit):
            slots.resize(small=small_limit, part=part_limit)
