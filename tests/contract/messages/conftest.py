"""The platforms that every message contract holds for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.platforms.base import Platform
from asyncsdk.platforms.embedded import EmbeddedPlatform
from asyncsdk.platforms.registry import ADAPTERS, open_adapter
from asyncsdk.platforms.rest import RestPlatform
from asyncsdk.protocol.datasets import DatasetRecord
from tests.contract.messages.deviations import DEVIATIONS, WITHOUT
from tests.support.adapted import expect_deviations, skip_unsupported
from tests.support.messages import Stored, new_dataset
from tests.support.server import RunningServer


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    return (yield from skip_unsupported())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    return (yield from skip_unsupported())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    mine = [item for item in items if item.path.is_relative_to(Path(__file__).parent)]
    expect_deviations(mine, DEVIATIONS, WITHOUT)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data folder behind the platform."""
    return tmp_path / "data"


@pytest.fixture
def count_objects(data: Path) -> Stored:
    """How many objects the platform keeps, committed or not."""
    return lambda: sum(path.is_file() for path in (data / "objects").rglob("*"))


@pytest.fixture(params=["embedded", "rest", *sorted(ADAPTERS)])
async def platform(request: pytest.FixtureRequest, data: Path) -> AsyncIterator[Platform]:
    if request.param == "embedded":
        embedded = EmbeddedPlatform(data)
        yield embedded
        await embedded.aclose()
        return
    if request.param in ADAPTERS:  # through the door of the same name
        with RunningServer(data, doors=[request.param]) as server:
            adapter = open_adapter(request.param, server.door_urls[request.param], server.token)
            yield adapter
            await adapter.aclose()
        return
    with RunningServer(data) as server:
        rest = RestPlatform(server.url, server.token)
        yield rest
        await rest.aclose()


@pytest.fixture
async def dataset(platform: Platform) -> DatasetRecord:
    return await new_dataset(platform)
