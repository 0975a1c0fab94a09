"""Uploads in parts that S3 has swept: buckets are told to do that after some days, and nobody tells the platform."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from asyncsdk import AsyncClient
from asyncsdk.engine import Progress, RetryPolicy, TransferConfig
from asyncsdk.server.objects.clouds import s3_minting
from asyncsdk.server.objects.clouds.s3_minting import S3Minter
from asyncsdk.targets import MultipartTarget
from tests.support.crew import crew_of, until
from tests.support.real.buckets import CloudHome, cloud_home
from tests.support.real.fixtures import rclone_server
from tests.support.server import RunningServer

__all__ = ["rclone_server"]

MiB = 1024 * 1024
QUICK = TransferConfig(retry=RetryPolicy(max_attempts=2, wait_initial_seconds=0.01, wait_max_seconds=0.02))
SIZE = 21 * MiB


@pytest.fixture
def home(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> CloudHome:
    """A bucket at a server that speaks S3."""
    return cloud_home("rclone", request, monkeypatch)


@pytest.fixture
def minted(monkeypatch: pytest.MonkeyPatch) -> list[MultipartTarget]:
    """Every target of an upload in parts that the platform gives."""
    targets: list[MultipartTarget] = []
    mint = S3Minter._multipart

    def noting(*args: Any, **options: Any) -> MultipartTarget:
        targets.append(mint(*args, **options))
        return targets[-1]

    monkeypatch.setattr(S3Minter, "_multipart", noting)
    return targets


async def send(client: AsyncClient, what: str, path: Path, **options: Any) -> None:
    """Upload *path* into what is there."""
    if what == "dataset":
        dataset = await client.datasets.get(name="photos")
        (await dataset.upload(path, **options)).raise_for_failures()
    else:
        model = await client.models.get(name="detector")
        await model.upload_checkpoint(path, epoch=1, **options)


async def stopped(client: AsyncClient, what: str, path: Path, after_bytes: int) -> None:
    """Begin to upload *path*, and be cancelled when so much of it has moved, well before it is all."""
    client.engine.limits.bandwidth = 32 * MiB
    scope = anyio.CancelScope()

    def stop(progress: Progress) -> None:
        if progress.bytes_done >= after_bytes:
            scope.cancel()

    with scope:
        await send(client, what, path, on_progress=stop)
    assert scope.cancelled_caught
    client.engine.limits.bandwidth = None


@pytest.mark.parametrize("urls", [25, 1])
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("what", ["dataset", "checkpoint"])
async def test_an_upload_that_was_swept_begins_anew(
    home: CloudHome,
    minted: list[MultipartTarget],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    what: str,
    processes: int,
    urls: int,
) -> None:
    """The same call again sends everything to another upload; nobody has to forget a journal for it.

    With one URL at a time, too: further ones are asked for the upload that is in force, not the one that is gone.
    """
    monkeypatch.setattr(s3_minting, "FIRST_PART_URLS", urls)
    monkeypatch.setattr(s3_minting, "RENEWED_PART_URLS", urls)
    path = tmp_path / "weights.pt"
    path.write_bytes(os.urandom(SIZE))
    config = replace(QUICK, processes=processes)
    with RunningServer(tmp_path / "platform", objects=home.location) as server:
        async with AsyncClient(server.url, token=server.token, home=tmp_path / "home", config=config) as client:
            await client.datasets.create("photos")
            await client.models.create("detector")
            await stopped(client, what, path, 1)
            assert len({target.upload_id for target in minted}) == 1
            async with httpx.AsyncClient() as http:
                assert (await http.delete(minted[0].abort_url)).status_code == 204
            if processes > 1:
                crew_of(client.engine).start()
                await until(lambda: len(crew_of(client.engine).pids) == processes)
            await send(client, what, path)
            assert len({target.upload_id for target in minted}) == 2
            place = tmp_path / "back"
            if what == "dataset":
                await (await client.datasets.get(name="photos")).download(place)
                place /= "weights.pt"
            else:
                await (await client.models.get(name="detector")).download_checkpoint(place, which=1)
            assert place.read_bytes() == path.read_bytes()
    assert home.count() == 1
