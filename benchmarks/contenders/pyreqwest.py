"""pyreqwest: Rust's reqwest, bound to asyncio."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from typing import Any, ClassVar

from benchmarks.contenders.base import PythonContender, main, new_file, write_file
from benchmarks.jobs import Item, Kind

__all__ = ["Pyreqwest"]

WHOLE_BYTES = 1024 * 1024
STREAM_BYTES = 1024 * 1024


class Pyreqwest(PythonContender):
    """One client; bodies up to 1 MiB as bytes, larger ones as a stream."""

    title = "pyreqwest (Rust)"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"put", "get", "ranges", "put_parts", "post"})
    loops = ("asyncio", "uvloop")
    packages = ("pyreqwest",)
    client: Any

    async def open(self) -> None:
        """Make the client."""
        from pyreqwest.client import ClientBuilder

        builder = ClientBuilder().http1_only().no_proxy().max_connections(self.concurrency)
        if self.job.ca_file:
            builder = builder.add_root_certificate_pem(self.job.ca_file.read_bytes())
        self.client = await builder.build().__aenter__()

    async def close(self) -> None:
        """Close the client."""
        await self.client.__aexit__(None, None, None)

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
        builder = self.client.put(url)
        if size <= WHOLE_BYTES:
            builder = builder.body_bytes(os.pread(fd, size, start))
        else:
            builder = builder.header("content-length", str(size)).body_stream(_stream(fd, start, stop))
        reply = await builder.build().send()
        self.check(reply.status, (200, 201, 204))

    async def get_one(self, item: Item) -> None:
        """Fetch one object: up to 1 MiB whole, others as they come."""
        if item.size_bytes <= WHOLE_BYTES:
            reply = await self.client.get(item.url).build().send()
            self.check(reply.status, (200,))
            write_file(item.destination, await reply.bytes())
            return
        async with self.client.get(item.url).build_streamed() as reply:
            self.check(reply.status, (200,))
            with new_file(item.destination) as fd:
                while (chunk := await reply.body_reader.read(STREAM_BYTES)) is not None:
                    os.write(fd, chunk)

    async def get_range(self, url: str, start: int, stop: int, fd: int) -> None:
        """Fetch a range and write it where it belongs."""
        builder = self.client.get(url).header("range", f"bytes={start}-{stop - 1}")
        async with builder.build_streamed() as reply:
            self.check(reply.status, (206,))
            while (chunk := await reply.body_reader.read(STREAM_BYTES)) is not None:
                start += os.pwrite(fd, chunk, start)

    async def post_one(self, url: str, body: bytes) -> None:
        """Send a POST and read its answer."""
        builder = self.client.post(url).header("content-type", "application/json").body_bytes(body)
        reply = await builder.build().send()
        self.check_post(reply.status, bytes(await reply.bytes()))


async def _stream(fd: int, start: int, stop: int) -> AsyncIterator[bytes]:
    while start < stop:
        data = os.pread(fd, min(STREAM_BYTES, stop - start), start)
        start += len(data)
        yield data


if __name__ == "__main__":
    sys.exit(main(Pyreqwest))
