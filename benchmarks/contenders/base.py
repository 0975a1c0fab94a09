"""What every contender is: a way to open, to do each kind of work, and to close. The rest is the same for all of them.

`main` reads the job, warms up (connections, code, a part of the work), does the work inside a `Section`, then verifies
what arrived, and prints the figures. A contender that is no fair match is worth nothing: each does its work the way its
documentation advises, with buffers and concurrency that suit it.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from abc import ABC
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.jobs import Batch, Item, Job, Kind
from benchmarks.measure import Section, ToolUsage, pretouch, run_tool
from benchmarks.nginx import requests_served
from benchmarks.verify import verify
from benchmarks.workloads import Workload

__all__ = [
    "POST_BODY",
    "Contender",
    "PythonContender",
    "Tool",
    "WorkFailed",
    "each",
    "find_program",
    "main",
    "new_file",
    "package_missing",
    "read_file",
    "write_file",
]

JSON_BODY = json.dumps({"items": [{"path": f"images/{n:05}.jpg", "size": n * 977} for n in range(44)], "pad": ""})
POST_BODY = (JSON_BODY[:-2] + "x" * (2048 - len(JSON_BODY)) + '"}').encode()
"""2 KiB of JSON, the same for everybody."""


class WorkFailed(RuntimeError):
    """The contender got an answer that is none, or something arrived with other bytes."""


class Contender(ABC):
    """One client of the comparison.

    Attributes:
        title: What tables call it, with what it is.
        kinds: What it can do.
        servers: What it can speak to.
        loops: Event loops it is measured with.
        packages: Python packages it needs; their versions are told.
        share: Which part of many small items it does, when it is so slow that the figure is known long before the end.
        concurrencies: Requests at once where another number suits it better than the workload's.
    """

    title: ClassVar[str]
    kinds: ClassVar[frozenset[Kind]]
    servers: ClassVar[frozenset[str]] = frozenset({"nginx"})
    loops: ClassVar[tuple[str, ...]] = ("asyncio",)
    packages: ClassVar[tuple[str, ...]] = ()
    share: ClassVar[float] = 1.0
    concurrencies: ClassVar[Mapping[Kind, int]] = {}

    def __init__(self, job: Job) -> None:
        self.job = job
        self.concurrency = self.concurrencies.get(job.kind, job.concurrency)
        self.usage: ToolUsage | None = None

    @classmethod
    def unavailable(cls) -> str | None:
        """Return why it cannot run here, None when it can."""
        return next((reason for name in cls.packages if (reason := package_missing(name))), None)

    @classmethod
    def version(cls) -> str:
        """Return the versions it runs with."""
        return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in cls.packages)

    @classmethod
    def cannot(cls, workload: Workload) -> str | None:
        """Return why it has no part in *workload*, None when it has one."""
        if workload.server not in cls.servers:
            return f"does not speak to {workload.server}"
        return None if workload.kind in cls.kinds else f"has no way to do {workload.kind}"

    async def open(self) -> None:  # noqa: B027  # a program has nothing to open
        """Make the session; connections may be opened."""

    async def close(self) -> None:  # noqa: B027  # nor to close
        """Close what `open` made."""

    async def check_arrived(self) -> None:  # noqa: B027  # `verify` sees what nginx and S3 keep
        """After the clock stopped: raise `WorkFailed` unless all is where only this contender can look."""

    def prepare(self, batch: Batch) -> Any:
        """Return what the work needs that any user would have at hand already; not measured."""
        return batch.items() if self.job.is_lazy else list(batch.items())

    async def perform(self, batch: Batch, prepared: Any) -> None:
        """Do all of *batch*; every failure is raised."""
        await getattr(self, self.job.kind)(batch, prepared)


class PythonContender(Contender):
    """A Python library: one coroutine for each kind of work, all with the same arguments."""

    async def put(self, batch: Batch, items: Iterable[Item]) -> None:
        """Send each file as one object."""
        await each(items, self.put_one, self.concurrency)

    async def get(self, batch: Batch, items: Iterable[Item]) -> None:
        """Fetch each object into a file."""
        await each(items, self.get_one, self.concurrency)

    async def ranges(self, batch: Batch, items: Iterable[Item]) -> None:
        """Fetch one object in ranges into one file, several at once."""
        item = batch.item(0)
        fd = os.open(item.destination, os.O_RDWR | os.O_CREAT, 0o644)
        try:

            async def one(part: tuple[int, int, str]) -> None:
                await self.get_range(item.url, part[0], part[1], fd)

            await each(batch.parts(self.job.part_size), one, self.concurrency)
        finally:
            os.close(fd)

    async def put_parts(self, batch: Batch, items: Iterable[Item]) -> None:
        """Send one file as a request for each part, several at once."""
        item = batch.item(0)
        fd = os.open(item.source, os.O_RDONLY)
        try:

            async def one(part: tuple[int, int, str]) -> None:
                await self.put_part(part[2], part[0], part[1], fd)

            await each(batch.parts(self.job.part_size), one, self.concurrency)
        finally:
            os.close(fd)

    async def post(self, batch: Batch, items: Iterable[Item]) -> None:
        """Send the same 2 KiB of JSON again and again, and read the answers."""
        url = f"{self.job.endpoint}/post"

        async def one(_: int) -> None:
            await self.post_one(url, POST_BODY)

        await each(range(batch.count), one, self.concurrency)

    async def put_one(self, item: Item) -> None:
        """Send one file."""
        raise WorkFailed("this contender has no upload")

    async def get_one(self, item: Item) -> None:
        """Fetch one object into its file."""
        raise WorkFailed("this contender has no download")

    async def get_range(self, url: str, start: int, stop: int, fd: int) -> None:
        """Fetch bytes ``[start, stop)`` and write them there."""
        raise WorkFailed("this contender has no ranges")

    async def put_part(self, url: str, start: int, stop: int, fd: int) -> None:
        """Send bytes ``[start, stop)`` of a file as one object."""
        raise WorkFailed("this contender has no parts")

    async def post_one(self, url: str, body: bytes) -> None:
        """Send *body* and check the answer with `check_post`."""
        raise WorkFailed("this contender has no POST")

    def check_post(self, status: int, body: bytes) -> None:
        """Raise `WorkFailed` unless the server took the whole body of a POST."""
        if status != 200 or json.loads(body) != {"received": len(POST_BODY)}:
            raise WorkFailed(f"POST was answered with status {status}: {body[:100]!r}")

    def check(self, status: int, expected: tuple[int, ...]) -> None:
        """Raise `WorkFailed` unless *status* is one of those."""
        if status not in expected:
            raise WorkFailed(f"status {status} instead of {expected}")


class Tool(Contender):
    """A program of its own; its CPU and memory count, not those of the process that waits for it.

    Attributes:
        program: Its name.
    """

    program: ClassVar[str]

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.usage = ToolUsage()

    @classmethod
    def unavailable(cls) -> str | None:
        """Return why it cannot run here, None when it can."""
        if find_program(cls.program) is None:
            return f"the program {cls.program} is not installed (benchmarks/install_tools.py)"
        return super().unavailable()

    @classmethod
    def version(cls) -> str:
        """Return the first line the program says of itself."""
        reply = subprocess.run(
            [find_program(cls.program) or cls.program, *cls.version_arguments()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        return (reply.stdout or reply.stderr).strip().partition("\n")[0]

    @classmethod
    def version_arguments(cls) -> list[str]:
        """Return what makes it tell its version."""
        return ["--version"]

    def prepare(self, batch: Batch) -> list[str]:
        """Return the command line that does all of *batch*; may write files for it."""
        raise WorkFailed("this program has no command")

    def environment(self) -> dict[str, str] | None:
        """Return the environment of the program; None: this one."""
        return None

    async def perform(self, batch: Batch, prepared: Any) -> None:
        """Run the program."""
        assert self.usage is not None
        self.usage.user_seconds = self.usage.system_seconds = 0.0
        self.usage.peak_bytes = 0
        run_tool(prepared, self.usage, self.environment())


async def each(items: Iterable[Any], work: Callable[[Any], Awaitable[None]], concurrency: int) -> None:
    """Do *work* for every item by *concurrency* tasks that share one iterator; the first failure ends all."""
    shared = iter(items)

    async def worker() -> None:
        for item in shared:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())


@contextmanager
def new_file(path: str) -> Iterator[int]:
    """Make *path* anew and give its descriptor; cheaper than a file object, and nobody here needs more."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        yield fd
    finally:
        os.close(fd)


def read_file(path: str, size_bytes: int) -> bytes:
    """Return the *size_bytes* that *path* holds, by one read."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.pread(fd, size_bytes, 0)
    finally:
        os.close(fd)


def write_file(path: str, data: Any) -> None:
    """Make *path* anew with *data* in it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def package_missing(name: str) -> str | None:
    """Return a sentence when the Python package *name* is not installed."""
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return f"the Python package {name} is not installed (extra bench)"
    return None


def find_program(name: str) -> str | None:
    """Return the program *name*: beside this interpreter, where pip puts it, or on the path."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.is_file() else shutil.which(name)


async def _run(kind: type[Contender], job: Job) -> Section:
    contender = kind(job)
    await contender.open()
    try:
        section = Section(job.server_pids, contender.usage)
        await contender.perform(job.warm, contender.prepare(job.warm))
        prepared = contender.prepare(job.main)
        pretouch(job.pretouch_bytes)
        before = requests_served(job.status_url) if job.status_url else 0
        with section:
            await contender.perform(job.main, prepared)
        served = requests_served(job.status_url) - before - 1 if job.status_url else None
        await contender.check_arrived()
    finally:
        await contender.close()
    section.figures.objects, section.figures.size_bytes = job.main.count, job.main.total_bytes
    verify(job, served)
    return section


def main(kind: type[Contender]) -> int:
    """Do the job on standard input and print its figures."""
    job = Job.from_json(sys.stdin.read())
    if job.loop == "uvloop":
        import uvloop

        section = uvloop.run(_run(kind, job))
    else:
        section = asyncio.run(_run(kind, job))
    print(json.dumps(asdict(section.figures)))
    return 0
