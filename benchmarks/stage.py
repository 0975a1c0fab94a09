"""Sets the stage of a run: source files, what servers hold, empty folders, and the job that names them all."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.jobs import Batch, Job, item_name
from benchmarks.nginx import Nginx
from benchmarks.servers import S3Server, ServedPlatform
from benchmarks.workloads import Workload

__all__ = ["Stage", "make_files"]

MIB = 1024 * 1024
WARM_COUNT = 200
WARM_BYTES = 32 * MIB
"""Largest object of a warm-up, and at most so many bytes of smaller ones."""


def make_files(folder: Path, *, count: int, size_bytes: int) -> None:
    """Write *count* files of random bytes, no two alike, named by `item_name`; done already: nothing to do."""
    done = folder.with_suffix(".done")
    if done.exists():
        return
    base = random.Random(20_26).randbytes(16 * MIB + 1)
    for number in range(count):
        path = folder / item_name(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for piece in _pieces(base, number * 7919, size_bytes):
                file.write(piece)
    done.touch()


def _pieces(base: bytes, start: int, size_bytes: int) -> Iterator[memoryview]:
    """Yield *size_bytes* of *base*, again and again; its odd length keeps parts of a large object apart."""
    view, start = memoryview(base), start % len(base)
    while size_bytes:
        piece = view[start : start + size_bytes]
        yield piece
        size_bytes -= len(piece)
        start = 0


class Stage:
    """Servers and folders for one workload; use it with ``with``.

    Args:
        workload: What will be done.
        folder: Where everything goes.
        nginx: The nginx of this run of the benchmarks.
        is_fresh: The file that ranges go to is not there before, so that everybody pays for its memory.
    """

    def __init__(self, workload: Workload, folder: Path, nginx: Nginx, *, is_fresh: bool = False) -> None:
        self._workload = workload
        self._is_fresh = is_fresh
        self._folder = folder
        self._nginx = nginx
        self._stack = ExitStack()
        self._s3: S3Server | None = None
        warm_size = min(workload.size_bytes, WARM_BYTES)
        warm_count = max(1, min(WARM_COUNT, WARM_BYTES // warm_size, workload.count))
        self._main_source = folder / f"source-{workload.distinct_sources}x{workload.size_bytes}"
        self._warm_source = folder / f"source-{warm_count}x{warm_size}"
        self._warm = (warm_count, warm_size)

    def __enter__(self) -> Self:
        work = self._workload
        try:
            if work.server == "s3":
                self._s3 = self._stack.enter_context(S3Server(self._folder))
            if work.kind != "post":
                make_files(self._main_source, count=work.distinct_sources, size_bytes=work.size_bytes)
                make_files(self._warm_source, count=self._warm[0], size_bytes=self._warm[1])
            if work.kind in {"get", "ranges"}:
                self._link("get", self._main_source, work.distinct_names, work.distinct_sources)
                self._link("get-warm", self._warm_source, self._warm[0], self._warm[0])
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        for folder in (*self._data.glob("*"), self._folder / "destination"):
            if folder.is_dir():
                shutil.rmtree(folder)

    @property
    def sources(self) -> set[Path]:
        """Folders of the files that are sent or compared."""
        return {self._main_source, self._warm_source}

    @property
    def _data(self) -> Path:
        """Folder of what the server holds."""
        return self._nginx.data if self._s3 is None else self._s3.data / "bench"

    def _link(self, name: str, source: Path, names: int, sources: int) -> None:
        """Let the server hold the source files themselves, under the names of the objects: no second copy in memory."""
        for number in range(names):
            path = self._data / name / item_name(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(source / item_name(number % sources), path)

    def job(self, share: float, loop: str, platform: ServedPlatform | None = None) -> Job:
        """Clear what the last run left and return the job for the next.

        Args:
            share: Part of the transfers that the contender does.
            loop: Its event loop.
            platform: A fresh served platform, for workloads against one.
        """
        work = self._workload.shared(share)
        destination = self._folder / "destination"
        for folder in (destination, self._data / "up", self._data / "up-warm"):
            shutil.rmtree(folder, ignore_errors=True)
        if platform is not None:
            endpoint, pids = platform.url, (platform.pid,)
        elif self._s3 is not None:
            endpoint, pids = self._s3.url, (self._s3.pid,)
        else:
            endpoint, pids = (self._nginx.tls_url if work.is_tls else self._nginx.url), (self._nginx.pid,)
        prefix = f"{endpoint}/bench" if self._s3 is not None else endpoint
        place = "get" if work.kind in {"get", "ranges"} else "up"
        main = Batch(
            work.count, work.size_bytes, work.distinct_names, work.distinct_sources, self._main_source,
            f"{prefix}/{place}", destination / "main", self._data / place,
        )  # fmt: skip
        count, size = self._warm
        warm = Batch(
            count, size, count, count, self._warm_source,
            f"{prefix}/{place}-warm", destination / "warm", self._data / f"{place}-warm",
        )  # fmt: skip
        for batch in (main, warm):
            _make_destination(batch, is_allocated=work.kind == "ranges" and not self._is_fresh)
        fresh = work.size_bytes * work.distinct_names
        return Job(
            case=work.name,
            kind=work.kind,
            server=work.server,
            warm=warm,
            main=main,
            endpoint=endpoint,
            server_pids=pids,
            concurrency=work.concurrency,
            part_size=work.part_size,
            loop=loop,
            pretouch_bytes=fresh if work.kind != "post" else 0,
            is_lazy=work.is_lazy,
            memory_bytes=work.memory_bytes,
            ca_file=self._nginx.ca_file if work.is_tls else None,
            status_url=self._nginx.url if work.server == "nginx" else "",
            token=platform.token if platform is not None else "",
        )


def _make_destination(batch: Batch, *, is_allocated: bool) -> None:
    """Make the folders that downloads go to; *is_allocated* writes zeros where a single file will be.

    Who can write into a file that is there does not pay for its pages; who replaces it does, ours among them.
    """
    folders = {str(Path(batch.item(n).destination).parent) for n in range(0, min(batch.count, batch.names), 1000)}
    for folder in (str(batch.destination), *folders):
        Path(folder).mkdir(parents=True, exist_ok=True)
    if is_allocated:
        zeros = bytes(8 * MIB)
        with Path(batch.item(0).destination).open("wb", buffering=0) as file:
            left = batch.size_bytes
            while left:
                left -= file.write(zeros[: min(left, len(zeros))])
