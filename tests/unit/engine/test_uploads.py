"""Uploads by one request."""

from __future__ import annotations

import asyncio
import io
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

import pytest

from asyncsdk.checksums import crc32c, crc32c_base64, crc32c_hex
from asyncsdk.engine import Engine, PutTarget
from asyncsdk.engine.budget import process_budget
from asyncsdk.errors import (
    BadRequest,
    ChecksumMismatch,
    ConfigError,
    ConnectionFailed,
    IncompleteTransfer,
    PermissionDenied,
    RateLimited,
    ServerError,
    SourceChanged,
    SourceNotFound,
    SourceUnreadable,
    TransferError,
)
from tests.support.http_server import Connection, HttpServer, Received, answer, close, cut_request

SIZES = [0, 1, 65_536, 65_537, 1_500_000]


async def pieces(data: bytes, size: int = 10_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
        yield b""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["bytes", "memoryview", "path", "open file", "buffered", "stream"])
async def test_every_source_arrives_whole_with_its_checksum(
    engine: Engine, server: HttpServer, tmp_path: Path, kind: str, size: int
) -> None:
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    with path.open("rb") as file:
        source = {
            "bytes": data,
            "memoryview": memoryview(data),
            "path": path,
            "open file": file,
            "buffered": io.BytesIO(data),
            "stream": pieces(data),
        }[kind]
        outcome = await engine.upload(
            source, PutTarget(server.url("/o")), size_bytes=size, crc32c=crc32c_hex(crc32c(data))
        )
    assert server.objects["/o"] == data
    assert (outcome.size_bytes, outcome.crc32c, outcome.attempts) == (size, crc32c_hex(crc32c(data)), 1)
    assert outcome.etag == server.etag("/o")
    assert not outcome.verified


@pytest.mark.parametrize("make", [lambda p: p.open("rb"), lambda p: p.open("r+b"), lambda p: p.open("rb", buffering=0)])
async def test_an_open_file_is_read_from_where_it_stands(
    engine: Engine, server: HttpServer, tmp_path: Path, make: object
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"header" + b"body" * 50_000)
    file: IO[bytes] = make(path)  # type: ignore[operator]
    with file:
        file.read(6)
        await engine.upload(file, PutTarget(server.url("/o")))
    assert server.objects["/o"] == b"body" * 50_000


async def test_a_temporary_file_can_be_sent(engine: Engine, server: HttpServer) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x" * 100_000)
        file.seek(10)
        await engine.upload(file, PutTarget(server.url("/o")))  # type: ignore[arg-type]
    assert server.objects["/o"] == b"x" * 99_990


async def test_only_headers_of_the_target_are_sent(engine: Engine, server: HttpServer) -> None:
    await engine.upload(b"x", PutTarget(server.url("/o"), headers={"Content-Type": "image/png"}))
    names = {name.lower() for name, _ in server.requests[-1].headers}
    assert names == {"host", "accept-encoding", "content-type", "content-length"}


@pytest.mark.parametrize("size", [10, 200_000])
async def test_a_checksum_header_left_empty_is_filled_in(
    engine: Engine, server: HttpServer, tmp_path: Path, size: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(data := os.urandom(size))
    for source in (path, data):
        await engine.upload(source, PutTarget(server.url("/o"), headers={"X-Amz-Checksum-Crc32c": ""}))
        assert server.requests[-1].header("x-amz-checksum-crc32c") == crc32c_base64(crc32c(data))


async def test_a_checksum_named_by_the_server_verifies(engine: Engine, server: HttpServer) -> None:
    server.with_checksums = True
    assert (await engine.upload(b"abc", PutTarget(server.url("/o")))).verified
    server.with_checksums = False
    google = {"x-goog-hash": f"crc32c={crc32c_base64(crc32c(b'abc'))}, md5=AAAA"}
    server.script("/o", answer(200, headers=google))
    assert (await engine.upload(b"abc", PutTarget(server.url("/o")))).verified


async def test_another_checksum_named_by_the_server_is_tried_again(engine: Engine, server: HttpServer) -> None:
    server.with_checksums = True
    wrong = {"x-amz-checksum-crc32c": crc32c_base64(1)}
    server.script("/o", answer(200, headers=wrong))
    assert (await engine.upload(b"abc", PutTarget(server.url("/o")))).attempts == 2
    server.script("/o", *[answer(200, headers=wrong)] * 4)
    with pytest.raises(ChecksumMismatch) as caught:
        await engine.upload(b"abc", PutTarget(server.url("/o")))
    assert caught.value.actual == "crc32c:00000001"


@pytest.mark.parametrize("size", [10, 200_000])
async def test_a_wrong_announced_checksum_is_a_mismatch(
    engine: Engine, server: HttpServer, tmp_path: Path, size: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(data := os.urandom(size))
    for source in (data, path):
        with pytest.raises(ChecksumMismatch):
            await engine.upload(source, PutTarget(server.url("/o")), crc32c="00000000")
    assert len(server.requests) <= (0 if size == 10 else 1)  # what is in memory is looked at before it is sent


async def test_a_checksum_that_is_none_is_refused(engine: Engine, server: HttpServer) -> None:
    with pytest.raises(ConfigError):
        await engine.upload(b"", PutTarget(server.url("/o")), crc32c="xyz")


async def test_bad_sources_are_typed(engine: Engine, server: HttpServer, tmp_path: Path) -> None:
    target = PutTarget(server.url("/o"))
    with pytest.raises(SourceNotFound):
        await engine.upload(tmp_path / "missing", target)
    with pytest.raises(SourceUnreadable, match=r"folder.*dataset\.upload"):
        await engine.upload(tmp_path, target)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(SourceUnreadable):
        await engine.upload(fifo, target)
    with pytest.raises(SourceUnreadable):
        await engine.upload(Path("/dev/zero"), target)
    with pytest.raises(SourceUnreadable, match="binary"):
        await engine.upload(io.StringIO("text"), target)  # type: ignore[arg-type]
    with pytest.raises(SourceUnreadable):
        await engine.upload(12, target)  # type: ignore[arg-type]

    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise KeyError("mine")

    with pytest.raises(SourceUnreadable) as caught:
        await engine.upload(broken(), target)
    assert isinstance(caught.value.__cause__, KeyError)
    assert server.requests == []


async def test_another_size_than_announced_is_a_changed_source(
    engine: Engine, server: HttpServer, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    with pytest.raises(SourceChanged):
        await engine.upload(path, PutTarget(server.url("/o")), size_bytes=6)
    for size in (4, 6):
        with pytest.raises(IncompleteTransfer):
            await engine.upload(pieces(b"12345"), PutTarget(server.url("/o")), size_bytes=size)
    assert server.requests == []


@pytest.mark.parametrize("change", ["grow", "shrink", "touch", "remove", "replace"])
async def test_a_file_changed_while_being_sent_is_reported(
    engine: Engine, server: HttpServer, tmp_path: Path, change: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(20_000_000))

    async def meanwhile(connection: Connection, request: Received) -> bool:
        await connection.read_body(request, 1000)
        head = request.body
        if change == "grow":
            with path.open("ab") as file:
                file.write(b"x")
        elif change == "shrink":
            os.truncate(path, 100)
        elif change == "touch":
            os.utime(path, (1, 1))
        elif change == "remove":
            path.unlink()
        else:
            other = tmp_path / "other"
            other.write_bytes(bytes(20_000_000))
            other.replace(path)
        rest = int(request.header("content-length") or 0) - len(head)
        while rest > 0:
            piece = await connection.reader.read(1_000_000)
            if not piece:
                raise ConnectionResetError
            rest -= len(piece)
        await connection.reply(200)
        return True

    server.script("/o", *[meanwhile] * 4)
    with pytest.raises(SourceChanged):
        await engine.upload(path, PutTarget(server.url("/o")))


async def test_a_refusal_because_the_file_changed_says_that(engine: Engine, server: HttpServer, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(200_000))

    async def refuse(connection: Connection, request: Received) -> bool:
        await connection.read_body(request)
        os.utime(path, (1, 1))
        await connection.reply(400, b"<Error><Code>InvalidRequest</Code></Error>")
        return True

    server.script("/o", refuse)
    with pytest.raises(SourceChanged) as caught:
        await engine.upload(path, PutTarget(server.url("/o")))
    assert isinstance(caught.value.__cause__, BadRequest)


async def test_failures_of_the_server_are_tried_again(engine: Engine, server: HttpServer, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(data := os.urandom(300_000))
    server.script("/o", cut_request(100_000), answer(503, headers={"Retry-After": "0"}), answer(500))
    outcome = await engine.upload(path, PutTarget(server.url("/o")))
    assert (outcome.attempts, server.objects["/o"]) == (4, data)


@pytest.mark.parametrize(
    ("status", "error", "attempts"),
    [
        (400, BadRequest, 1),
        (403, PermissionDenied, 1),
        (408, ServerError, 4),
        (429, RateLimited, 4),
        (500, ServerError, 4),
    ],
)
async def test_attempts_go_by_what_the_server_says(
    engine: Engine, server: HttpServer, status: int, error: type[Exception], attempts: int
) -> None:
    server.script("/o", *[answer(status)] * attempts)
    with pytest.raises(error):
        await engine.upload(b"x", PutTarget(server.url("/o")))
    assert len(server.requests) == attempts


async def test_slow_down_is_a_rate_limit(engine: Engine, server: HttpServer) -> None:
    server.script("/o", *[answer(503, b"<Error><Code>SlowDown</Code></Error>")] * 4)
    with pytest.raises(RateLimited) as caught:
        await engine.upload(b"x", PutTarget(server.url("/o")))
    assert caught.value.server_code == "SlowDown"


async def test_a_dead_server_is_a_failed_connection(engine: Engine, server: HttpServer) -> None:
    server.script("/o", *[close()] * 4)
    with pytest.raises(ConnectionFailed):
        await engine.upload(b"x", PutTarget(server.url("/o")))


async def test_what_the_server_quotes_of_the_query_stays_out(engine: Engine, server: HttpServer) -> None:
    quoted = (
        b"<Error><Code>SignatureDoesNotMatch</Code><Message>abcdef%2F123456 no</Message><S>abcdef/123456</S></Error>"
    )
    server.script("/o", answer(403, quoted, {"x-amz-request-id": "R1"}))
    with pytest.raises(PermissionDenied) as caught:
        await engine.upload(b"x", PutTarget(server.url("/o?X-Amz-Signature=abcdef%2F123456")))
    assert "123456" not in f"{caught.value}{caught.value.body}"
    assert (caught.value.server_code, caught.value.request_id) == ("SignatureDoesNotMatch", "R1")


async def test_a_stream_too_large_for_one_request_is_refused(engine: Engine, server: HttpServer) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1_000_000)

    with pytest.raises(TransferError, match="multipart"):
        await engine.upload(endless(), PutTarget(server.url("/o")))
    assert process_budget().leased_bytes == 0


async def test_a_source_left_half_way_is_closed(engine: Engine, server: HttpServer) -> None:
    closed = False

    async def source() -> AsyncIterator[bytes]:
        nonlocal closed
        try:
            while True:
                yield bytes(1_000_000)
                await asyncio.sleep(0)
        finally:
            closed = True

    with pytest.raises(TransferError):
        await engine.upload(source(), PutTarget(server.url("/o")), size_bytes=10)
    assert closed
