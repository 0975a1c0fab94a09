"""Multipart uploads."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.engine import Engine, MultipartTarget, Upload
from asyncsdk.engine.budget import process_budget
from asyncsdk.engine.config import MiB
from asyncsdk.engine.parted.sending import part_count
from asyncsdk.errors import (
    BadRequest,
    ChecksumMismatch,
    PermissionDenied,
    ServerError,
    SourceChanged,
    SourceUnreadable,
    TransferError,
)
from tests.support.feeds import RecordingFeed, multipart_target
from tests.support.http_server import Connection, HttpServer, Received, answer, cut_request, stall
from tests.unit.engine.conftest import config


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 100_003):
        yield data[start : start + 100_003]


@pytest.mark.parametrize("size", [0, 1, MiB, MiB + 1, 5 * MiB + 17])
@pytest.mark.parametrize("kind", ["bytes", "path", "open file", "buffered", "stream"])
async def test_every_source_arrives_whole(
    engine: Engine, server: HttpServer, tmp_path: Path, kind: str, size: int
) -> None:
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    server.with_checksums = True
    with path.open("rb") as file:
        source = {"bytes": data, "path": path, "open file": file, "buffered": io.BytesIO(data), "stream": pieces(data)}
        outcome = await engine.upload(source[kind], multipart_target(server, 6))
    assert server.objects["/m"] == data
    assert (outcome.size_bytes, outcome.crc32c, outcome.verified) == (size, crc32c_hex(crc32c(data)), True)
    assert outcome.etag == server.etag("/m")
    parts = sorted(int(r.query["partNumber"]) for r in server.of("PUT"))
    assert parts == list(range(1, part_count(size, MiB) + 1))
    assert server.aborted == []


async def test_parts_go_out_at_the_same_time_within_the_slots(server: HttpServer) -> None:
    server.delay = 0.02
    async with Engine(config(concurrency=3)) as engine:
        await engine.upload(bytes(6 * MiB), multipart_target(server, 6))
    assert server.most_active == 3


async def test_nothing_is_completed_when_the_platform_does_that(engine: Engine, server: HttpServer) -> None:
    outcome = await engine.upload(bytes(2 * MiB), multipart_target(server, 2, completes=False))
    assert server.of("POST") == []
    assert outcome.checksum == f"crc32c:{crc32c_hex(crc32c(bytes(2 * MiB)))}"


async def test_a_failed_part_alone_is_sent_again(engine: Engine, server: HttpServer) -> None:
    data = os.urandom(4 * MiB)
    server.script("/m", answer(503), cut_request(100), answer(500))
    outcome = await engine.upload(pieces(data), multipart_target(server, 4))
    assert server.objects["/m"] == data
    assert len(server.of("PUT")) <= 4 + 3
    assert 1 < outcome.attempts <= 4


async def test_a_part_that_a_later_attempt_took_over_is_sent_again(engine: Engine, server: HttpServer) -> None:
    """Our platform's answer to the slower of two attempts at a part; the later one may have failed by now."""
    data = os.urandom(2 * MiB)
    body = b'{"error": {"code": "superseded", "message": "a newer attempt at part 1 took over"}}'
    server.script("/m", answer(409, body, {"Content-Type": "application/json"}))
    outcome = await engine.upload(data, multipart_target(server, 2))
    assert server.objects["/m"] == data
    assert outcome.attempts > 1


async def test_a_refused_part_aborts_once_and_tells_why(engine: Engine, server: HttpServer) -> None:
    server.script("/m", answer(403))
    with pytest.raises(PermissionDenied):
        await engine.upload(bytes(4 * MiB), multipart_target(server, 4))
    assert server.aborted == ["U1"]
    assert "/m" not in server.objects


async def test_an_abort_that_fails_is_a_note_on_the_error(engine: Engine, server: HttpServer) -> None:
    server.script("/m", answer(403), answer(500))
    with pytest.raises(PermissionDenied) as caught:
        await engine.upload(b"x", multipart_target(server, 1))
    assert any("500" in note for note in caught.value.__notes__)


async def test_an_abort_that_hangs_is_given_up(server: HttpServer) -> None:
    server.script("/m", answer(403), stall())
    async with Engine(config(cleanup_seconds=0.05)) as engine:
        with pytest.raises(PermissionDenied) as caught:
            await engine.upload(b"x", multipart_target(server, 1))
    assert any("longer" in note for note in caught.value.__notes__)


async def test_a_success_with_an_error_in_its_body_is_a_failure(engine: Engine, server: HttpServer) -> None:
    error = b'<?xml version="1.0"?>\n<Error><Code>InternalError</Code><Message>again</Message></Error>'

    async def lie(connection: Connection, request: Received) -> bool:
        if request.method != "POST":
            return False
        await connection.read_body(request)
        await connection.reply(200, error)
        return True

    server.script("/m", lie, lie, lie)  # part, complete, complete again
    await engine.upload(b"x", multipart_target(server, 1))
    assert len(server.of("POST")) == 3
    server.script("/n", *[lie] * 5)
    with pytest.raises(ServerError):
        await engine.upload(b"x", multipart_target(server, 1, path="/n", upload_id="U2"))
    assert server.aborted == ["U2"]
    bad = b"<Error><Code>InvalidPart</Code></Error>"

    async def refuse(connection: Connection, request: Received) -> bool:
        await connection.read_body(request)
        await connection.reply(200, b"" if request.method == "PUT" else bad)
        return True

    server.script("/o", refuse, refuse)
    with pytest.raises(BadRequest) as caught:
        await engine.upload(b"x", multipart_target(server, 1, path="/o", upload_id="U3"))
    assert caught.value.server_code == "InvalidPart"


async def test_too_many_parts_are_refused_before_anything_is_sent(
    engine: Engine, server: HttpServer, tmp_path: Path
) -> None:
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(10_001)
    with pytest.raises(TransferError, match="at least 2 bytes"):
        await engine.upload(path, MultipartTarget("U", 1, (server.url("/m"),)))
    assert server.requests == []


async def test_missing_part_urls_are_asked_for(server: HttpServer) -> None:
    data = os.urandom(6 * MiB)

    def more(transfer: object, first_part: int) -> MultipartTarget:
        return multipart_target(server, 2, first_part=first_part)

    feed = RecordingFeed([Upload(data, multipart_target(server, 2))], on_renew=more)
    async with Engine(config(concurrency=1)) as engine:
        report = await engine.collect(feed)
    report.raise_for_failures()
    assert server.objects["/m"] == data
    assert feed.renewals == [3, 5]


async def test_without_further_urls_the_upload_fails_and_is_aborted(engine: Engine, server: HttpServer) -> None:
    with pytest.raises(TransferError, match="no URL for part 3"):
        await engine.upload(bytes(3 * MiB), multipart_target(server, 2))
    assert server.aborted == ["U1"]


async def test_expired_part_urls_are_renewed_once_for_all_parts(engine: Engine, server: HttpServer) -> None:
    server.clock = 2_000_000_000.0

    async def expired(connection: Connection, request: Received) -> bool:
        if request.query["v"] == "2":
            return False
        await connection.read_body(request)
        await connection.reply(403)
        return True

    server.script("/m", *[expired] * 50)
    data = os.urandom(4 * MiB)
    feed = RecordingFeed(
        [Upload(data, multipart_target(server, 4, expires_at=1_999_999_999.0))],
        on_renew=lambda transfer, first: multipart_target(
            server, 5 - first, first_part=first, version="2", expires_at=2_000_000_100.0
        ),
    )
    (await engine.collect(feed)).raise_for_failures()
    assert server.objects["/m"] == data
    assert len(feed.renewals) <= 4
    assert len(feed.renewals) < len([r for r in server.of("PUT") if r.query["v"] == "1"]) or feed.renewals == [1]


async def test_a_wrong_announced_checksum_is_never_completed(engine: Engine, server: HttpServer) -> None:
    with pytest.raises(ChecksumMismatch):
        await engine.upload(bytes(2 * MiB), multipart_target(server, 2), crc32c="00000001")
    assert server.of("POST") == []
    assert server.aborted == ["U1"]


async def test_a_file_that_changes_between_parts_is_never_completed(
    engine: Engine, server: HttpServer, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(3 * MiB))

    async def meanwhile(connection: Connection, request: Received) -> bool:
        with path.open("ab") as file:
            file.write(b"x")
        return False

    server.script("/m", meanwhile)
    with pytest.raises(SourceChanged):
        await engine.upload(path, multipart_target(server, 3))
    assert server.of("POST") == []
    assert server.aborted == ["U1"]


async def test_a_source_that_fails_half_way_is_aborted(engine: Engine, server: HttpServer) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield bytes(2 * MiB)
        raise KeyError("mine")

    with pytest.raises(SourceUnreadable) as caught:
        await engine.upload(broken(), multipart_target(server, 5))
    assert isinstance(caught.value.__cause__, KeyError)
    assert server.aborted == ["U1"]


async def test_a_cancelled_upload_is_aborted_and_gives_its_memory_back(engine: Engine, server: HttpServer) -> None:
    started = asyncio.Event()
    server.script("/m", stall(started))
    task = asyncio.create_task(engine.upload(pieces(bytes(4 * MiB)), multipart_target(server, 4)))
    await started.wait()
    assert process_budget().leased_bytes > 0
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.aborted == ["U1"]
    assert process_budget().leased_bytes == 0


async def test_streams_share_a_small_budget_without_waiting_for_each_other(server: HttpServer) -> None:
    limit = process_budget().limit_bytes
    data = os.urandom(5 * MiB)
    try:
        async with Engine(config(concurrency=2, large_objects=4, memory_bytes=MiB)) as engine:
            uploads = [
                Upload(pieces(data), multipart_target(server, 5, upload_id=f"U{i}", path=f"/{i}")) for i in range(4)
            ]
            (await engine.collect(uploads)).raise_for_failures()
    finally:
        process_budget().resize(limit)
    assert all(server.objects[f"/{i}"] == data for i in range(4))
