"""How many requests at once: found by trying, kept while it pays.

A `LaneController` is arithmetic only: it is told what happened in the last moment and says how many at once. It doubles
as long as that pays; then, every few seconds, it tries somewhat more, or fewer, and keeps what is better. What counts
is what went well per second. It measures over whole windows, long enough for every request to be answered about twice.

- More that brings nothing is taken back: waiting longer for the same is what a full server or link looks like.
- Refusals (429, 503): fewer by as much as was refused, as long as that costs nothing. Refusals that have nothing to do
  with how many are sent show by the loss, and are then borne.
- With the processor full, or an event loop that comes late, there is never more.
- While there is not enough to do, nothing is learnt.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Literal

__all__ = ["TRACE_STEPS", "UNIT_BYTES", "LaneController", "Reason", "Step", "Tick"]

TRACE_STEPS = 1000
"""Changes that are remembered, of each lane: an hour or more."""

UNIT_BYTES = 256 * 1024
"""So many bytes that moved are as much work done as a request that ended: of an object that takes a minute, nothing
ends for a minute."""

Reason = Literal["start", "try more", "pays", "no gain", "try fewer", "as good", "worse", "refused", "too few", "borne"]

_DOUBLING_PAYS = 0.25
"""What doubling must bring, as a share of what it could, to go on with it."""

_MORE_PAYS = 0.2
"""What a smaller step up must bring, as a share of what it could."""

_AS_GOOD = 0.97
"""What fewer must still do of the best that was seen lately."""

_STEP_UP = 1.3
_STEP_DOWN = 0.8
_FULL_CPU = 0.93
_LATE_SECONDS = 0.1
_REFUSED_SHARE = 0.03
_LEAST_REFUSED = 5
_REFUSED_COUNT = 150
_LEAST_FEWER = 0.25
_MOST_FEWER = 0.6
_BORNE_MORE = 1.4
"""By how much what is borne may be exceeded before it is looked at again."""

_EARLY = 0.4
"""Of the longest window: from here on a doubling that clearly pays is gone on with. Parts that take ten seconds each,
on a link with losses, would otherwise take most of a minute to find how many of them it takes. What does not pay is
measured to the end: chance, and new connections that are fast until their first loss, look like that for a while."""

_CLEARLY = 1.5

_BLIND_SECONDS = 0.5
_MOST_BLIND = 32
"""Until the first request has ended there are twice as many after each half second, up to so many: on a link with long
round trips and losses that takes ten seconds, and what is learnt from them as long again each time."""

_BORNE_HALF_LIFE = 120.0
_MOST_BORNE = 0.9
"""Share of refusals that is borne at most, and how long it takes until half of it is looked at again: why they came may
be over, and other ones have other reasons."""

_FIRST_PAUSE = 2.0
_LONGEST_PAUSE = 15.0
_SATURATED = 0.6
"""Share of a window in which there was enough to do, for it to count."""


@dataclass(frozen=True, slots=True)
class Tick:
    """What happened in a moment.

    Attributes:
        seconds: How long it was.
        requests: Requests that went well.
        amount: What they did, as it is to be maximised: requests, or bytes.
        refused: Requests that were refused because they were too many (429, 503).
        is_saturated: All that may be under way was, and more waited.
        cpu: Share of the time that the thread of the event loop was at work.
        late_seconds: How late the event loop was.
        bytes_moved: Bytes that moved, of requests that ended or not.
        in_flight: Requests under way at its end.
    """

    seconds: float
    requests: int
    amount: float
    refused: int = 0
    is_saturated: bool = True
    cpu: float = 0.0
    late_seconds: float = 0.0
    bytes_moved: int = 0
    in_flight: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """A change of how many at once, and why.

    Attributes:
        seconds: Of work since the lane began.
        lane: ``small`` or ``part``.
        limit: Requests at once from then on.
        per_second: What was measured before it: requests, or bytes of parts.
        reason: Why.
    """

    seconds: float
    lane: str
    limit: int
    per_second: float
    reason: Reason


@dataclass(slots=True)
class _Window:
    seconds: float = 0.0
    requests: int = 0
    amount: float = 0.0
    refused: int = 0
    saturated: float = 0.0
    cpu: float = 0.0
    late_seconds: float = 0.0
    bytes_moved: int = 0

    def add(self, tick: Tick) -> None:
        self.seconds += tick.seconds
        self.requests += tick.requests
        self.amount += tick.amount
        self.refused += tick.refused
        self.saturated += tick.seconds if tick.is_saturated else 0.0
        self.cpu += tick.cpu * tick.seconds
        self.late_seconds = max(self.late_seconds, tick.late_seconds)
        self.bytes_moved += tick.bytes_moved

    @property
    def units(self) -> float:
        """Work done, in requests."""
        return self.requests + self.refused + self.bytes_moved / UNIT_BYTES

    @property
    def rate(self) -> float:
        return self.amount / self.seconds

    @property
    def refused_share(self) -> float:
        return self.refused / max(1, self.requests + self.refused)

    @property
    def is_cpu_full(self) -> bool:
        return self.cpu / self.seconds >= _FULL_CPU or self.late_seconds >= _LATE_SECONDS


class LaneController:
    """Decides for one lane.

    Args:
        lane: ``small`` or ``part``.
        start: Requests at once in the beginning.
        most: Never more.
        window_seconds: Shortest and longest time that is measured. Parts need longer: a new connection of theirs is
            slow at first.

    Attributes:
        limit: Requests at once.
        most: Never more.
        trace: The latest changes.
    """

    def __init__(self, lane: str, start: int, most: int, *, window_seconds: tuple[float, float] = (0.2, 3.0)) -> None:
        self.lane = lane
        self.limit = max(1, min(start, most))
        self.most = most
        self._shortest, self._longest = window_seconds
        self._seconds = 0.0
        self._window = _Window()
        self._settle = 0.0  # seconds to pass over after a change
        self._latency = 0.0
        self._is_blind = True  # nothing has ended yet
        self._blind_seconds = 0.0
        self._is_doubling = True
        self._before: tuple[int, _Window] | None = None  # what a change is compared with
        self._reason: Reason = "start"  # of the change under trial
        self._best = 0.0
        self._pause = _FIRST_PAUSE
        self._next_probe = 0.0
        self._goes_down = False
        self._borne = _REFUSED_SHARE
        self.trace: deque[Step] = deque([Step(0.0, lane, self.limit, 0.0, "start")], maxlen=TRACE_STEPS)

    def observe(self, tick: Tick) -> int:
        """Take in what happened since the last call; returns how many at once from now on."""
        self._seconds += tick.seconds
        if self._is_blind:
            self._grow_blindly(tick)
        if self._settle > 0 or tick.in_flight > self.limit:
            self._settle -= tick.seconds
            return self.limit  # fewer are there only when those that are too many have ended
        window = self._window
        window.add(tick)
        if window.saturated < _SATURATED * window.seconds:
            if window.seconds >= self._shortest:
                self._lost_interest()
            return self.limit
        if self._is_enough(window):
            self._window = _Window()
            if window.requests:
                self._latency = self.limit * window.seconds / window.requests
            self._judge(window)
        return self.limit

    def _grow_blindly(self, tick: Tick) -> None:
        """Have more, while nothing has ended: where that takes long, there is room for more than this began with."""
        if tick.requests or tick.refused:
            self._is_blind = False
            return
        if not tick.is_saturated or tick.cpu >= _FULL_CPU or tick.late_seconds >= _LATE_SECONDS:
            return
        self._blind_seconds += tick.seconds
        if self._blind_seconds >= _BLIND_SECONDS - 1e-9 and self.limit < min(_MOST_BLIND, self.most):
            self._blind_seconds = 0.0
            self._set(min(2 * self.limit, _MOST_BLIND, self.most), 0.0, "try more")

    def _is_enough(self, window: _Window) -> bool:
        if window.units < self.limit:
            return False  # of most places nothing is known
        if window.seconds >= self._longest or (window.seconds >= _EARLY * self._longest and self._pays_clearly(window)):
            return True
        seconds = max(self._shortest, 2 * self._latency)
        # Chance alone must not look like an effect: shares are told from each other by counting longer.
        count = _REFUSED_COUNT if self._reason == "refused" or self._is_refused(window) else min(2 * self.limit, 200)
        return window.seconds >= seconds and window.requests + window.refused >= count

    def _pays_clearly(self, window: _Window) -> bool:
        """Whether *window* shows already that doubling pays, and nothing is refused."""
        if not self._is_doubling or self._before is None or window.refused:
            return False
        limit, old = self._before
        gain = window.rate / max(old.rate, 1e-9) - 1
        return gain >= _CLEARLY * _DOUBLING_PAYS * (self.limit / limit - 1)

    def _lost_interest(self) -> None:
        """There was not enough to do: what is under trial cannot be judged."""
        self._window = _Window()
        if self._before is not None and not self._is_doubling:
            limit, _ = self._before
            self._before = None
            self._set(limit, 0.0, "no gain")

    # --- judging ---------------------------------------------------------------------------------------------

    def _judge(self, window: _Window) -> None:
        rate = window.rate
        self._is_blind = False
        self._borne = max(_REFUSED_SHARE, self._borne * 0.5 ** (window.seconds / _BORNE_HALF_LIFE))
        before, self._before = self._before, None
        if self._reason == "refused" and before is not None:
            self._judge_fewer_refusals(*before, window)
        elif self._is_refused(window):
            self._send_fewer(window)
        elif self._is_doubling:
            self._judge_doubling(before, window)
        elif before is not None:
            self._judge_probe(*before, window)
        elif self._seconds >= self._next_probe:
            self._probe(window)
        self._best = max(rate, 0.98 * self._best)

    def _judge_doubling(self, before: tuple[int, _Window] | None, window: _Window) -> None:
        if before is not None:
            limit, old = before
            gain = window.rate / max(old.rate, 1e-9) - 1
            if gain < _DOUBLING_PAYS * (self.limit / limit - 1):
                self._end_doubling()
                # A fifth of the way to doubling is worth keeping; what brings less only makes others wait.
                if gain < 0.05:
                    self._set(limit, window.rate, "no gain")
                return
        if window.is_cpu_full or self.limit >= self.most:
            self._end_doubling()
            return
        self._try(min(2 * self.limit, self.most), window, "try more")

    def _end_doubling(self) -> None:
        self._is_doubling = False
        self._next_probe = self._seconds + self._pause / 2

    def _probe(self, window: _Window) -> None:
        """Try somewhat more, or fewer."""
        is_stuck = window.is_cpu_full or self.limit >= self.most
        goes_down = self.limit > 1 and (self._goes_down or is_stuck)
        self._goes_down = not goes_down
        if goes_down:
            self._try(max(1, min(self.limit - 1, int(self.limit * _STEP_DOWN))), window, "try fewer")
        elif not is_stuck:
            self._try(min(self.most, max(self.limit + 1, int(self.limit * _STEP_UP))), window, "try more")
        else:
            self._wait_for_next(went_well=False)

    def _judge_probe(self, limit: int, old: _Window, window: _Window) -> None:
        rate, grew = window.rate, self.limit > limit
        if grew:
            is_better = rate / max(old.rate, 1e-9) - 1 >= _MORE_PAYS * (self.limit / limit - 1)
            self._goes_down = not is_better
        else:
            is_better = rate >= _AS_GOOD * max(old.rate, self._best)
            self._goes_down = is_better
        self._wait_for_next(went_well=is_better)
        if is_better:
            self._note(rate, "pays" if grew else "as good")
        else:
            self._set(limit, rate, "no gain" if grew else "worse")

    def _send_fewer(self, window: _Window) -> None:
        """Too much was refused: send as much less, but so much that its effect can be seen."""
        share = min(_MOST_FEWER, max(_LEAST_FEWER, window.refused_share))
        fewer = max(1, int(self.limit * (1 - share)))
        if fewer < self.limit:
            self._try(fewer, window, "refused")
        else:
            self._bear(window.refused_share)

    def _bear(self, share: float) -> None:
        self._borne = max(self._borne, min(_MOST_BORNE, _BORNE_MORE * share))

    def _judge_fewer_refusals(self, limit: int, old: _Window, window: _Window) -> None:
        """Fewer were sent because of refusals: does each of them do more now?"""
        rate = window.rate
        self._reason = "start"
        each = (rate / self.limit) / max(old.rate / limit, 1e-9)
        if each < 1 + 0.5 * (limit / self.limit - 1):
            # As much is refused of less: that has other reasons than how many are sent.
            self._bear(old.refused_share)
            self._set(limit, rate, "borne")
            return
        if self._is_refused(window):
            self._send_fewer(window)
            return
        self._is_doubling = False
        if rate < 0.97 * old.rate:
            self._set(min(limit - 1, int(self.limit * old.rate / max(rate, 1e-9)) + 1), rate, "too few")
        # To ask for more at once would bring the refusals back.
        self._goes_down = False
        self._wait_for_next(went_well=False)

    def _is_refused(self, window: _Window) -> bool:
        return window.refused >= _LEAST_REFUSED and window.refused_share > self._borne

    # --- changing --------------------------------------------------------------------------------------------

    def _wait_for_next(self, *, went_well: bool) -> None:
        self._pause = _FIRST_PAUSE if went_well else min(1.5 * self._pause, _LONGEST_PAUSE)
        # What paid is tried again at once: a link that got better is followed within seconds.
        self._next_probe = self._seconds + (0.0 if went_well else self._pause)

    def _try(self, limit: int, window: _Window, reason: Reason) -> None:
        if limit == self.limit:
            return
        self._before = (self.limit, window)
        self._reason = reason
        self._set(limit, window.rate, reason)

    def _set(self, limit: int, rate: float, reason: Reason) -> None:
        if limit != self.limit:
            self.limit = limit
            self._settle = min(max(self._shortest / 2, self._latency), self._longest / 3)
            self._window = _Window()
        self._note(rate, reason)

    def _note(self, rate: float, reason: Reason) -> None:
        self.trace.append(Step(self._seconds, self.lane, self.limit, rate, reason))
