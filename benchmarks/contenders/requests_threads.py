"""requests in a pool of threads: how SDKs without asyncio move many files."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.contenders.base import POST_BODY, PythonContender, main, new_file, read_file
from benchmarks.jobs import Batch, Item, Kind

__all__ = ["RequestsThreads"]

CHUNK_BYTES = 1024 * 1024
JSON_HEADERS = {"content-type": "application/json"}


class RequestsThreads(PythonContender):
    """A `Session` for each of eight threads that share one iterator."""

    title = "requests + threads"
    kinds: ClassVar[frozenset[Kind]] = frozenset({"put", "get", "ranges", "put_parts", "post"})
    packages = ("requests",)
    share = 0.25
    concurrencies: ClassVar[dict[Kind, int]] = {"put": 8, "get": 8, "post": 8}

    def __init__(self, job: Any) -> None:
        super().__init__(job)
        self._local = threading.local()
        self._sessions: list[Any] = []
        self._threads = ThreadPoolExecutor(self.concurrency)

    async def close(self) -> None:
        """Close sessions and threads."""
        self._threads.shutdown()
        for session in self._sessions:
            session.close()

    async def put(self, batch: Batch, items: Iterable[Item]) -> None:
        """Send each file as one object."""

        def one(item: Item) -> None:
            if item.size_bytes <= CHUNK_BYTES:
                reply = self._session().put(item.url, data=read_file(item.source, item.size_bytes))
            else:
                with Path(item.source).open("rb") as file:
                    reply = self._session().put(item.url, data=file)
            self.check(reply.status_code, (200, 201, 204))

        self._each(items, one)

    async def get(self, batch: Batch, items: Iterable[Item]) -> None:
        """Fetch each object into a file."""

        def one(item: Item) -> None:
            with self._session().get(item.url, stream=True) as reply, new_file(item.destination) as fd:
                self.check(reply.status_code, (200,))
                for chunk in reply.iter_content(CHUNK_BYTES):
                    os.write(fd, chunk)

        self._each(items, one)

    async def ranges(self, batch: Batch, items: Iterable[Item]) -> None:
        """Fetch one object in ranges into one file."""
        item = batch.item(0)
        fd = os.open(item.destination, os.O_RDWR | os.O_CREAT, 0o644)
        try:

            def one(part: tuple[int, int, str]) -> None:
                start, stop, _ = part
                headers = {"range": f"bytes={start}-{stop - 1}"}
                with self._session().get(item.url, headers=headers, stream=True) as reply:
                    self.check(reply.status_code, (206,))
                    for chunk in reply.iter_content(CHUNK_BYTES):
                        start += os.pwrite(fd, chunk, start)

            self._each(batch.parts(self.job.part_size), one)
        finally:
            os.close(fd)

    async def put_parts(self, batch: Batch, items: Iterable[Item]) -> None:
        """Send one file as a request for each part."""
        item = batch.item(0)
        fd = os.open(item.source, os.O_RDONLY)
        try:

            def one(part: tuple[int, int, str]) -> None:
                start, stop, url = part
                headers = {"content-length": str(stop - start)}
                reply = self._session().put(url, data=_Slice(fd, start, stop), headers=headers)
                self.check(reply.status_code, (200, 201, 204))

            self._each(batch.parts(self.job.part_size), one)
        finally:
            os.close(fd)

    async def post(self, batch: Batch, items: Iterable[Item]) -> None:
        """Send the same 2 KiB of JSON again and again."""
        url = f"{self.job.endpoint}/post"

        def one(_: int) -> None:
            reply = self._session().post(url, data=POST_BODY, headers=JSON_HEADERS)
            self.check_post(reply.status_code, reply.content)

        self._each(range(batch.count), one)

    def _session(self) -> Any:
        session = getattr(self._local, "session", None)
        if session is None:
            import requests

            session = self._local.session = requests.Session()
            session.trust_env = False
            session.verify = str(self.job.ca_file) if self.job.ca_file else True
            self._sessions.append(session)
        return session

    def _each(self, items: Iterable[Any], work: Callable[[Any], None]) -> None:
        shared, lock = iter(items), threading.Lock()

        def worker() -> None:
            while True:
                with lock:
                    item = next(shared, None)
                if item is None:
                    return
                work(item)

        for done in [self._threads.submit(worker) for _ in range(self.concurrency)]:
            done.result()


class _Slice:
    """Bytes ``[start, stop)`` of a file as a readable with a length, which requests streams."""

    def __init__(self, fd: int, start: int, stop: int) -> None:
        self._fd, self._at, self._stop = fd, start, stop

    def __len__(self) -> int:
        return self._stop - self._at

    def read(self, size: int = -1) -> bytes:
        wanted = self._stop - self._at if size < 0 else min(size, self._stop - self._at)
        data = os.pread(self._fd, wanted, self._at)
        self._at += len(data)
        return data

    def __iter__(self) -> Iterator[bytes]:
        while data := self.read(CHUNK_BYTES):
            yield data


if __name__ == "__main__":
    sys.exit(main(RequestsThreads))
