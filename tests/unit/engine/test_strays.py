"""A cancellation that comes from the caller's own code is a failure, never a quiet end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import anyio
import pytest

from asyncsdk.engine import Download, Engine, IterableFeed, Outcome, Progress, PutTarget, StreamSink, Upload, UrlOrigin
from asyncsdk.engine.config import MiB
from asyncsdk.errors import DestinationUnwritable, SourceUnreadable, TransferError
from tests.support.feeds import RecordingFeed, multipart_target
from tests.support.http_server import HttpServer, answer, stall


async def cancelled_by_itself() -> None:
    future = asyncio.get_running_loop().create_future()
    future.cancel()
    await future


async def bad_source() -> AsyncIterator[bytes]:
    yield b"x"
    await cancelled_by_itself()


async def bad_sink(data: bytes) -> None:
    await cancelled_by_itself()


@pytest.mark.parametrize("kind", ["source", "source in parts", "sink", "sink of ranges"])
async def test_only_the_object_of_a_cancelled_source_or_sink_fails(
    engine: Engine, server: HttpServer, kind: str
) -> None:
    server.objects |= {"/d": b"abc", "/big": bytes(3 * MiB)}
    bad: dict[str, Upload | Download] = {
        "source": Upload(bad_source(), PutTarget(server.url("/o"))),
        "source in parts": Upload(bad_source(), multipart_target(server, 3)),
        "sink": Download(server.url("/d"), StreamSink(bad_sink)),
        "sink of ranges": Download(UrlOrigin(server.url("/big"), size_bytes=3 * MiB), StreamSink(bad_sink)),
    }
    report = await engine.collect([bad[kind], *(Upload(b"x", PutTarget(server.url(f"/{i}"))) for i in range(100))])
    assert (report.done, report.failed) == (100, 1)
    expected = SourceUnreadable if kind.startswith("source") else DestinationUnwritable
    assert isinstance(report.failures[0].error, expected)
    assert "CancelledError" in str(report.failures[0].error)
    with pytest.raises(expected):
        if kind.startswith("source"):
            await engine.upload(bad_source(), bad[kind].target)  # type: ignore[union-attr]
        else:
            await engine.download(bad[kind].origin, StreamSink(bad_sink))  # type: ignore[union-attr]


async def test_a_feed_that_is_cancelled_by_itself_ends_the_run_with_an_error(
    engine: Engine, server: HttpServer
) -> None:
    async def transfers() -> AsyncIterator[Upload]:
        for number in range(20):
            yield Upload(b"x", PutTarget(server.url(f"/{number}")))
        await cancelled_by_itself()

    with pytest.raises(TransferError, match="CancelledError"):
        await engine.collect(transfers())


async def test_settling_or_telling_that_is_cancelled_by_itself_ends_the_run_with_an_error(
    engine: Engine, server: HttpServer
) -> None:
    class Feed(IterableFeed):
        async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
            await cancelled_by_itself()
            return outcomes

    def refuse(outcome: Outcome | Progress) -> None:
        raise asyncio.CancelledError

    transfers = [Upload(b"x", PutTarget(server.url(f"/{number}"))) for number in range(20)]
    with pytest.raises(TransferError):
        await engine.collect(Feed(transfers))
    with pytest.raises(TransferError):
        await engine.collect(transfers, on_outcome=refuse)
    server.script("/0", answer(200))
    server.delay = 0.3
    with pytest.raises(TransferError):
        await engine.collect(transfers, on_progress=refuse)


@pytest.mark.parametrize("kind", ["ranges to file", "ranges to memory", "ranges to stream", "parts"])
async def test_renewing_that_is_cancelled_by_itself_leaves_nothing_with_holes(
    engine: Engine, server: HttpServer, tmp_path: Path, kind: str
) -> None:
    """No file with missing ranges is published, no upload with missing parts completed; the run says why it ends."""
    server.objects["/big"] = os.urandom(4 * MiB)
    (tmp_path / "source").write_bytes(server.objects["/big"])

    class Feed(RecordingFeed):
        async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> None:
            await cancelled_by_itself()

    async def swallow(data: bytes) -> None:
        pass

    origin = UrlOrigin(server.url("/big"), size_bytes=4 * MiB, expires_at=1)
    transfer = {
        "ranges to file": Download(origin, tmp_path / "out"),
        "ranges to memory": Download(origin),
        "ranges to stream": Download(origin, StreamSink(swallow)),
        "parts": Upload(tmp_path / "source", multipart_target(server, 4, expires_at=1)),
    }[kind]
    server.script("/m" if kind == "parts" else "/big", answer(403))
    with pytest.raises(TransferError, match="CancelledError"):
        await engine.collect(Feed([transfer]))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    assert server.of("POST") == []
    assert server.aborted == (["U1"] if kind == "parts" else [])


async def test_real_cancellations_stay_what_they_are(engine: Engine, server: HttpServer) -> None:
    async def waits() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    def upload() -> Upload:
        return Upload(waits(), PutTarget(server.url("/o")))

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await engine.collect([upload()])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await engine.upload(waits(), multipart_target(server, 3))
    with anyio.move_on_after(0.05) as scope:
        await engine.upload(waits(), PutTarget(server.url("/o")))
    assert scope.cancelled_caught
    with anyio.move_on_after(0.05) as scope:
        await engine.collect([upload()])
    assert scope.cancelled_caught
    started = asyncio.Event()
    server.script("/s", stall(started))
    task = asyncio.create_task(engine.collect([Upload(b"", PutTarget(server.url("/s"))), upload()]))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_leaving_a_run_early_is_no_failure(engine: Engine, server: HttpServer) -> None:
    async def waits() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async with engine.run(
        [Upload(waits(), PutTarget(server.url("/o"))), Upload(b"x", PutTarget(server.url("/p")))]
    ) as outcomes:
        assert (await anext(outcomes)).ok
