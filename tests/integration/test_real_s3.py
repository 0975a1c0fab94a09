"""The engine against S3 servers that nobody here wrote: OpenStack Swift (s3api) and ``rclone serve s3``."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_base64, crc32c_hex
from asyncsdk.engine import Download, Engine, KiB, MiB, PutTarget, RetryPolicy, TransferConfig, Upload, UrlOrigin
from asyncsdk.errors import BadRequest, ChecksumMismatch, NotFound, PermissionDenied, ResponseError
from tests.integration.test_engine_nginx import some_bytes
from tests.support.real.fixtures import rclone_server, s3_server, swift_server
from tests.support.real.running import RealServer
from tests.support.real.s3 import multipart_target, origin, put_target, read
from tests.support.real.sigv4 import presign

__all__ = ["rclone_server", "s3_server", "swift_server"]

QUICK = RetryPolicy(max_attempts=3, wait_initial_seconds=0.01, wait_max_seconds=0.05)
CONFIG = TransferConfig(concurrency=6, part_size=MiB, multipart_threshold=2 * MiB, retry=QUICK)


async def test_many_objects_up_and_down(s3_server: RealServer, tmp_path: Path) -> None:
    """Every object arrives by a signed PUT and comes back by a signed GET, odd names and empty ones too."""
    sources = {f"many/{number % 3}/ö {number:02}+%.bin": some_bytes(number * 911, number) for number in range(40)}
    async with Engine(CONFIG) as engine:
        ups = [Upload(data, put_target(s3_server, name), key=name) for name, data in sources.items()]
        async with engine.run(ups) as outcomes:
            sent = [outcome async for outcome in outcomes]
        assert [outcome.error for outcome in sent if not outcome.ok] == []
        downs = [Download(origin(s3_server, name), tmp_path / str(n), key=name) for n, name in enumerate(sources)]
        async with engine.run(downs) as outcomes:
            found = [outcome async for outcome in outcomes]
    assert [outcome.error for outcome in found if not outcome.ok] == []
    assert {name: (tmp_path / str(n)).read_bytes() for n, name in enumerate(sources)} == sources


@pytest.mark.parametrize("knows_size", [True, False], ids=["size known", "size unknown"])
async def test_a_large_object_comes_in_ranges(s3_server: RealServer, tmp_path: Path, knows_size: bool) -> None:
    """Ranges make up the object, whether the server says 206 to them or, as rclone does, 200 with Content-Range."""
    data = some_bytes(5 * MiB + 321, 7)
    key = f"ranges/{knows_size}"
    size = len(data) if knows_size else None
    async with Engine(CONFIG) as engine:
        await engine.upload(data, put_target(s3_server, key))
        there = UrlOrigin(origin(s3_server, key).url, size_bytes=size)
        outcome = await engine.download(there, tmp_path / "large.bin")
        in_memory = await engine.download(there)
    assert outcome.size_bytes == len(data)
    assert (tmp_path / "large.bin").read_bytes() == data
    assert in_memory.data == data
    assert [path.name for path in tmp_path.iterdir()] == ["large.bin"]


async def test_multipart_is_completed(s3_server: RealServer, tmp_path: Path) -> None:
    """Parts go up by signed URLs, several at once, and completing makes the object of them."""
    data = some_bytes(5 * MiB + 17, 3)
    path = tmp_path / "source.bin"
    path.write_bytes(data)
    async with Engine(CONFIG) as engine:
        outcome = await engine.upload(path, multipart_target(s3_server, "parts", part_size=MiB, parts=6))
    assert outcome.size_bytes == len(data)
    assert outcome.etag
    assert read(s3_server, "parts") == data


async def test_multipart_is_aborted_when_it_fails(s3_server: RealServer) -> None:
    """A part that is refused ends the upload: nothing is at the key, and the server forgot the parts."""
    data = some_bytes(3 * MiB)
    target = multipart_target(s3_server, "aborted", part_size=MiB, parts=3)
    forged = (*target.part_urls[:2], target.part_urls[2][:-4] + "0000")
    broken = type(target)(
        target.upload_id, MiB, forged, target.complete_url, abort_url=target.abort_url, list_urls=target.list_urls
    )
    async with Engine(CONFIG) as engine:
        with pytest.raises(PermissionDenied):
            await engine.upload(data, broken)
        with pytest.raises(NotFound):
            await engine.download(UrlOrigin(target.list_urls[0]))  # NoSuchUpload
    assert read(s3_server, "aborted") is None


async def test_a_forged_signature_stops_at_once(s3_server: RealServer) -> None:
    """A refusal that is no matter of time is final after one attempt, says the server's code, and quotes no secret."""
    url = put_target(s3_server, "forged").url
    url = url[:-8] + ("0" * 8 if not url.endswith("0" * 8) else "1" * 8)
    async with Engine(CONFIG) as engine, engine.run([Upload(b"hello", PutTarget(url))]) as outcomes:
        (outcome,) = [outcome async for outcome in outcomes]
    assert isinstance(outcome.error, PermissionDenied)
    assert outcome.error.server_code == "SignatureDoesNotMatch"
    assert outcome.attempts == 1
    assert url.rpartition("=")[2] not in f"{outcome.error}{outcome.error.body}"


async def test_an_expired_url_without_a_feed_is_a_refusal(s3_server: RealServer) -> None:
    """An expired URL that nobody can renew fails once: 403 here, 400 there."""
    url = presign(s3_server, "PUT", "late", now=dt.datetime.now(dt.UTC) - dt.timedelta(hours=3))
    async with Engine(CONFIG) as engine, engine.run([Upload(b"hello", PutTarget(url))]) as outcomes:
        (outcome,) = [outcome async for outcome in outcomes]
    assert isinstance(outcome.error, (PermissionDenied, BadRequest))
    assert outcome.attempts == 1
    assert read(s3_server, "late") is None


async def test_wrong_bytes_are_refused_by_their_checksum(swift_server: RealServer) -> None:
    """A checksum that was signed is compared by the server: other bytes make no object."""
    headers = {"x-amz-checksum-crc32c": crc32c_base64(crc32c(b"these bytes"))}
    url = presign(swift_server, "PUT", "checked", headers=headers)
    async with Engine(CONFIG) as engine:
        with pytest.raises(ResponseError, match="BadDigest"):
            await engine.upload(b"other bytes", PutTarget(url, headers))
        assert read(swift_server, "checked") is None
        await engine.upload(b"these bytes", PutTarget(url, headers))
    assert read(swift_server, "checked") == b"these bytes"


async def test_a_wrong_download_leaves_nothing(s3_server: RealServer, tmp_path: Path) -> None:
    """Bytes other than those announced are an error and no file, by one request and by ranges."""
    small, large = some_bytes(30 * KiB), some_bytes(4 * MiB)
    async with Engine(CONFIG) as engine:
        for name, data in (("small", small), ("large", large)):
            await engine.upload(data, put_target(s3_server, name))
            url = origin(s3_server, name).url
            wrong = UrlOrigin(url, size_bytes=len(data), crc32c=crc32c_hex(crc32c(data) ^ 1))
            with pytest.raises(ChecksumMismatch):
                await engine.download(wrong, tmp_path / name)
    assert list(tmp_path.iterdir()) == []
