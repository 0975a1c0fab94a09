"""Digests of what was sent against what the server states."""

from __future__ import annotations

import base64
import hashlib
import os
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_base64
from asyncsdk.engine import Engine, PutTarget, RetryPolicy, TransferConfig
from asyncsdk.engine.digests import asked_for, confirm, filled_in, reply_crc32c, stated
from asyncsdk.errors import ChecksumMismatch
from asyncsdk.transport.base import Headers
from tests.support.http_server import HttpServer, answer

DATA = b"123456789"
CRC64 = bytes.fromhex("ae8b14860a799888")
KNOWN = {
    "md5": hashlib.md5(DATA).digest(),
    "crc32": zlib.crc32(DATA).to_bytes(4, "big"),
    "crc32c": crc32c(DATA).to_bytes(4, "big"),
    "crc64": CRC64,
    "sha1": hashlib.sha1(DATA).digest(),
    "sha256": hashlib.sha256(DATA).digest(),
}


def b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


HEADERS = {
    "content-md5": b64(KNOWN["md5"]),
    "x-ms-blob-content-md5": b64(KNOWN["md5"]),
    "x-amz-checksum-crc32": b64(KNOWN["crc32"]),
    "x-amz-checksum-crc32c": b64(KNOWN["crc32c"]),
    "x-amz-checksum-crc64nvme": b64(CRC64),
    "x-ms-content-crc64": b64(CRC64[::-1]),
    "x-amz-checksum-sha1": b64(KNOWN["sha1"]),
    "x-amz-checksum-sha256": b64(KNOWN["sha256"]),
    "x-goog-hash": f"crc32c={b64(KNOWN['crc32c'])}, md5={b64(KNOWN['md5'])}",
}


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    """An object store."""
    async with HttpServer() as running:
        yield running


@pytest.mark.parametrize("name", sorted(HEADERS))
def test_every_statement_is_understood_and_compared(name: str) -> None:
    """The right digest confirms, any other is an error, something else is no statement."""
    assert confirm(KNOWN, Headers.of({name: HEADERS[name]}))
    for algorithm in stated(Headers.of({name: HEADERS[name]})):
        other = {**KNOWN, algorithm: bytes(len(KNOWN[algorithm]))}
        with pytest.raises(ChecksumMismatch, match=algorithm):
            confirm(other, Headers.of({name: HEADERS[name]}))
    for nothing in ("", "x", "AAA=", HEADERS[name] + "-3", "ü"):
        assert stated(Headers.of({name: nothing})).keys() <= {"crc32c"}
    assert not confirm({}, Headers.of({name: HEADERS[name]}))


def test_digests_of_digests_do_not_count() -> None:
    """A composite checksum is none of the bytes."""
    headers = Headers.of({"x-amz-checksum-crc32c": crc32c_base64(1), "x-amz-checksum-type": "COMPOSITE"})
    assert stated(headers) == {}
    assert reply_crc32c(headers) is None


def test_an_etag_confirms_only_as_md5() -> None:
    """And is an error only where the server is S3 and keeps the object so that it must be the MD5."""
    right, wrong = f'"{KNOWN["md5"].hex()}"', f'"{"0" * 32}"'
    assert confirm(KNOWN, Headers.of({"etag": right}))
    assert not confirm({"crc32c": KNOWN["crc32c"]}, Headers.of({"etag": right}))
    assert not confirm(KNOWN, Headers.of({"etag": wrong}))
    assert not confirm(KNOWN, Headers.of({"etag": wrong[:-1] + '-3"', "x-amz-request-id": "r"}))
    s3 = {"etag": wrong, "x-amz-request-id": "r"}
    with pytest.raises(ChecksumMismatch):
        confirm(KNOWN, Headers.of(s3))
    assert not confirm(KNOWN, Headers.of(s3 | {"x-amz-server-side-encryption": "aws:kms"}))
    assert not confirm(KNOWN, Headers.of(s3 | {"x-amz-server-side-encryption-customer-algorithm": "AES256"}))


def test_empty_headers_ask() -> None:
    """Only those of checksums, in any case, and each digest once."""
    assert asked_for({}) == ()
    assert asked_for({"x-amz-checksum-crc32c": "x", "a": ""}) == ()
    asking = {"Content-MD5": "", "x-goog-hash": "", "X-Amz-Checksum-Crc32c": "", "x-ms-content-crc64": "", "a": "b"}
    assert asked_for(asking) == ("md5", "crc32c", "crc64")
    filled = filled_in(asking, KNOWN)
    assert filled == {
        "Content-MD5": HEADERS["content-md5"],
        "x-goog-hash": f"crc32c={b64(KNOWN['crc32c'])}",
        "X-Amz-Checksum-Crc32c": HEADERS["x-amz-checksum-crc32c"],
        "x-ms-content-crc64": HEADERS["x-ms-content-crc64"],
        "a": "b",
    }


@pytest.mark.parametrize("source", ["bytes", "path"])
@pytest.mark.parametrize("size", [9, 3_000_001])
async def test_what_is_asked_for_is_told_and_compared(
    server: HttpServer, tmp_path: Path, source: str, size: int
) -> None:
    """All of them at once, of bytes and of files, through the engine."""
    data = DATA if size == 9 else os.urandom(size)
    (tmp_path / "file").write_bytes(data)
    names = ["Content-MD5", "x-amz-checksum-crc32", "x-amz-checksum-crc32c", "x-amz-checksum-sha256"]
    if size == 9:
        names.append("x-amz-checksum-crc64nvme")
    target = PutTarget(server.url("/o"), dict.fromkeys(names, ""))
    async with Engine(TransferConfig(retry=RetryPolicy(max_attempts=3, wait_initial_seconds=0.01))) as engine:
        await engine.upload(tmp_path / "file" if source == "path" else data, target)
        (request,) = server.requests
        assert request.header("content-md5") == b64(hashlib.md5(data).digest())
        assert request.header("x-amz-checksum-crc32") == b64(zlib.crc32(data).to_bytes(4, "big"))
        assert request.header("x-amz-checksum-crc32c") == crc32c_base64(crc32c(data))
        assert request.header("x-amz-checksum-sha256") == b64(hashlib.sha256(data).digest())
        if size == 9:
            assert request.header("x-amz-checksum-crc64nvme") == b64(CRC64)
        server.script("/o", answer(200, headers={"x-amz-checksum-sha256": b64(hashlib.sha256(data).digest())}))
        assert (await engine.upload(data, target)).verified
        server.script("/o", *[answer(200, headers={"x-amz-checksum-sha256": b64(bytes(32))})] * 3)
        with pytest.raises(ChecksumMismatch, match="sha256"):
            await engine.upload(data, target)
