"""How much at once, in what pieces, how patiently: the engine's settings."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from asyncsdk.errors import ConfigError
from asyncsdk.transport.base import Timeouts
from asyncsdk.transport.tls import TlsConfig

__all__ = ["Bandwidth", "Concurrency", "GiB", "KiB", "MiB", "RetryPolicy", "TransferConfig"]

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB

_LEAST_PAUSE_SECONDS = 120.0

Concurrency = int | Literal["auto"]
"""Requests at once: a number, or found out while running."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed request is tried again.

    The wait before attempt n + 1 is uniform between 0 and ``min(wait_max_seconds, wait_initial_seconds * 2**(n-1))``
    ("full jitter"), and never less than what the server asks for by ``Retry-After``, to which up to a tenth is added. A
    server that asks for a longer pause than is waited (`TransferConfig.longest_pause`) is not asked again: the error
    says how long. Only errors whose ``retryable`` is true are tried again.

    Args:
        max_attempts: Attempts of one request, the first included; 1 turns retries off.
        wait_initial_seconds: Upper end of the first wait.
        wait_max_seconds: Upper end of any wait.
        retry_after_max_seconds: When a server that asks for a longer pause is asked again all the same; None: never.
        budget_share: Retries that a run may make per request that went well.
        budget_least: Retries that it may make on top of that. When there is none left, what fails has failed: a server
            that is dying is not asked more and more.
    """

    # Of a million requests to a server that refuses a fifth of all, three fail after eight attempts; after five, 320.
    max_attempts: int = 8
    wait_initial_seconds: float = 0.25
    wait_max_seconds: float = 20.0
    retry_after_max_seconds: float | None = None
    # A server that refuses a fifth of all requests needs a quarter of a retry for each that goes well.
    budget_share: float = 0.5
    budget_least: int = 100

    def __post_init__(self) -> None:
        _at_least(self, 1, "max_attempts")
        _at_least(self, 0, "wait_initial_seconds", "wait_max_seconds")
        if self.retry_after_max_seconds is not None:
            _at_least(self, 0, "retry_after_max_seconds")
        _at_least(self, 0, "budget_share", "budget_least")


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Bytes of bodies per second, in each direction.

    Args:
        up: Sent; None: as many as there are.
        down: Received; None: as many as there are.

    Raises:
        ConfigError: One of them is not positive.
    """

    up: int | None = None
    down: int | None = None

    def __post_init__(self) -> None:
        for name in ("up", "down"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"a bandwidth must be a whole number of bytes per second, 1 or more, not {value!r}")

    @classmethod
    def of(cls, value: Bandwidth | int | None) -> Bandwidth:
        """Return what *value* means: a number is meant for each direction."""
        return value if isinstance(value, Bandwidth) else cls(value, value)


@dataclass(frozen=True, slots=True)
class TransferConfig:
    """Settings of an engine.

    Peak memory is about ``memory_bytes`` (what the byte budget holds, shared by all engines of the process: parts, and
    the buffers of connections) plus ``max_pending`` small records, whatever the number and size of objects, plus, for
    each of ``processes`` when there are several, 40 MiB and a part or its share of half of ``memory_bytes``. Downloads
    into memory that nobody has taken yet add at most a quarter of ``memory_bytes`` and one object per request; from
    then on they are the caller's.

    Args:
        concurrency: Requests at once, small objects and parts together; ``auto``: found out while running, of small
            objects and of parts apart, from 1 to ``concurrency_max`` each.
        concurrency_max: The most that ``auto`` may come to.
        bandwidth: Bytes of bodies per second: a number for each direction, or a `Bandwidth`; None: no limit. May be
            changed while running (``engine.limits.bandwidth``).
        requests_per_second: Requests that may begin per second; None: no limit. May be changed while running.
        deadline_seconds: How long a run, or a single transfer, may take. What is not done by then fails with
            `DeadlineExceeded`, what is done is settled; None: as long as it takes.
        outage_seconds: How long is waited for a server that is out: that refuses everything, or cannot be reached. What
            is meant for it waits, and single requests are tried; when one goes well, all goes on. After that time it
            fails with `CircuitOpen`, and a run in which nothing else goes well ends. One that never answered is not
            waited for: its name may be wrong. 0: nothing waits. Messages of bulk verbs to their platform wait as long.
        max_failures: Failed objects that end a run: what is under way is finished, nothing new is begun, and
            `TooManyFailures` is raised after the last outcome. None: it goes on, however many fail.
        hedge: Whether a part that takes far longer than the others do is asked for once more, when a slot is free for
            it; at most 5 % more bytes.
        part_size: Bytes per range of a large download, and per part of an upload from a stream when the target does
            not say, 1 MiB to 5 GiB.
        multipart_threshold: Downloads larger than this are read in ranges of ``part_size``.
        large_objects: Objects in several parts that are in flight at once.
        memory_bytes: Upper bound of buffers, those of connections too (384 KiB each, 768 with TLS, at most half of it);
            None takes the process's own (256 MiB, or what was set before).
        max_pending: Transfers taken from the feed and not yet finished.
        settle_size: Outcomes that are settled by one call at most.
        settle_seconds: Longest wait before outcomes are settled though there are fewer.
        retry: When requests are tried again.
        timeouts: Longest single waits.
        source_changed: What happens when size, time or inode of a file are others after it was sent than before, or
            its size is not the one that was announced: ``fail`` with `SourceChanged`; ``retry``: it is sent again, from
            its start, as often as ``retry`` allows, examined anew where that takes a feed (`ExaminingFeed`);
            ``accept``: nobody looks, and what was sent is what counts: of a file that has grown what was announced.
        cleanup_seconds: Longest wait for cleaning up (aborting a multipart upload) when cancelled.
        tls: Whom to trust on ``https`` connections of transfers, and our own certificate.
        processes: Worker processes that transfers between paths and URLs are spread over; 1: everything happens in this
            one. More pay where one core of Python is the limit (10 Gbit/s with TLS, or very many small files) and there
            are cores to spare. They start with the first run that lasts a second, and end with the engine.
            ``concurrency`` and ``large_objects`` are shared out among them, at least one each; what stays in this
            process (streams, downloads into memory, files of this machine, everything while there is a limit per
            second) has as many again.
    """

    concurrency: Concurrency = "auto"
    concurrency_max: int = 256
    bandwidth: Bandwidth | int | None = None
    requests_per_second: float | None = None
    deadline_seconds: float | None = None
    outage_seconds: float = 600.0
    max_failures: int | None = None
    hedge: bool = True
    part_size: int = 8 * MiB
    multipart_threshold: int = 16 * MiB
    large_objects: int = 4
    memory_bytes: int | None = None
    max_pending: int = 2000
    settle_size: int = 500
    settle_seconds: float = 0.5
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeouts: Timeouts = field(default_factory=Timeouts)
    source_changed: Literal["fail", "retry", "accept"] = "fail"
    cleanup_seconds: float = 10.0
    tls: TlsConfig = field(default_factory=TlsConfig)
    processes: int = 1

    def __post_init__(self) -> None:
        _at_least(self, 1, "concurrency_max", "large_objects", "max_pending", "settle_size")
        if self.concurrency != "auto" and (type(self.concurrency) is not int or self.concurrency < 1):
            raise ConfigError(f"concurrency must be 'auto' or at least 1, not {self.concurrency!r}")
        Bandwidth.of(self.bandwidth)
        for name in ("requests_per_second", "deadline_seconds"):
            value: object = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0):
                raise ConfigError(f"{name} must be more than 0, not {value!r}")
        _at_least(self, MiB, "part_size", "multipart_threshold")
        _at_least(self, 0, "settle_seconds", "cleanup_seconds", "outage_seconds")
        if self.max_failures is not None and (type(self.max_failures) is not int or self.max_failures < 1):
            raise ConfigError(f"max_failures must be a whole number of at least 1, not {self.max_failures!r}")
        if type(self.processes) is not int or self.processes < 1:
            raise ConfigError(f"processes must be a whole number of at least 1, not {self.processes!r}")
        if self.source_changed not in {"fail", "retry", "accept"}:
            raise ConfigError(f"source_changed must be 'fail', 'retry' or 'accept', not {self.source_changed!r}")
        if self.part_size > 5 * GiB:
            raise ConfigError(f"part_size may be at most 5 GiB, not {self.part_size}")
        if self.memory_bytes is not None and self.memory_bytes < self.part_size:
            raise ConfigError(f"memory_bytes ({self.memory_bytes}) must hold at least one part ({self.part_size})")

    @property
    def most_concurrency(self) -> int:
        """Requests at once that there may ever be."""
        return self.concurrency_max if self.concurrency == "auto" else self.concurrency

    @property
    def longest_pause(self) -> float:
        """The longest pause, in seconds, that is waited because a server asks for it (``Retry-After``):
        ``outage_seconds``, two minutes at least."""
        if self.retry.retry_after_max_seconds is not None:
            return math.inf  # it is cut to that
        return max(_LEAST_PAUSE_SECONDS, self.outage_seconds)

    @property
    def checks_source(self) -> bool:
        """Whether files are looked at again after they were sent."""
        return self.source_changed != "accept"


def _at_least(config: Any, least: float, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, (int, float)) or value < least:
            raise ConfigError(f"{name} must be at least {least}, not {value!r}")
