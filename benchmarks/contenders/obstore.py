"""obstore: Rust's object_store, bound to asyncio."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

from benchmarks.contenders.base import PythonContender, main, new_file, read_file, write_file
from benchmarks.jobs import Item, Kind
from benchmarks.workloads import Workload

__all__ = ["Obstore"]

WHOLE_BYTES = 1024 * 1024
STREAM_BYTES = 1024 * 1024
WHOLE_OBJECTS_BYTES = 4 * 1024**3


class Obstore(PythonContender):
    """A store for one server; it has no POST, and sends a large file by reading all of it first."""

    title = "obstore (Rust)"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"put", "get", "ranges", "put_parts"})
    servers = frozenset({"nginx", "s3"})
    packages = ("obstore",)
    store: Any

    @classmethod
    def cannot(cls, workload: Workload) -> str | None:
        """Return why it has no part in *workload*, None when it has one."""
        if workload.kind == "put" and workload.is_large and workload.total_bytes > WHOLE_OBJECTS_BYTES:
            return f"reads objects as a whole: {workload.total_bytes / 1024**3:.0f} GiB of memory at once"
        return super().cannot(workload)

    async def open(self) -> None:
        """Make the store."""
        from obstore.store import HTTPStore, S3Store

        options: Any = {"allow_http": True, "timeout": timedelta(minutes=10)}
        if self.job.ca_file:
            options["root_certificate"] = self.job.ca_file.read_bytes()
        if self.job.server == "nginx":
            self.store = HTTPStore(self.job.endpoint, client_options=options)
        else:
            self.store = S3Store(
                "bench",
                endpoint=self.job.endpoint,
                region="us-east-1",
                access_key_id="bench",
                secret_access_key="bench-secret",
                virtual_hosted_style_request=False,
                client_options=options,
            )

    def _path(self, url: str) -> str:
        path = urlsplit(url).path.lstrip("/")
        return path if self.job.server == "nginx" else path.removeprefix("bench/")

    async def put_one(self, item: Item) -> None:
        """Send one file."""
        import obstore

        source: Any = Path(item.source)
        if item.size_bytes <= WHOLE_BYTES:
            source = read_file(item.source, item.size_bytes)
        multipart = self.job.server == "s3" and item.size_bytes > WHOLE_BYTES
        await obstore.put_async(self.store, self._path(item.url), source, use_multipart=multipart)

    async def put_part(self, url: str, start: int, stop: int, fd: int) -> None:
        """Send a slice of a file."""
        import obstore

        data = os.pread(fd, stop - start, start)
        await obstore.put_async(self.store, self._path(url), data, use_multipart=False)

    async def get_one(self, item: Item) -> None:
        """Fetch one object: up to 1 MiB whole, others as they come."""
        import obstore

        reply = await obstore.get_async(self.store, self._path(item.url))
        if item.size_bytes <= WHOLE_BYTES:
            write_file(item.destination, await reply.bytes_async())
            return
        with new_file(item.destination) as fd:
            async for chunk in reply.stream(STREAM_BYTES):
                os.write(fd, chunk)

    async def get_range(self, url: str, start: int, stop: int, fd: int) -> None:
        """Fetch a range and write it where it belongs."""
        import obstore

        data = await obstore.get_range_async(self.store, self._path(url), start=start, end=stop)
        os.pwrite(fd, data, start)


if __name__ == "__main__":
    sys.exit(main(Obstore))
