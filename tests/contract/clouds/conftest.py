"""The platforms of the message contracts, their objects kept by servers that nobody here wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asyncsdk import AsyncClient
from asyncsdk.platforms.base import Platform
from asyncsdk.platforms.embedded import EmbeddedPlatform
from asyncsdk.platforms.rest import RestPlatform
from asyncsdk.protocol.datasets import DatasetRecord
from tests.support.messages import Stored, new_dataset
from tests.support.real.buckets import KINDS, CloudHome, cloud_home, google_server
from tests.support.real.fixtures import azurite_server, gcs_server, rclone_server, swift_server
from tests.support.server import RunningServer

__all__ = ["azurite_server", "gcs_server", "google_server", "rclone_server", "swift_server"]

_NO_EMPTY = "this emulator breaks at a PUT of an empty object; `GoogleStorage` takes it"

DEVIATIONS = {
    ("gcs", "test_a_folder_comes_back_byte_for_byte"): _NO_EMPTY,
    ("gcs", "test_a_served_folder_keeps_its_objects_in_a_bucket"): _NO_EMPTY,
    ("gcs", "test_outcomes_and_progress_account_for_every_object"): _NO_EMPTY,
    ("gcs", "test_uploading_again_sends_nothing_and_changed_files_only"): _NO_EMPTY,
    ("gcs", "test_what_is_committed_comes_back"): _NO_EMPTY,
}
"""What a server cannot do, by its name and that of the test."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data folder behind the platform."""
    return tmp_path / "data"


@pytest.fixture(params=[pytest.param(kind, marks=[pytest.mark.slow] * (kind == "swift")) for kind in KINDS])
def home(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> CloudHome:
    """Where the objects are."""
    reason = DEVIATIONS.get((request.param, getattr(request.node, "originalname", "")))
    if reason is not None:
        pytest.skip(reason)
    return cloud_home(request.param, request, monkeypatch)


@pytest.fixture
def count_objects(home: CloudHome) -> Stored:
    """How many objects the platform keeps, committed or not."""
    return home.count


@pytest.fixture(params=[pytest.param("embedded", marks=pytest.mark.slow), "rest"])
async def platform(request: pytest.FixtureRequest, data: Path, home: CloudHome) -> AsyncIterator[Platform]:
    if request.param == "embedded":
        embedded = EmbeddedPlatform(data, objects=str(home.location), objects_endpoint=home.location.endpoint)
        yield embedded
        await embedded.aclose()
    else:
        with RunningServer(data, objects=home.location) as server:
            rest = RestPlatform(server.url, server.token)
            yield rest
            await rest.aclose()
    # Whatever a test does: bytes never lie in the data folder.
    assert not [path for path in (data / "objects").rglob("*") if path.is_file()]


@pytest.fixture
async def dataset(platform: Platform) -> DatasetRecord:
    return await new_dataset(platform)


@pytest.fixture
async def client(home: CloudHome, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AsyncClient]:
    """A client of an empty served platform."""
    folder = tmp_path_factory.mktemp("platform")
    with RunningServer(folder, objects=home.location) as server:
        async with AsyncClient(server.url, token=server.token, home=folder / "home") as client:
            yield client
