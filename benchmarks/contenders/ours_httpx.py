"""asyncsdk over httpx: what the engine costs with the transport that speaks everything."""

from __future__ import annotations

import sys

from asyncsdk.transport.base import Transport
from asyncsdk.transport.httpx_transport import HttpxTransport
from benchmarks.contenders.base import main
from benchmarks.contenders.ours import Ours

__all__ = ["OursHttpx"]


class OursHttpx(Ours):
    """The engine with the httpx transport."""

    title = "asyncsdk over httpx"
    share = 0.25

    def transport(self) -> Transport | None:
        """Return the httpx transport."""
        return HttpxTransport()

    def posting_transport(self) -> Transport:
        """Return the httpx transport."""
        return HttpxTransport()


if __name__ == "__main__":
    sys.exit(main(OursHttpx))
