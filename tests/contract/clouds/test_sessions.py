"""Sessions of Google Cloud Storage under a whole platform: cut off, ended by Google, and gone on with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncsdk import AsyncClient
from asyncsdk.engine import RetryPolicy, TransferConfig
from asyncsdk.errors import AsyncSDKError, ChecksumMismatch
from asyncsdk.server.objects.clouds import gcs_minting
from tests.support.clouds.google import GoogleStorage
from tests.support.real.buckets import CloudHome, google_home
from tests.support.server import RunningServer

MiB = 1024 * 1024
SIZE = 21 * MiB
QUICK = TransferConfig(retry=RetryPolicy(max_attempts=2, wait_initial_seconds=0.01, wait_max_seconds=0.02))


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three parts instead of one."""
    monkeypatch.setattr(gcs_minting, "PART_BYTES", 8 * MiB)


@pytest.fixture
def storage() -> Iterator[GoogleStorage]:
    with GoogleStorage() as storage:
        yield storage


@pytest.fixture
def home(storage: GoogleStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CloudHome:
    """A bucket of this test alone, which it may treat as it likes."""
    folder = tmp_path / "google"
    folder.mkdir()
    return google_home(storage.as_server(folder), monkeypatch)


async def send(client: AsyncClient, what: str, path: Path) -> None:
    """Upload *path* into what is there."""
    if what == "dataset":
        dataset = await client.datasets.get(name="photos")
        (await dataset.upload(path)).raise_for_failures()
    else:
        model = await client.models.get(name="detector")
        await model.upload_checkpoint(path, epoch=1)


@pytest.mark.parametrize("is_ended", [False, True], ids=["cut off", "cut off and ended"])
@pytest.mark.parametrize("what", ["dataset", "checkpoint"])
async def test_an_upload_that_failed_goes_on_where_it_was(
    storage: GoogleStorage, home: CloudHome, tmp_path: Path, what: str, is_ended: bool
) -> None:
    """The same call again, by another client: what arrived is not sent again, unless Google forgot the session."""
    content = os.urandom(SIZE)
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    place = tmp_path / "home"
    with RunningServer(tmp_path / "platform", objects=home.location) as server:
        storage.refuses = lambda session: 403 if len(session.data) >= 8 * MiB else None
        async with AsyncClient(server.url, token=server.token, home=place, config=QUICK) as client:
            await client.datasets.create("photos")
            await client.models.create("detector")
            with pytest.raises((AsyncSDKError, ExceptionGroup)):
                await send(client, what, path)
        (first,) = storage.sessions.values()
        assert len(first.data) == 8 * MiB
        (name,) = storage.sessions  # whoever has it can write the object
        written = [file.read_bytes() for file in place.rglob("*") if file.is_file()]
        assert written
        assert not [data for data in written if name.encode() in data]
        first.is_gone = is_ended
        storage.refuses = lambda session: None
        received = storage.received_bytes
        async with AsyncClient(server.url, token=server.token, home=place, config=QUICK) as client:
            await send(client, what, path)
    assert [stored.data for name, stored in storage.objects.items() if not name.endswith(".json")] == [content]
    assert len(storage.sessions) == 1 + is_ended
    assert storage.received_bytes - received == (SIZE if is_ended else SIZE - 8 * MiB)


async def test_a_session_that_google_ends_is_followed_by_another(
    storage: GoogleStorage, home: CloudHome, tmp_path: Path
) -> None:
    """While it is sent to: everything is sent again, to the same object, and nobody need do anything."""
    content = os.urandom(SIZE)
    path = tmp_path / "weights.pt"
    path.write_bytes(content)

    def end_the_first(session: object) -> int | None:
        first = next(iter(storage.sessions.values()))
        first.is_gone = len(first.data) >= 8 * MiB
        return 410 if session is first and first.is_gone else None

    storage.refuses = end_the_first
    with RunningServer(tmp_path / "platform", objects=home.location) as server:
        async with AsyncClient(server.url, token=server.token, home=tmp_path / "home", config=QUICK) as client:
            await client.datasets.create("photos")
            await send(client, "dataset", path)
    first, second = storage.sessions.values()
    assert (first.name, first.is_done, second.is_done) == (second.name, False, True)
    assert storage.objects[second.name].data == content


@pytest.mark.parametrize("what", ["dataset", "checkpoint"])
async def test_an_object_that_came_out_wrong_is_sent_again_as_another(
    storage: GoogleStorage, home: CloudHome, tmp_path: Path, what: str
) -> None:
    """Nothing replaces what a session made: the next call begins another upload, and the wrong bytes are swept."""
    content = os.urandom(SIZE)
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    storage.damages = 1
    with RunningServer(tmp_path / "platform", objects=home.location) as server:
        async with AsyncClient(server.url, token=server.token, home=tmp_path / "home", config=QUICK) as client:
            await client.datasets.create("photos")
            await client.models.create("detector")
            with pytest.raises((ChecksumMismatch, ExceptionGroup)):
                await send(client, what, path)
            await send(client, what, path)
    first, second = storage.sessions.values()
    assert first.name != second.name
    assert storage.objects[second.name].data == content
