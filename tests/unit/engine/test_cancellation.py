"""Cancelled at every single suspension, a transfer leaves nothing behind."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.engine import Download, Engine, FileTarget, PutTarget, StreamSink, Upload, UrlOrigin
from asyncsdk.engine.budget import process_budget
from asyncsdk.engine.config import MiB
from tests.support.feeds import multipart_target
from tests.support.http_server import HttpServer
from tests.support.suspensions import cancel_at
from tests.unit.engine.conftest import config

SMALL, LARGE = os.urandom(1000), os.urandom(3 * MiB)


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 700_000):
        await asyncio.sleep(0)
        yield data[start : start + 700_000]


async def swallow(data: bytes) -> None:
    await asyncio.sleep(0)


Verb = Callable[[Engine, HttpServer, Path], Coroutine[Any, Any, object]]


def big(server: HttpServer) -> UrlOrigin:
    return UrlOrigin(server.url("/big"), size_bytes=len(LARGE))


def many(server: HttpServer, folder: Path) -> list[Upload | Download]:
    return [
        Upload(folder / "source" / "small", PutTarget(server.url("/s"))),
        Upload(pieces(LARGE), multipart_target(server, 3)),
        Download(server.url("/big"), folder / "out" / "copy"),
        Download(big(server), None),
        Upload(folder / "source" / "large", FileTarget(folder / "out", "x")),
    ]


VERBS: dict[str, Verb] = {
    "small file": lambda e, s, p: e.upload(p / "source" / "small", PutTarget(s.url("/o"))),
    "large file": lambda e, s, p: e.upload(p / "source" / "large", PutTarget(s.url("/o"))),
    "stream": lambda e, s, p: e.upload(pieces(LARGE), PutTarget(s.url("/o"))),
    "file in parts": lambda e, s, p: e.upload(p / "source" / "large", multipart_target(s, 3)),
    "stream in parts": lambda e, s, p: e.upload(pieces(LARGE), multipart_target(s, 3)),
    "small to file": lambda e, s, p: e.download(s.url("/small"), p / "out" / "copy"),
    "large to file": lambda e, s, p: e.download(s.url("/big"), p / "out" / "copy"),
    "large to memory": lambda e, s, p: e.download(big(s)),
    "large to stream": lambda e, s, p: e.download(s.url("/big"), StreamSink(swallow)),
    "copy in": lambda e, s, p: e.upload(p / "source" / "large", FileTarget(p / "out", "x")),
    "run": lambda e, s, p: e.collect(many(s, p)),
}


@pytest.mark.parametrize("name", sorted(VERBS))
async def test_nothing_is_left_whenever_it_is_cancelled(server: HttpServer, tmp_path: Path, name: str) -> None:
    """No task, descriptor, temporary file, byte of the budget or slot; an upload in parts is completed or aborted."""
    server.objects |= {"/small": SMALL, "/big": LARGE}
    (tmp_path / "source").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "source" / "small").write_bytes(SMALL)
    (tmp_path / "source" / "large").write_bytes(LARGE)
    finished = False
    k = 0
    descriptors = _descriptors()
    # Every suspension at first, then in growing steps: the ends of long transfers look alike.
    while not finished:
        k += 1 if k < 40 else max(1, k // 8)
        server.uploads.clear()
        server.requests.clear()
        engine = Engine(config(concurrency=2))
        slots = engine._open().slots

        async def use(engine: Engine = engine) -> None:
            await VERBS[name](engine, server, tmp_path)

        finished = await cancel_at(k, use)
        assert process_budget().leased_bytes == 0, k
        assert slots.free == 2, k
        left = {t for t in asyncio.all_tasks() if t is not asyncio.current_task() and "_accept" not in repr(t)}
        assert not left, k
        assert [p.name for p in (tmp_path / "out").iterdir() if p.name.startswith(".")] == [], k
        await engine.aclose()
        await _until(lambda: _descriptors() == descriptors)  # the server notices a little later
        if any("partNumber" in request.query for request in server.requests):
            await _until(lambda: not any(upload.is_open for upload in server.uploads.values()))
        for path in (tmp_path / "out").iterdir():
            path.unlink()
        server.objects |= {"/small": SMALL, "/big": LARGE}
    assert k > 1


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.002)
    assert condition()


async def test_a_second_cancellation_does_not_lose_the_thread(tmp_path: Path) -> None:
    """A thread that uses a descriptor is waited for, however often its task is cancelled."""
    import threading

    from asyncsdk.transport.threads import Threads

    threads = Threads(1)
    go, over = threading.Event(), threading.Event()

    def work() -> str:
        go.wait(10)
        over.set()
        return "result"

    undone: list[str] = []
    task = asyncio.create_task(threads.run(work, undo=undone.append))
    for _ in range(3):
        await asyncio.sleep(0.01)
        task.cancel()
    await asyncio.sleep(0.01)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert over.is_set()
    assert undone == ["result"]
    threads.close()
