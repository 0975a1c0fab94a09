"""The engine's plain requests against Azurite and the emulator of Google Cloud Storage, which nobody here wrote.

What is special to them, blocks and resumable sessions, is in the contract of targets.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncsdk.engine import Engine, KiB, MiB, PutTarget, RetryPolicy, TransferConfig, UrlOrigin
from asyncsdk.errors import ChecksumMismatch, PermissionDenied
from tests.integration.test_engine_nginx import some_bytes
from tests.support.real import gcs
from tests.support.real.azure_sas import VERSION, sign_blob
from tests.support.real.fixtures import azurite_server, gcs_server
from tests.support.real.running import RealServer

__all__ = ["azurite_server", "gcs_server"]

QUICK = RetryPolicy(max_attempts=3, wait_initial_seconds=0.01, wait_max_seconds=0.05)
CONFIG = TransferConfig(concurrency=4, part_size=MiB, multipart_threshold=2 * MiB, retry=QUICK)
AZURE = {"x-ms-version": VERSION, "x-ms-blob-type": "BlockBlob"}


async def test_azure_put_blob_and_ranges(azurite_server: RealServer, tmp_path: Path) -> None:
    """A signed Put Blob takes an object, and ranges bring it back, or one request; its MD5 is compared."""
    data = some_bytes(3 * MiB + 5)
    url = sign_blob(azurite_server, "a/ö 1.bin")
    async with Engine(CONFIG) as engine:
        await engine.upload(data, PutTarget(url, AZURE))
        outcome = await engine.download(UrlOrigin(url, {"x-ms-version": VERSION}), tmp_path / "back.bin")
        small = sign_blob(azurite_server, "small")
        await engine.upload(data[:999], PutTarget(small, AZURE))
        in_memory = await engine.download(UrlOrigin(small, {"x-ms-version": VERSION}, size_bytes=999))
    assert outcome.size_bytes == len(data)
    assert outcome.verified
    assert in_memory.verified
    assert (tmp_path / "back.bin").read_bytes() == data


@pytest.mark.parametrize("size", [999, 3 * MiB + 5])
async def test_azure_states_another_md5(azurite_server: RealServer, tmp_path: Path, size: int) -> None:
    """By one request and by ranges, the blob that its server calls another one does not appear."""
    url = sign_blob(azurite_server, f"wrong-{size}")
    stated = {"x-ms-version": VERSION, "x-ms-blob-content-md5": "1B2M2Y8AsgTpgAmY7PhCfg=="}
    async with Engine(CONFIG) as engine:
        await engine.upload(some_bytes(size), PutTarget(url, AZURE))
        await engine.upload(b"", PutTarget(f"{url}&comp=properties", stated))
        with pytest.raises(ChecksumMismatch, match="md5"):
            await engine.download(UrlOrigin(url, {"x-ms-version": VERSION}, size_bytes=size), tmp_path / "back.bin")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("why", ["forged", "expired", "not yet"])
async def test_azure_refuses(azurite_server: RealServer, why: str) -> None:
    """A signature that is wrong, over or too early is refused once, and its secret is not quoted."""
    times = {"forged": (0, 3600), "expired": (0, -60), "not yet": (1200, 3600)}[why]
    url = sign_blob(azurite_server, "refused", starts_in_seconds=times[0], expires_seconds=times[1])
    if why == "forged":
        url = url.replace("&sig=", "&sig=AAAA")
    async with Engine(CONFIG) as engine:
        with pytest.raises(PermissionDenied, match="AuthorizationFailure") as caught:
            await engine.upload(b"hello", PutTarget(url, AZURE))
    assert "sig=" not in f"{caught.value}{caught.value.body}"


async def test_gcs_session_of_one_request(gcs_server: RealServer) -> None:
    """A session's URI takes the whole object by one PUT, and its media comes back."""
    data = some_bytes(300 * KiB)
    async with Engine(CONFIG) as engine:
        await engine.upload(data, PutTarget(gcs.begin_session(gcs_server, "a/b 1.bin")))
        outcome = await engine.download(UrlOrigin(gcs.media_url(gcs_server, "a/b 1.bin"), size_bytes=len(data)))
    assert outcome.data == data
    assert gcs.read(gcs_server, "a/b 1.bin") == data
