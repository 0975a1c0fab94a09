"""Memory does not grow with the number of objects, and keeps to the formula of `TransferConfig`."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest

from asyncsdk.engine import (
    Download,
    Engine,
    MultipartTarget,
    PutTarget,
    StreamSink,
    Transfer,
    TransferConfig,
    Upload,
    UrlOrigin,
)
from asyncsdk.engine.budget import process_budget
from asyncsdk.engine.config import MiB
from tests.support.feeds import RecordingFeed
from tests.support.transports import InstantTransport

OBJECT = 48 * MiB


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
async def test_many_tiny_uploads_keep_memory_flat(tmp_path: Path, count: int) -> None:
    path = tmp_path / "tiny"
    path.write_bytes(b"x")
    target = PutTarget("http://h/o")
    process = psutil.Process()
    seen: list[int] = []

    def transfers() -> Iterator[Upload]:
        for number in range(count):
            yield Upload(path, target, key=number)

    feed = RecordingFeed(transfers(), on_settle=lambda outcomes: outcomes)
    async with Engine(TransferConfig(), transport=InstantTransport()) as engine, engine.run(feed) as outcomes:
        done = 0
        async for outcome in outcomes:
            assert outcome.ok
            done += 1
            feed.settled.clear()
            if done % (count // 10) == 0:
                gc.collect()
                seen.append(process.memory_info().rss)
    assert done == count
    assert seen[-1] - seen[2] < 4 * MiB


async def zeros() -> AsyncIterator[bytes]:
    for _ in range(OBJECT // MiB):
        yield bytes(MiB)


async def swallow(data: bytes) -> None:
    assert data


def parts() -> MultipartTarget:
    return MultipartTarget("U", MiB, tuple("http://h/p" for _ in range(OBJECT // MiB)), "")


KINDS: dict[str, Callable[[Path], Transfer]] = {
    "streams in parts": lambda folder: Upload(zeros(), parts()),
    "files in parts": lambda folder: Upload(folder / "file", parts()),
    "files at once": lambda folder: Upload(folder / "file", PutTarget("http://h/o")),
    "ranges to streams": lambda folder: Download(UrlOrigin("http://h/o", size_bytes=OBJECT), StreamSink(swallow)),
}


@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_peak_memory_keeps_to_the_formula(tmp_path: Path, kind: str) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.truncate(OBJECT)
    config = TransferConfig(
        concurrency=4, large_objects=4, part_size=MiB, multipart_threshold=MiB, memory_bytes=8 * MiB
    )
    limit = process_budget().limit_bytes
    try:
        async with Engine(config, transport=InstantTransport(OBJECT)) as engine:
            transfers = [KINDS[kind](tmp_path) for _ in range(6)]
            gc.collect()
            tracemalloc.start()
            try:
                (await engine.collect(transfers)).raise_for_failures()
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
    finally:
        process_budget().resize(limit)
    assert config.memory_bytes is not None
    assert peak < config.memory_bytes + config.concurrency * 2 * MiB + 2 * MiB


async def test_downloads_into_memory_keep_to_the_formula() -> None:
    size = 2 * MiB
    config = TransferConfig(concurrency=4, part_size=MiB, multipart_threshold=4 * MiB, memory_bytes=8 * MiB)
    limit = process_budget().limit_bytes
    try:
        async with Engine(config, transport=InstantTransport(size)) as engine:
            transfers = (Download(UrlOrigin("http://h/o", size_bytes=size)) for _ in range(60))
            gc.collect()
            tracemalloc.start()
            try:
                async with engine.run(transfers) as outcomes:
                    async for outcome in outcomes:
                        assert outcome.size_bytes == size
                        del outcome
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
    finally:
        process_budget().resize(limit)
    assert config.memory_bytes is not None
    assert peak < config.memory_bytes * 1.25 + config.concurrency * (2 * MiB + size) + 2 * MiB
