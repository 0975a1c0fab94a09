"""A server and a link as a queueing model, asked by so many requests at once as somebody says; in no time at all."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass

from asyncsdk.engine.limits.controller import Tick

__all__ = ["Model"]

TICK_SECONDS = 0.05


@dataclass(frozen=True)
class Model:
    """What is asked.

    Attributes:
        round_trip: Seconds.
        service: Seconds that the server works on a request, 30 % more or less.
        workers: How many it works on at once; the others wait.
        size: Bytes of an object.
        bandwidth: Bytes per second of the link; None: any.
        rate_limit: Requests per second; beyond, it answers 429 at once. None: any.
        bad: Share of requests that it refuses whatever is asked.
    """

    round_trip: float
    service: float
    workers: int
    size: int = 1
    bandwidth: float | None = None
    rate_limit: float | None = None
    bad: float = 0.0

    def run(self, limit: int, observe: Callable[[Tick], int] | None, seconds: float, seed: int = 1) -> float:
        """Return how many went well per second.

        Args:
            limit: Requests at once in the beginning.
            observe: Told what happened every 0.05 s, and says how many from then on; None: as many as ever.
        """
        rng = random.Random(seed)
        events: list[tuple[float, int, bool]] = []  # when a request comes back, and whether it went well
        free = [0.0] * self.workers
        link = tokens_since = now = 0.0
        tokens = 0.0
        number = in_flight = done = done_in_tick = refused_in_tick = 0
        next_tick = TICK_SECONDS
        while now < seconds:
            while in_flight < limit:
                in_flight += 1
                number += 1
                arrival = now + self.round_trip / 2
                if self.rate_limit is not None:
                    tokens = min(self.rate_limit / 10, tokens + (arrival - tokens_since) * self.rate_limit)
                    tokens_since = arrival
                if (self.rate_limit is not None and tokens < 1) or rng.random() < self.bad:
                    heapq.heappush(events, (arrival + self.round_trip / 2 + 0.0005, number, False))
                    continue
                tokens -= 1
                worker = min(range(self.workers), key=free.__getitem__)
                free[worker] = end = max(arrival, free[worker]) + self.service * rng.uniform(0.7, 1.3)
                if self.bandwidth is not None:
                    link = max(link, arrival) + self.size / self.bandwidth
                    end = max(end, link)
                heapq.heappush(events, (end + self.round_trip / 2, number, True))
            if events[0][0] > next_tick:
                now = next_tick
                next_tick += TICK_SECONDS
                if observe is not None:
                    well = done_in_tick
                    limit = observe(Tick(TICK_SECONDS, well, well * self.size, refused_in_tick, in_flight >= limit))
                done_in_tick = refused_in_tick = 0
                continue
            now, _, went_well = heapq.heappop(events)
            in_flight -= 1
            done += went_well
            done_in_tick += went_well
            refused_in_tick += not went_well
        return done / seconds
