"""asyncsdk as it comes, concurrency too: adaptive; on the platform with its journal, as always."""

from __future__ import annotations

import sys
from typing import ClassVar

from asyncsdk.engine import TransferConfig
from benchmarks.contenders.base import main
from benchmarks.contenders.ours_lean import OursLean
from benchmarks.jobs import Kind

__all__ = ["OursAuto"]


class OursAuto(OursLean):
    """The engine with every default: it finds out itself how many requests at once pay."""

    title = "asyncsdk, concurrency auto"
    kinds: ClassVar[frozenset[Kind]] = OursLean.kinds - {"post"}  # POST goes through the transport alone
    loops: ClassVar[tuple[str, ...]] = ("asyncio",)

    def config(self) -> TransferConfig:
        """Settings: the defaults but for what the workload says of memory."""
        return TransferConfig(memory_bytes=self.job.memory_bytes)


if __name__ == "__main__":
    sys.exit(main(OursAuto))
