"""asyncsdk as it comes: the engine with its default transport, everything on."""

from __future__ import annotations

import sys
from typing import ClassVar

from asyncsdk.transport.base import Transport
from asyncsdk.transport.lean import LeanTransport
from benchmarks.contenders.base import main
from benchmarks.contenders.ours import PLATFORM_KINDS, Ours
from benchmarks.jobs import Kind

__all__ = ["OursLean"]


class OursLean(Ours):
    """The engine with its default transport; POST by the lean transport itself."""

    title = "asyncsdk, default transport"
    kinds: ClassVar[frozenset[Kind]] = Ours.kinds | PLATFORM_KINDS
    servers = frozenset({"nginx", "s3", "platform"})
    loops = ("asyncio", "uvloop")

    def posting_transport(self) -> Transport:
        """Return the lean transport."""
        return LeanTransport()


if __name__ == "__main__":
    sys.exit(main(OursLean))
