"""The express lane: what it promises beside the outcomes, which `tests/integration/test_lanes_agree.py` compares."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import resource
import threading
import time
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from asyncsdk.engine import Download, Engine, Outcome, PutTarget, Upload, UrlOrigin
from asyncsdk.engine.config import MiB
from asyncsdk.errors import DestinationUnwritable, SourceNotFound
from tests.support.feeds import RecordingFeed
from tests.support.http_server import HttpServer, answer, close, stall
from tests.unit.engine.conftest import config


class CheapServer(asyncio.Protocol):
    """Answers every request, and parses no more of it than its length."""

    def __init__(self) -> None:
        self._seen = b""
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            self._seen += data
            head, end, body = self._seen.partition(b"\r\n\r\n")
            if not end:
                return
            self._seen = b""
            self._missing = int(re.search(rb"Content-Length: (\d+)", head)[1]) - len(body)  # type: ignore[index]
        if not self._missing:
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
async def cheap() -> AsyncIterator[str]:
    server = await asyncio.get_running_loop().create_server(CheapServer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def beats(counts: list[int], done: list[object]) -> None:
    """Note, in every turn of the event loop, how many outcomes there were."""
    while True:
        counts.append(len(done))
        await asyncio.sleep(0)


def gaps(counts: list[int]) -> int:
    """Return the most outcomes of one turn."""
    return max(after - before for before, after in pairwise(counts))


async def test_what_fails_at_once_lets_others_run(tmp_path: Path) -> None:
    """A hundred thousand files that are not there neither recurse nor keep the event loop for themselves."""
    count = 100_000
    paths = (tmp_path / f"{number}" for number in range(count))
    transfers = (Upload(path, PutTarget("http://127.0.0.1:9/x")) for path in paths)
    begun: list[int] = []
    turns: list[int] = []
    outcomes = 0

    async with Engine(config(concurrency=16, max_pending=10_000)) as engine:
        run = engine.run(transfers)
        finish = run._finish

        def counted(outcome: Outcome, *, counts: bool = True) -> None:
            begun.append(1)
            finish(outcome, counts=counts)

        run._finish = counted  # type: ignore[method-assign]
        async with run:
            beat = asyncio.create_task(beats(turns, begun))
            async for outcome in run:
                assert isinstance(outcome.error, SourceNotFound)
                outcomes += 1
            beat.cancel()
    assert outcomes == count
    assert gaps(turns) <= 16 * 32


async def test_instant_answers_let_others_run(cheap: str) -> None:
    """While objects go through one after the other, everybody else gets a turn between a few of them."""
    turns: list[int] = []
    outcomes: list[object] = []
    transfers = (Upload(b"x" * 100, PutTarget(f"{cheap}/x")) for _ in range(5_000))
    async with Engine(config(concurrency=4)) as engine, engine.run(transfers) as run:
        beat = asyncio.create_task(beats(turns, outcomes))
        async for outcome in run:
            assert outcome.status == "done"
            outcomes.append(outcome)
        beat.cancel()
    assert len(outcomes) == 5_000
    assert gaps(turns) <= 100


async def test_memory_does_not_grow_with_the_number_of_objects(cheap: str) -> None:
    """The second hundred thousand tiny uploads take no more than the first left."""

    async def go(engine: Engine, count: int) -> int:
        done = 0
        async with engine.run(Upload(b"x" * 100, PutTarget(f"{cheap}/x")) for _ in range(count)) as run:
            async for outcome in run:
                done += outcome.status == "done"
        return done

    async with Engine(config(concurrency=8)) as engine:
        assert await go(engine, 20_000) == 20_000
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert await go(engine, 60_000) == 60_000
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 8 * 1024  # in KiB


async def test_a_slow_disk_is_left_to_threads(cheap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading takes 3 ms: after some, threads do it, several at once, and the event loop only now and then."""
    path = tmp_path / "source"
    path.write_bytes(b"x" * 1000)
    ours = threading.get_ident()
    readers: list[bool] = []
    read = os.pread

    def slow(fd: int, size: int, offset: int) -> bytes:
        readers.append(threading.get_ident() == ours)
        time.sleep(0.003)
        return read(fd, size, offset)

    monkeypatch.setattr(os, "pread", slow)
    monkeypatch.setattr("asyncsdk.engine.express._DETOUR_SECONDS", 60.0)
    async with Engine(config(concurrency=8)) as engine:
        report = await engine.collect(Upload(path, PutTarget(f"{cheap}/x")) for _ in range(600))
    assert report.done == 600
    assert len(readers) == 600
    assert sum(readers) < 300, "most of them by threads"


async def test_a_slow_destination_is_left_to_threads(
    server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for downloads whose files take long to be put in place."""
    server.objects["/o"] = b"x" * 1000
    ours = threading.get_ident()
    writers: list[bool] = []
    replace = os.replace

    def slow(source: str, destination: str) -> None:
        writers.append(threading.get_ident() == ours)
        time.sleep(0.003)
        replace(source, destination)

    monkeypatch.setattr(os, "replace", slow)
    monkeypatch.setattr("asyncsdk.engine.express._DETOUR_SECONDS", 60.0)
    origin = UrlOrigin(server.url("/o"), size_bytes=1000)
    async with Engine(config(concurrency=8)) as engine:
        report = await engine.collect(Download(origin, tmp_path / f"{number}") for number in range(600))
    assert report.done == 600
    assert len(writers) == 600
    assert sum(writers) < 300
    assert len(list(tmp_path.iterdir())) == 600


async def test_what_cannot_be_removed_fails_alone(
    server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that went read-only: nothing can be written, nor what was begun be removed. The run goes on."""
    server.objects["/o"] = b"x" * 1000

    def refuse(*arguments: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    origin = UrlOrigin(server.url("/o"), size_bytes=1000)
    transfers = [Download(origin, tmp_path / f"{number}") for number in range(20)]
    async with Engine(config()) as engine, engine.run(transfers) as run:
        monkeypatch.setattr(os, "pwrite", refuse)
        monkeypatch.setattr(os, "unlink", refuse)
        outcomes = [outcome async for outcome in run]
        monkeypatch.undo()
    assert len(outcomes) == 20
    assert all(isinstance(outcome.error, DestinationUnwritable) for outcome in outcomes)


async def test_files_that_fail_while_they_are_sent_do_not_recurse(
    cheap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken disk: what cannot be read ends its exchange while it begins, a thousand times in a row."""
    path = tmp_path / "source"
    path.write_bytes(b"x" * 100_000)

    def broken(*arguments: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    async with Engine(config(concurrency=200)) as engine:
        assert (await engine.collect(Upload(b"x", PutTarget(f"{cheap}/x")) for _ in range(1000))).done == 1000
        for name in ("pread", "preadv", "sendfile"):
            monkeypatch.setattr(os, name, broken)
        report = await engine.collect(Upload(path, PutTarget(f"{cheap}/x")) for _ in range(1000))
    assert report.failed == 1000


async def test_runs_share_one_slot_by_turns(server: HttpServer) -> None:
    """With one slot, several runs of one engine come forward together, also beside a transfer of the other lane."""
    order: list[int] = []
    async with Engine(config(concurrency=1)) as engine:

        async def go(number: int) -> None:
            transfers = [Upload(b"x", PutTarget(server.url(f"/{number}"))) for _ in range(50)]
            async with engine.run(transfers) as run:
                async for outcome in run:
                    assert outcome.status == "done"
                    order.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(go(number))
            group.create_task(engine.upload(b"y", PutTarget(server.url("/alone"))))
    assert server.most_active == 1
    assert all(order.index(number) < 30 for number in range(3))
    assert all(max(at for at, one in enumerate(order) if one == number) > 120 for number in range(3))


async def test_a_consumer_that_stops_reading_stops_the_feed(cheap: str) -> None:
    """Not more than `max_pending` are taken; what fails is counted among them; then it goes on."""
    feed = RecordingFeed(
        Upload(b"x" if number % 2 else Path("/nowhere"), PutTarget(f"{cheap}/x")) for number in range(500)
    )
    async with Engine(config(max_pending=40)) as engine, engine.run(feed) as run:
        seen = 0
        async for _ in run:
            seen += 1
            if seen == 10:
                for _ in range(200):
                    await asyncio.sleep(0)
                assert feed.taken <= 10 + 40
    assert seen == 500


def _descriptors() -> set[str]:
    return {f"{path.name} {path.readlink()}" for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}


def _mixed(server: HttpServer, folder: Path) -> Iterator[Upload | Download]:
    for number in range(40):
        yield Upload(folder / "small", PutTarget(server.url("/up")))
        yield Upload(folder / "large", PutTarget(server.url("/up")))
        yield Download(UrlOrigin(server.url("/down"), size_bytes=20_000), folder / "out" / f"known{number}")
        yield Download(server.url("/large"), folder / "out" / f"unknown{number}")
        yield Upload(folder / "missing", PutTarget(server.url("/up")))
        yield Download(server.url("/gone"), folder / "out" / f"gone{number}")


async def test_cancelled_in_any_turn_it_leaves_nothing(server: HttpServer, tmp_path: Path) -> None:
    """Whatever the carriers are at: no descriptor, temporary file, slot or task is left when the run is."""
    (tmp_path / "out").mkdir()
    (tmp_path / "small").write_bytes(b"x" * 20_000)
    (tmp_path / "large").write_bytes(b"x" * 700_000)
    server.objects |= {"/down": b"x" * 20_000, "/large": b"x" * 1_500_000}
    for turns in [*range(20), *range(20, 400, 17)]:
        server.script("/up", answer(503), close(), answer(403), stall())
        engine = Engine(config(concurrency=3))
        slots = engine._open().slots
        before = _descriptors()
        others = asyncio.all_tasks()

        async def use(engine: Engine = engine) -> None:
            await engine.collect(_mixed(server, tmp_path))

        task = asyncio.create_task(use())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        left = {one for one in asyncio.all_tasks() - others if "_accept" not in repr(one)}
        assert not left, turns
        assert slots.free == 3, turns
        assert not list((tmp_path / "out").rglob(".*")), turns
        files = {name for name in _descriptors() - before if str(tmp_path) in name}
        assert not files, turns
        await engine.aclose()
        server._scripts.clear()


async def test_cancelling_waits_for_the_thread_that_writes(
    server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a thread is writing to a file, the cancelled run does not end; then the file is gone."""
    server.objects["/o"] = b"x" * 4 * MiB
    ours = threading.get_ident()
    begun, go = threading.Event(), threading.Event()
    write = os.pwrite

    def slow(fd: int, data: bytes | memoryview, offset: int) -> int:
        if threading.get_ident() == ours:
            time.sleep(0.06)
        else:
            begun.set()
            assert go.wait(10)
        return write(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", slow)
    async with Engine(config(multipart_threshold=8 * MiB)) as engine:
        origin = UrlOrigin(server.url("/o"), size_bytes=4 * MiB)
        task = asyncio.create_task(engine.collect([Download(origin, tmp_path / "object")]))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        task.cancel()
        for _ in range(100):
            await asyncio.sleep(0)
        assert not task.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert list(tmp_path.iterdir()) == []
