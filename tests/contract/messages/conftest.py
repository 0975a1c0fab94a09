"""The platforms that every message contract holds for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asyncsdk.platforms.base import Platform
from asyncsdk.platforms.embedded import EmbeddedPlatform
from asyncsdk.platforms.rest import RestPlatform
from asyncsdk.protocol.datasets import DatasetRecord
from tests.support.messages import Stored, new_dataset
from tests.support.server import RunningServer


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data folder behind the platform."""
    return tmp_path / "data"


@pytest.fixture
def count_objects(data: Path) -> Stored:
    """How many objects the platform keeps, committed or not."""
    return lambda: sum(path.is_file() for path in (data / "objects").rglob("*"))


@pytest.fixture(params=["embedded", "rest"])
async def platform(request: pytest.FixtureRequest, data: Path) -> AsyncIterator[Platform]:
    if request.param == "embedded":
        embedded = EmbeddedPlatform(data)
        yield embedded
        await embedded.aclose()
        return
    with RunningServer(data) as server:
        rest = RestPlatform(server.url, server.token)
        yield rest
        await rest.aclose()


@pytest.fixture
async def dataset(platform: Platform) -> DatasetRecord:
    return await new_dataset(platform)
