"""aiohttp: the usual asynchronous client of Python."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import AsyncIterator
from typing import Any, ClassVar

from benchmarks.contenders.base import PythonContender, main, new_file, write_file
from benchmarks.jobs import Item, Kind

__all__ = ["Aiohttp"]

WHOLE_BYTES = 1024 * 1024
"""Larger bodies are streamed: aiohttp advises against passing them as bytes."""
STREAM_BYTES = 1024 * 1024
JSON_HEADERS = {"content-type": "application/json"}


class Aiohttp(PythonContender):
    """One `ClientSession`, small bodies as bytes, large ones as a stream with its length."""

    title = "aiohttp"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"put", "get", "ranges", "put_parts", "post"})
    loops = ("asyncio", "uvloop")
    packages = ("aiohttp",)
    session: Any

    async def open(self) -> None:
        """Make the session."""
        import aiohttp

        context = ssl.create_default_context(cafile=self.job.ca_file) if self.job.ca_file else True
        connector = aiohttp.TCPConnector(limit=self.concurrency, ssl=context)
        self.session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None),
            read_bufsize=256 * 1024,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close the session."""
        await self.session.close()

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
        async with self.session.put(url, data=data, headers={"content-length": str(size)}) as reply:
            self.check(reply.status, (200, 201, 204))
            await reply.read()

    async def get_one(self, item: Item) -> None:
        """Fetch one object: small ones whole, others as they come."""
        async with self.session.get(item.url) as reply:
            self.check(reply.status, (200,))
            if item.size_bytes < STREAM_BYTES:
                write_file(item.destination, await reply.read())
                return
            with new_file(item.destination) as fd:
                async for chunk in reply.content.iter_any():
                    os.write(fd, chunk)

    async def get_range(self, url: str, start: int, stop: int, fd: int) -> None:
        """Fetch a range and write it where it belongs."""
        async with self.session.get(url, headers={"range": f"bytes={start}-{stop - 1}"}) as reply:
            self.check(reply.status, (206,))
            async for chunk in reply.content.iter_any():
                start += os.pwrite(fd, chunk, start)

    async def post_one(self, url: str, body: bytes) -> None:
        """Send a POST and read its answer."""
        async with self.session.post(url, data=body, headers=JSON_HEADERS) as reply:
            self.check_post(reply.status, await reply.read())


async def _stream(fd: int, start: int, stop: int) -> AsyncIterator[bytes]:
    while start < stop:
        data = os.pread(fd, min(STREAM_BYTES, stop - start), start)
        start += len(data)
        yield data


if __name__ == "__main__":
    sys.exit(main(Aiohttp))
