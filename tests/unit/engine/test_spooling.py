"""Streams whose parts find no memory go through a file; nobody waits for somebody who waits for him."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from asyncsdk.engine import Engine, FileTarget, UrlOrigin, spooling
from asyncsdk.engine.budget import process_budget
from asyncsdk.engine.config import MiB
from tests.support.feeds import multipart_target
from tests.support.http_server import HttpServer
from tests.unit.engine.conftest import config


@pytest.fixture(autouse=True)
def budget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Little memory, and little patience."""
    monkeypatch.setattr(spooling, "PATIENCE_SECONDS", 0.05)
    limit = process_budget().limit_bytes
    process_budget().resize(4 * MiB)
    yield
    process_budget().resize(limit)


def spools() -> int:
    """Return how many temporary files without a name are open."""
    count = 0
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):
            count += str(link.readlink()).endswith(" (deleted)")
    return count


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """No memory, no file."""
    before = spools()
    yield
    assert process_budget().leased_bytes == 0
    assert spools() == before


@pytest.mark.parametrize("piece", [MiB, 3 * MiB // 4])
async def test_many_uploads_fed_by_downloads_do_not_wait_for_each_other_for_ever(
    server: HttpServer, piece: int
) -> None:
    """Twelve pipes in memory for two parts: each side would hold what the other one needs."""
    server.objects["/in"] = data = os.urandom(3 * MiB)

    async def pipe(number: int) -> AsyncIterator[bytes]:
        async with engine.stream(UrlOrigin(server.url("/in"), size_bytes=len(data))) as pieces:
            rest = b""
            async for some in pieces:
                rest += some
                while len(rest) >= piece:
                    yield rest[:piece]
                    rest = rest[piece:]
            yield rest

    async with Engine(config(concurrency=8)) as engine, asyncio.timeout(60):
        targets = [
            multipart_target(server, 2, path=f"/out{number}", upload_id=f"U{number}", part_size=2 * MiB)
            for number in range(12)
        ]
        outcomes = await asyncio.gather(*(engine.upload(pipe(n), target) for n, target in enumerate(targets)))
    assert all(outcome.ok for outcome in outcomes)
    assert all(server.objects[f"/out{number}"] == data for number in range(12))


async def test_memory_is_let_go_of_when_the_source_gives_nothing_and_others_wait(server: HttpServer) -> None:
    """Uploads with half a part each hold everything; somebody else gets it, and they go on afterwards."""
    go_on = asyncio.Event()
    halves = [os.urandom(MiB) for _ in range(4)]

    async def source(data: bytes) -> AsyncIterator[bytes]:
        yield data[: MiB // 2]
        await go_on.wait()
        yield data[MiB // 2 :]

    async with Engine(config()) as engine, asyncio.timeout(30):
        targets = [multipart_target(server, 2, path=f"/{number}", upload_id=f"U{number}") for number in range(4)]
        tasks = [
            asyncio.create_task(engine.upload(source(data), target))
            for data, target in zip(halves, targets, strict=True)
        ]
        while process_budget().leased_bytes < 2 * MiB:  # the rest is kept for connections
            await asyncio.sleep(0.01)
        with await process_budget().take(4 * MiB):
            assert not any(task.done() for task in tasks)
            go_on.set()
            await asyncio.gather(*tasks)
    assert [server.objects[f"/{number}"] for number in range(4)] == halves


async def test_a_cancelled_upload_leaves_neither_memory_nor_file(server: HttpServer) -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        await asyncio.Event().wait()

    before = spools()
    async with Engine(config()) as engine:
        task = asyncio.create_task(engine.upload(source(), multipart_target(server, 2)))
        async with asyncio.timeout(10):
            while not process_budget().leased_bytes:
                await asyncio.sleep(0.01)
            waiting = asyncio.create_task(process_budget().take(4 * MiB))
            while spools() == before:
                await asyncio.sleep(0.01)
            (await waiting).release()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("is_scarce", [False, True])
async def test_memory_for_a_part_is_taken_as_it_fills(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch, is_scarce: bool
) -> None:
    """A part may be far larger than its stream: what is set aside follows what came. A file takes it all where memory
    ends half-way."""
    monkeypatch.setattr(spooling, "_STEP_BYTES", MiB // 4)
    data, before = os.urandom(MiB + 5), spools()
    leased: list[int] = []

    async def source() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 100_000):
            leased.append(process_budget().leased_bytes - (0 if not is_scarce else 2 * MiB))
            yield data[start : start + 100_000]
        leased.append(spools() - before)

    async with Engine(config()) as engine, asyncio.timeout(30):
        held = await process_budget().take(2 * MiB) if is_scarce else None
        target = multipart_target(server, 2, path="/o", part_size=2 * MiB)
        outcome = await engine.upload(source(), target)
        if held is not None:
            held.release()
    assert outcome.size_bytes == len(data)
    assert server.objects["/o"] == data
    *leased, spooled = leased
    assert leased[1] == MiB // 4
    assert all(size <= (number + 2) * 100_000 + MiB // 4 for number, size in enumerate(leased))
    assert spooled == is_scarce
    assert is_scarce or max(leased) == MiB


async def test_a_stream_that_is_copied_without_memory_arrives(server: HttpServer, tmp_path: Path) -> None:
    """Into a folder of this machine, too."""
    data = os.urandom(3 * MiB + 5)

    async def source() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 300_000):
            yield data[start : start + 300_000]

    async with Engine(config()) as engine, asyncio.timeout(30):
        with await process_budget().take(4 * MiB):
            await engine.upload(source(), FileTarget(tmp_path, "copy"))
    (copy,) = tmp_path.iterdir()
    assert copy.read_bytes() == data
