"""Odd objects and odd servers: one object fails, with a typed error, and nothing wrong is called done."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import stat
import tempfile
import threading
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asyncsdk.engine import (
    Download,
    Engine,
    FileOrigin,
    FileTarget,
    Outcome,
    Progress,
    PutTarget,
    StreamSink,
    Transfer,
    Upload,
    UrlOrigin,
)
from asyncsdk.engine.budget import process_budget
from asyncsdk.engine.config import MiB
from asyncsdk.engine.expiry import Clocks
from asyncsdk.engine.replies import content_range
from asyncsdk.engine.sinks import BufferSink, SpoolFile
from asyncsdk.errors import (
    BadRequest,
    ConfigError,
    DestinationUnwritable,
    IncompleteTransfer,
    ObjectChanged,
    PermissionDenied,
    SourceUnreadable,
)
from asyncsdk.transport.retry_after import parse_http_date, parse_retry_after
from tests.support.feeds import RecordingFeed, multipart_target
from tests.support.http_server import Action, Connection, HttpServer, Received, ignore_range
from tests.unit.engine.conftest import config


async def swallow(data: bytes) -> None:
    pass


def chunked(body: bytes) -> Action:
    async def action(connection: Connection, request: Received) -> bool:
        connection.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(body), MiB):
            piece = body[start : start + MiB]
            connection.writer.write(b"%x\r\n" % len(piece) + piece + b"\r\n")
            await connection.writer.drain()
        connection.writer.write(b"0\r\n\r\n")
        return True

    return action


def early_yes() -> Action:
    async def action(connection: Connection, request: Received) -> bool:
        await connection.read_body(request, 1000)
        connection.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await connection.writer.drain()
        await asyncio.sleep(0.1)
        raise ConnectionResetError

    return action


# --- nothing wrong is called done ----------------------------------------------------------------------------


async def test_a_stream_never_gets_the_start_twice_when_ranges_stop_working(engine: Engine, server: HttpServer) -> None:
    data = server.objects["/o"] = os.urandom(6 * MiB)
    got: list[bytes] = []

    async def send(piece: bytes) -> None:
        got.append(piece)
        server.script("*", *[ignore_range()] * 10)

    async with Engine(config(concurrency=1)) as one_at_a_time:
        with pytest.raises(ObjectChanged, match="half-way"):
            await one_at_a_time.download(UrlOrigin(server.url("/o"), size_bytes=6 * MiB), StreamSink(send))
    assert 0 < len(b"".join(got)) < len(data)
    assert data.startswith(b"".join(got))


@pytest.mark.parametrize("kind", ["bytes", "file", "stream", "part"])
async def test_a_yes_before_the_body_was_there_is_incomplete(
    engine: Engine, server: HttpServer, tmp_path: Path, kind: str
) -> None:
    data = bytes(24 * MiB)
    (tmp_path / "file").write_bytes(data)

    async def pieces() -> AsyncIterator[bytes]:
        yield data

    source = {"bytes": data, "file": tmp_path / "file", "stream": pieces(), "part": data}[kind]
    target = PutTarget(server.url("/o")) if kind != "part" else multipart_target(server, 1, part_size=24 * MiB)
    server.script("*", *[early_yes()] * 4)
    with pytest.raises(IncompleteTransfer):
        await engine.upload(source, target)
    assert server.of("POST") == []


@pytest.mark.parametrize("kind", ["file", "memory", "stream"])
async def test_nothing_beyond_the_announced_size_is_taken(
    engine: Engine, server: HttpServer, tmp_path: Path, kind: str
) -> None:
    body = bytes(8 * MiB)
    server.script("/o", *[chunked(body)] * 4)
    seen: list[Progress] = []
    sink = {"file": tmp_path / "x", "memory": None, "stream": StreamSink(swallow)}[kind]
    report = await engine.collect([Download(UrlOrigin(server.url("/o"), size_bytes=10), sink)], on_progress=seen.append)
    error = report.failures[0].error
    assert isinstance(error, IncompleteTransfer)
    assert error.received < len(body)
    assert seen[-1].bytes_done == 0
    assert len(server.requests) <= 4
    assert list(tmp_path.iterdir()) == []


async def test_bytes_fetched_again_for_want_of_memory_count_once(engine: Engine, server: HttpServer) -> None:
    body = os.urandom(6 * MiB)
    server.script("/o", *[chunked(body)] * 4)
    seen: list[Progress] = []
    report = await engine.collect([Download(server.url("/o"))], on_progress=seen.append)
    assert report.done == 1
    assert len(server.requests) > 1
    assert seen[-1].bytes_done == len(body)


async def test_a_settle_that_drops_the_data_does_not_stop_the_run(server: HttpServer) -> None:
    server.objects["/o"] = bytes(MiB)
    feed = RecordingFeed(
        [Download(UrlOrigin(server.url("/o"), size_bytes=MiB)) for _ in range(40)],
        on_settle=lambda outcomes: [Outcome(o.transfer, "failed", error=ConfigError("no")) for o in outcomes],
    )
    limit = process_budget().limit_bytes
    try:
        async with Engine(config(memory_bytes=8 * MiB)) as engine:
            async with asyncio.timeout(20):
                report = await engine.collect(feed)
    finally:
        process_budget().resize(limit)
    assert report.failed == 40


# --- one odd object ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
async def test_a_path_no_file_can_have_fails_alone(
    engine: Engine, server: HttpServer, tmp_path: Path, name: str
) -> None:
    server.objects["/d"] = b"abc"
    bad: list[Transfer] = [
        Upload(tmp_path / name, PutTarget(server.url("/o"))),
        Upload(tmp_path / name, FileTarget(tmp_path, "x")),
        Upload(b"x", FileTarget(tmp_path, name)),
        Download(server.url("/d"), tmp_path / name),
        Download(FileOrigin(tmp_path / name), tmp_path / "y"),
    ]
    report = await engine.collect([*bad, *(Upload(b"x", PutTarget(server.url(f"/{i}"))) for i in range(20))])
    assert (report.done, report.failed) == (20, len(bad))
    kinds = {type(failure.error) for failure in report.failures}
    assert kinds == {SourceUnreadable, DestinationUnwritable}
    for failure in report.failures:
        assert "NUL or characters" in str(failure.error)
        str(failure.error).encode()  # can be printed
    assert list(tmp_path.iterdir()) == []


async def test_requests_that_cannot_be_written_down_fail_alone(engine: Engine, server: HttpServer) -> None:
    bad: list[Transfer] = [
        Upload(b"x", PutTarget(server.url("/o"), headers={"X-Meta": "é"})),
        Upload(b"x", PutTarget(server.url("/o"), headers={"X-Meta": 5})),  # type: ignore[dict-item]
        Upload(b"x", PutTarget("http://é" + "a" * 70 + ".invalid/x")),
        Upload(b"x", PutTarget(server.url("/\ud800"))),
    ]
    report = await engine.collect([*bad, *(Upload(b"x", PutTarget(server.url(f"/{i}"))) for i in range(20))])
    assert (report.done, report.failed) == (20, len(bad))
    assert {type(failure.error) for failure in report.failures} == {ConfigError}


async def test_a_read_error_while_sending_fails_alone(
    engine: Engine, server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(bytes(4 * MiB))
    real = os.pread

    def bad(fd: int, size: int, offset: int) -> bytes:
        if offset >= MiB:
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, size, offset)

    def bad_too(fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        if offset >= MiB:
            raise OSError(errno.EIO, "Input/output error")
        return real_too(fd, buffers, offset, flags)

    real_too = os.preadv
    monkeypatch.setattr(os, "pread", bad)
    monkeypatch.setattr(os, "preadv", bad_too)
    report = await engine.collect(
        [Upload(tmp_path / "file", PutTarget(server.url("/o"))), Upload(b"x", PutTarget(server.url("/p")))]
    )
    assert report.done == 1
    assert isinstance(report.failures[0].error, SourceUnreadable)
    assert "Input/output error" in str(report.failures[0].error)


async def test_a_closed_file_fails_alone(engine: Engine, server: HttpServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with (tmp_path / "file").open("rb") as file:
        pass
    report = await engine.collect([Upload(file, PutTarget(server.url("/o")))])
    assert isinstance(report.failures[0].error, SourceUnreadable)


def test_impossible_numbers_in_headers_are_no_answer() -> None:
    far = "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"
    assert parse_http_date(far) is None
    assert parse_retry_after({"retry-after": far}) is None
    assert not Clocks().explains(403, "http://h/?x-amz-date=20200101T000000Z&x-amz-expires=²", None, {"date": far})
    assert content_range({"content-range": f"bytes 0-{'9' * 5000}/*"}) is None
    assert content_range({"content-range": f"bytes 0-1/{'9' * 5000}"}) is None


# --- secrets, files, memory ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 403])
async def test_headers_that_a_server_repeats_never_reach_the_error(
    engine: Engine, server: HttpServer, status: int
) -> None:
    headers = {"Authorization": "Bearer secret-token&1", "X-Key": "0123456789abcdef"}

    async def echo(connection: Connection, request: Received) -> bool:
        await connection.read_body(request)
        quoted = "".join(
            f"<H>{value}</H><H>{value.replace('&', '&amp;')}</H><H>{value.split()[-1]}</H>"
            for value in headers.values()
        )
        await connection.reply(status, f"<Error><Code>No</Code><Message>{quoted}</Message></Error>".encode())
        return True

    server.script("/o", echo, echo)
    for call in (
        engine.upload(b"x", PutTarget(server.url("/o"), headers=headers)),
        engine.download(UrlOrigin(server.url("/o"), headers=headers)),
    ):
        with pytest.raises((BadRequest, PermissionDenied)) as caught:
            await call
        said = f"{caught.value} {caught.value.body}"
        assert "..." in said
        assert "secret-token" not in said
        assert "0123456789" not in said


@pytest.mark.parametrize("kind", ["open file", "copy"])
async def test_unchecked_sources_may_change(server: HttpServer, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(3 * MiB))
    stop = threading.Event()

    def touch() -> None:
        moment = 0
        while not stop.is_set():
            moment += 1
            os.utime(path, (moment, moment))

    thread = threading.Thread(target=touch)
    thread.start()
    try:
        async with Engine(config(source_changed="accept")) as engine:
            for number in range(5):
                with path.open("rb") as file:
                    if kind == "copy":
                        await engine.upload(path, FileTarget(tmp_path / "out", f"{number}"))
                    else:
                        await engine.upload(file, PutTarget(server.url("/o")))
    finally:
        stop.set()
        thread.join()


async def test_streams_pass_through_a_file_nobody_else_sees(
    engine: Engine, server: HttpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "asyncsdk-stream").mkdir()  # in nobody's way
    body = os.urandom(6 * MiB)
    server.script("/o", chunked(body))
    got: list[bytes] = []
    names: set[str] = set()

    async def send(data: bytes) -> None:
        got.append(data)
        names.update(path.name for path in tmp_path.iterdir())

    await engine.download(server.url("/o"), StreamSink(send))
    assert b"".join(got) == body
    assert names == {"asyncsdk-stream"}


def test_a_spool_file_has_no_name_and_is_for_this_user_only() -> None:
    spool = SpoolFile()
    spool.open()
    try:
        facts = os.fstat(spool._fd)
        assert (stat.S_IMODE(facts.st_mode), facts.st_nlink) == (0o600, 0)
        spool.write_at(b"abc", 0)
        assert spool.read_at(3, 0) == b"abc"
    finally:
        spool.discard()


@pytest.mark.parametrize("kind", ["reply", "file"])
async def test_a_download_into_memory_is_held_once(tmp_path: Path, kind: str) -> None:
    size, piece = 32 * MiB, bytes(256 * 1024)
    gc.collect()
    if kind == "reply":
        tracemalloc.start()
        sink = BufferSink()
        for _ in range(size // len(piece)):
            sink.write(bytes(bytearray(piece)))
        data = sink.take()
    else:
        (tmp_path / "file").write_bytes(bytes(size))
        async with Engine(config()) as engine:
            tracemalloc.start()
            data = (await engine.download(FileOrigin(tmp_path / "file"))).data or b""
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(data) == size
    assert peak < size * 1.3


# --- sources that block --------------------------------------------------------------------------------------


async def test_a_pipe_that_never_gives_does_not_hold_a_cancelled_upload(server: HttpServer) -> None:
    """The read is left behind after ``cleanup_seconds``; what it gets later harms nobody."""
    read_end, write_end = os.pipe()
    before = set(threading.enumerate())
    with os.fdopen(read_end, "rb") as file:
        try:
            async with Engine(config(cleanup_seconds=0.05)) as engine:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await engine.upload(file, PutTarget(server.url("/o")))
                left = [t for t in set(threading.enumerate()) - before if t.name == "asyncsdk-source"]
                assert len(left) == 1
                assert left[0].daemon
        finally:
            os.close(write_end)
        await asyncio.to_thread(left[0].join)


async def test_a_stream_sets_nothing_aside_before_its_first_byte(engine: Engine, server: HttpServer) -> None:
    """Downloads of this process may feed it: they need the memory first."""
    held: list[int] = []

    async def source() -> AsyncIterator[bytes]:
        held.append(process_budget().leased_bytes)
        yield b"x"

    await engine.upload(source(), PutTarget(server.url("/o")))
    await engine.upload(source(), multipart_target(server, 3))
    assert held == [0, 0]
