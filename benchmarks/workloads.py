"""What is measured: one definition of each workload, for every contender; sizes scale down for a quick run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from benchmarks.jobs import Kind

__all__ = ["QUICK_SCALE", "WORKLOADS", "Workload", "chosen"]

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
QUICK_SCALE = 0.05
LEAST_COUNT = 50
LEAST_BYTES = 32 * MIB


@dataclass(frozen=True, slots=True)
class Workload:
    """One piece of work.

    Attributes:
        name: What it is asked for by (``--case``), and called in tables.
        title: What it is, in words.
        kind: What a contender must be able to do.
        count: How many transfers.
        size_bytes: Of each object.
        concurrency: Requests at once, unless a contender says that another number suits it.
        server: ``nginx``, ``s3`` (rclone) or ``platform`` (``asyncsdk serve``).
        is_tls: TLS 1.3, AES-128-GCM; only nginx.
        names: Distinct objects; fewer than transfers for large ones, whose fresh memory would be what is measured. 0:
            as many as transfers.
        sources: Distinct files behind them; 0: as many as names.
        part_size: Bytes of a part or range.
        is_lazy: The list of work is made while it is done, so that peak memory is the contender's.
        memory_bytes: Byte budget of our engine; None: its default.
    """

    name: str
    title: str
    kind: Kind
    count: int
    size_bytes: int
    concurrency: int = 16
    server: str = "nginx"
    is_tls: bool = False
    names: int = 0
    sources: int = 0
    part_size: int = 16 * MIB
    is_lazy: bool = False
    memory_bytes: int | None = None

    @property
    def distinct_names(self) -> int:
        """Distinct objects."""
        return min(self.names or self.count, self.count)

    @property
    def distinct_sources(self) -> int:
        """Distinct files at the client's end."""
        return min(self.sources or self.distinct_names, self.distinct_names)

    @property
    def is_large(self) -> bool:
        """Whether its cost is told per GiB, and not per transfer."""
        return self.size_bytes >= MIB

    @property
    def total_bytes(self) -> int:
        """Bytes that move."""
        return self.count * self.size_bytes

    def scaled(self, factor: float) -> Workload:
        """Return the same work with fewer objects, or smaller ones where there are few."""
        if factor == 1.0:
            return self
        if self.count >= LEAST_COUNT:
            return replace(self, count=max(int(self.count * factor), LEAST_COUNT))
        return replace(self, size_bytes=max(int(self.size_bytes * factor) // MIB * MIB, LEAST_BYTES))

    def shared(self, share: float) -> Workload:
        """Return the same work with a part of its transfers, for a contender that is slow; large ones stay whole."""
        return self if self.is_large else replace(self, count=max(int(self.count * share), 1))


_BASE = (
    Workload("small-up", "20,000 files of 20 KiB up", "put", 20_000, 20 * KIB),
    Workload("small-down", "20,000 files of 20 KiB down", "get", 20_000, 20 * KIB),
    Workload("medium-up", "2,000 files of 1 MiB up", "put", 2_000, MIB, 8, names=200),
    Workload("medium-down", "2,000 files of 1 MiB down", "get", 2_000, MIB, 8, names=200),
    Workload("large-down", "4 GiB down in ranges into one file", "ranges", 1, 4 * GIB, 4),
    Workload("large-up", "4 GiB up, one PUT", "put", 1, 4 * GIB, 4),
    Workload("large-up-parts", "4 GiB up in parts", "put_parts", 1, 4 * GIB, 4),
    Workload("post", "20,000 POSTs of 2 KiB of JSON", "post", 20_000, 2 * KIB),
)

_FEW = 256 * MIB
WORKLOADS: tuple[Workload, ...] = (
    *(
        variant
        for base in _BASE
        for variant in (
            replace(base, name=f"{base.name}-plain"),
            replace(base, name=f"{base.name}-tls", title=f"{base.title}, TLS", is_tls=True),
        )
    ),
    Workload(
        "memory-up", "10 x 1 GiB up at once", "put", 10, GIB, 10, sources=1, is_lazy=True, memory_bytes=_FEW
    ),
    Workload(
        "memory-down", "10 x 1 GiB down at once", "get", 10, GIB, 10, sources=1, is_lazy=True, memory_bytes=_FEW
    ),
    Workload("many-5k", "5,000 files of 2 KiB up", "put", 5_000, 2 * KIB, is_lazy=True),
    Workload("many-50k", "50,000 files of 2 KiB up", "put", 50_000, 2 * KIB, is_lazy=True),
    Workload(
        "platform-small-up", "10,000 files of 20 KiB to a dataset", "platform_put", 10_000, 20 * KIB, server="platform"
    ),
    Workload(
        "platform-small-down", "10,000 files of 20 KiB from it", "platform_get", 10_000, 20 * KIB, server="platform"
    ),
    Workload(
        "platform-large-up", "2 GiB to a dataset, in parts", "platform_put", 1, 2 * GIB, server="platform"
    ),
    Workload(
        "platform-large-down", "2 GiB from a dataset, in ranges", "platform_get", 1, 2 * GIB, server="platform"
    ),
    Workload(
        "platform-tiny-up", "100,000 files of 100 B to a dataset", "platform_put", 100_000, 100, server="platform"
    ),
    Workload("s3-small-up", "5,000 objects of 20 KiB to S3", "put", 5_000, 20 * KIB, server="s3"),
    Workload("s3-small-down", "5,000 objects of 20 KiB from S3", "get", 5_000, 20 * KIB, server="s3"),
    Workload("s3-large-up", "1 GiB to S3", "put", 1, GIB, 8, server="s3"),
    Workload("s3-large-down", "1 GiB from S3", "get", 1, GIB, 8, server="s3"),
)  # fmt: skip
"""All of them. Platform cases: the entity API, all its questions and commits counted."""


QUICK = (
    "small-up", "small-down", "medium-up-plain", "large-down", "large-up-plain", "post-plain", "memory-down",
    "platform-small-up", "platform-small-down", "platform-large-up", "s3-small-up",
)  # fmt: skip
"""What a quick run tries: every kind of work and every server."""


def chosen(names: Iterable[str] | None, *, quick: bool, scale: float) -> list[Workload]:
    """Return the workloads asked for, scaled; a name without its ending (``small-up``, ``s3``) is all that begin so.

    Raises:
        KeyError: No workload is called so.
    """
    found: list[Workload] = []
    for name in names or (QUICK if quick else [workload.name for workload in WORKLOADS]):
        exact = [workload for workload in WORKLOADS if workload.name == name]
        beginning = [workload for workload in WORKLOADS if workload.name.startswith(f"{name}-")]
        if not (exact or beginning):
            raise KeyError(name)
        found += exact or beginning
    return [workload.scaled(scale) for workload in dict.fromkeys(found)]
