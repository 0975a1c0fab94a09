"""asyncsdk as it comes: the engine with its default transport, everything on."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

from asyncsdk.transport.base import BytesBody, Reply, Request, Transport
from asyncsdk.transport.lean import Exchange, LeanTransport
from benchmarks.contenders.base import POST_BODY, WorkFailed, main
from benchmarks.contenders.ours import PLATFORM_KINDS, Ours
from benchmarks.jobs import Batch, Kind

__all__ = ["OursLean"]


class OursLean(Ours):
    """The engine with its default transport; POST by the lean transport itself."""

    title = "asyncsdk, default transport"
    kinds: ClassVar[frozenset[Kind]] = Ours.kinds | PLATFORM_KINDS
    servers = frozenset({"nginx", "s3", "platform"})
    loops: ClassVar[tuple[str, ...]] = ("asyncio", "uvloop")

    def posting_transport(self) -> Transport:
        """Return the lean transport."""
        return LeanTransport()

    async def post(self, batch: Batch, items: Any) -> None:
        """Send the same 2 KiB of JSON again and again, without a task for each, and look at the answers."""
        assert isinstance(self._transport, LeanTransport)
        left = iter(range(batch.count))
        posters = [_Poster(self._transport, f"{self.job.endpoint}/post", left) for _ in range(self.concurrency)]
        for poster in posters:
            poster.go_on()
        await asyncio.gather(*(poster.ended for poster in posters))


class _Poster(Exchange):
    """Posts one body after the other on the connection that just became free."""

    def __init__(self, transport: LeanTransport, url: str, left: Iterator[int]) -> None:
        headers = {"content-type": "application/json"}
        super().__init__(Request("POST", url, headers, BytesBody(POST_BODY)))
        self._transport = transport
        self._left = left
        self._expected = b'{"received":%d}' % len(POST_BODY)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def go_on(self) -> None:
        """Begin the next, if there is one."""
        if next(self._left, None) is None:
            self.ended.set_result(None)
        else:
            self.reported = 0
            self._transport.begin(self)

    def succeed(self, reply: Reply) -> None:
        """Look at the answer, and go on."""
        if reply.status != 200 or reply.body != self._expected:
            self.fail(WorkFailed(f"POST was answered with status {reply.status}: {reply.body[:100]!r}"))
        else:
            self.go_on()

    def fail(self, error: Exception) -> None:
        """End the work."""
        self.ended.set_exception(error)


if __name__ == "__main__":
    sys.exit(main(OursLean))
