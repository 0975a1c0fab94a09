"""How much at once, in what pieces, how patiently: the engine's settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from asyncsdk.errors import ConfigError
from asyncsdk.transport.base import Timeouts
from asyncsdk.transport.tls import TlsConfig

__all__ = ["GiB", "KiB", "MiB", "RetryPolicy", "TransferConfig"]

KiB = 1024
MiB = 1024 * KiB
GiB = 1024 * MiB


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed request is tried again.

    The wait before attempt n + 1 is uniform between 0 and ``min(wait_max_seconds, wait_initial_seconds * 2**(n-1))``
    ("full jitter"); a server's ``Retry-After`` replaces it, capped at ``retry_after_max_seconds``. Only errors whose
    ``retryable`` is true are tried again.

    Args:
        max_attempts: Attempts of one request, the first included; 1 turns retries off.
        wait_initial_seconds: Upper end of the first wait.
        wait_max_seconds: Upper end of any wait.
        retry_after_max_seconds: Longest wait a server may ask for.
    """

    max_attempts: int = 5
    wait_initial_seconds: float = 0.25
    wait_max_seconds: float = 20.0
    retry_after_max_seconds: float = 120.0

    def __post_init__(self) -> None:
        _at_least(self, 1, "max_attempts")
        _at_least(self, 0, "wait_initial_seconds", "wait_max_seconds", "retry_after_max_seconds")


@dataclass(frozen=True, slots=True)
class TransferConfig:
    """Settings of an engine.

    Peak memory is about ``memory_bytes + concurrency * 2 MiB`` (what the byte budget holds, shared by all engines of
    the process, and the chunks of requests in flight) plus ``max_pending`` small records, whatever the number and size
    of objects. Downloads into memory that nobody has taken yet add at most a quarter of ``memory_bytes`` and one object
    per request; from then on they are the caller's.

    Args:
        concurrency: Requests at once, small objects and parts together.
        part_size: Bytes per range of a large download, and per part of an upload from a stream when the target does
            not say, 1 MiB to 5 GiB.
        multipart_threshold: Downloads larger than this are read in ranges of ``part_size``.
        large_objects: Objects in several parts that are in flight at once.
        memory_bytes: Upper bound of buffers; None takes the process's own (256 MiB, or what was set before).
        max_pending: Transfers taken from the feed and not yet finished.
        settle_size: Outcomes that are settled by one call at most.
        settle_seconds: Longest wait before outcomes are settled though there are fewer.
        retry: When requests are tried again.
        timeouts: Longest single waits.
        check_source: Whether size and time of a file are compared before and after it was sent.
        cleanup_seconds: Longest wait for cleaning up (aborting a multipart upload) when cancelled.
        tls: Whom to trust on ``https`` connections of transfers, and our own certificate.
    """

    concurrency: int = 16
    part_size: int = 8 * MiB
    multipart_threshold: int = 16 * MiB
    large_objects: int = 4
    memory_bytes: int | None = None
    max_pending: int = 2000
    settle_size: int = 500
    settle_seconds: float = 0.5
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeouts: Timeouts = field(default_factory=Timeouts)
    check_source: bool = True
    cleanup_seconds: float = 10.0
    tls: TlsConfig = field(default_factory=TlsConfig)

    def __post_init__(self) -> None:
        _at_least(self, 1, "concurrency", "large_objects", "max_pending", "settle_size")
        _at_least(self, MiB, "part_size", "multipart_threshold")
        _at_least(self, 0, "settle_seconds", "cleanup_seconds")
        if self.part_size > 5 * GiB:
            raise ConfigError(f"part_size may be at most 5 GiB, not {self.part_size}")
        if self.memory_bytes is not None and self.memory_bytes < self.part_size:
            raise ConfigError(f"memory_bytes ({self.memory_bytes}) must hold at least one part ({self.part_size})")


def _at_least(config: Any, least: float, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, (int, float)) or value < least:
            raise ConfigError(f"{name} must be at least {least}, not {value!r}")
