"""httpx: the client that most Python SDKs are built on."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import AsyncIterator
from typing import Any, ClassVar

from benchmarks.contenders.base import PythonContender, main, new_file, write_file
from benchmarks.jobs import Item, Kind

__all__ = ["Httpx"]

WHOLE_BYTES = 1024 * 1024
STREAM_BYTES = 1024 * 1024
JSON_HEADERS = {"content-type": "application/json"}


class Httpx(PythonContender):
    """One `AsyncClient` with eight connections: its pool grows dearer with the square of them."""

    title = "httpx"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"put", "get", "ranges", "put_parts", "post"})
    packages = ("httpx",)
    share = 0.25
    concurrencies: ClassVar[dict[Kind, int]] = {"put": 8, "get": 8, "post": 8}
    client: Any

    async def open(self) -> None:
        """Make the client."""
        import httpx

        verify: Any = ssl.create_default_context(cafile=self.job.ca_file) if self.job.ca_file else True
        limits = httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        self.client = httpx.AsyncClient(verify=verify, limits=limits, timeout=None, trust_env=False)

    async def close(self) -> None:
        """Close the client."""
        await self.client.aclose()

    async def put_one(self, item: Item) -> None:
        """Send one file."""
        fd = os.open(item.source, os.O_RDONLY)
        try:
            await self.put_part(item.url, 0, item.size_bytes, fd)
        finally:
            os.close(fd)

    async def put_part(self, url: str, start: int, stop: int, fd: int) -> None:
        """Send a slice of a file."""
        size = stop - start
        data: Any = os.pread(fd, size, start) if size <= WHOLE_BYTES else _stream(fd, start, stop)
        reply = await self.client.put(url, content=data, headers={"content-length": str(size)})
        self.check(reply.status_code, (200, 201, 204))

    async def get_one(self, item: Item) -> None:
        """Fetch one object: small ones whole, others as they come."""
        if item.size_bytes < STREAM_BYTES:
            reply = await self.client.get(item.url)
            self.check(reply.status_code, (200,))
            write_file(item.destination, reply.content)
            return
        with new_file(item.destination) as fd:
            async with self.client.stream("GET", item.url) as reply:
                self.check(reply.status_code, (200,))
                async for chunk in reply.aiter_raw():
                    os.write(fd, chunk)

    async def get_range(self, url: str, start: int, stop: int, fd: int) -> None:
        """Fetch a range and write it where it belongs."""
        async with self.client.stream("GET", url, headers={"range": f"bytes={start}-{stop - 1}"}) as reply:
            self.check(reply.status_code, (206,))
            async for chunk in reply.aiter_raw():
                start += os.pwrite(fd, chunk, start)

    async def post_one(self, url: str, body: bytes) -> None:
        """Send a POST and read its answer."""
        reply = await self.client.post(url, content=body, headers=JSON_HEADERS)
        self.check_post(reply.status_code, reply.content)


async def _stream(fd: int, start: int, stop: int) -> AsyncIterator[bytes]:
    while start < stop:
        data = os.pread(fd, min(STREAM_BYTES, stop - start), start)
        start += len(data)
        yield data


if __name__ == "__main__":
    sys.exit(main(Httpx))
