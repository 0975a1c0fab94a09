"""How the limits of one engine are shared out among its workers: the one place for it.

A worker gets its shares with its settings when it starts, and is told when they change.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from asyncsdk.engine.config import Bandwidth, TransferConfig
from asyncsdk.engine.limits import Limits

__all__ = ["Share", "has_rates", "share_out", "shares_of", "worker_config"]

_SETTLE_SIZE = 64
_SETTLE_SECONDS = 0.02
"""Outcomes come back in batches: one alone would cost the parent as much as fifty."""

_MEMORY_SHARE = 2
"""Of the parent's, for all workers together: with two and 256 MiB, each may have 82 connections (41 with TLS)."""

_UNBOUNDED = 1_000_000
"""The parent bounds what a worker holds; it needs no bound of its own."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one worker may use of what may change while it runs.

    Attributes:
        concurrency: Requests at once, or ``auto``: it finds out by itself, up to its share of the most there may be.
        up: Bytes per second sent; None: no limit.
        down: Bytes per second received; None: no limit.
        requests_per_second: Requests that may begin per second; None: no limit.
    """

    concurrency: int | Literal["auto"]
    up: int | None = None
    down: int | None = None
    requests_per_second: float | None = None

    def apply(self, limits: Limits) -> None:
        """Hold an engine to it."""
        limits.concurrency = self.concurrency
        limits.bandwidth = Bandwidth(self.up, self.down)
        limits.requests_per_second = self.requests_per_second


def share_out(total: int, count: int) -> list[int]:
    """Return *count* even shares of *total*, the rest to the first, at least 1 each."""
    each, rest = divmod(total, count)
    return [max(1, each + (index < rest)) for index in range(count)]


def shares_of(limits: Limits, count: int) -> list[Share]:
    """Return what each of *count* workers may use right now."""

    def split(total: int | None) -> Iterator[int | None]:
        yield from [None] * count if total is None else share_out(total, count)

    concurrency = limits.concurrency
    requests = None if limits.requests_per_second is None else limits.requests_per_second / count
    at_once: list[int | Literal["auto"]] = ["auto"] * count
    if isinstance(concurrency, int):
        at_once = [*share_out(concurrency, count)]
    found = limits.bandwidth or Bandwidth()
    return [
        Share(number, up, down, requests)
        for number, up, down in zip(at_once, split(found.up), split(found.down), strict=True)
    ]


def has_rates(limits: Limits) -> bool:
    """Whether there are limits per second: those are held in one process, exactly."""
    return limits.requests is not None or limits.sent is not None or limits.received is not None


def worker_config(config: TransferConfig, number: int, memory_bytes: int) -> TransferConfig:
    """Return the settings of worker *number*: those of the engine, with its shares in place of the whole.

    How long a run may take, and how much may fail in it, is for the parent to see to; limits per second are told when
    there are some.

    Args:
        memory_bytes: The parent's budget. It keeps all of it, for what needs memory stays with it: streams, and
            downloads into memory. Workers, which move bytes between files and sockets, share half as much on top, for
            their connections.
    """
    count = config.processes
    most = share_out(config.most_concurrency, count)[number]
    retry = config.retry
    return replace(
        config,
        processes=1,
        concurrency="auto" if config.concurrency == "auto" else most,
        concurrency_max=most,
        bandwidth=None,
        requests_per_second=None,
        deadline_seconds=None,
        max_failures=None,
        large_objects=share_out(config.large_objects, count)[number],
        memory_bytes=max(memory_bytes // (_MEMORY_SHARE * count), config.part_size),
        max_pending=_UNBOUNDED,
        settle_size=_SETTLE_SIZE,
        settle_seconds=_SETTLE_SECONDS,
        retry=replace(retry, budget_least=-(-retry.budget_least // count)),
    )
