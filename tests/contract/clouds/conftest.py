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
from tests.support.real.buckets import KINDS, CloudHome, cloud_home
from tests.support.real.fixtures import azurite_server, gcs_server, rclone_server, swift_server
from tests.support.server import RunningServer

__all__ = ["azurite_server", "gcs_server", "rclone_server", "swift_server"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data folder behind the platform."""
    return tmp_path / "data"


@pytest.fixture(params=[pytest.param(kind, marks=[pytest.mark.slow] * (kind == "swift")) for kind in KINDS])
def home(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> CloudHome:
    """Where the objects are."""
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
