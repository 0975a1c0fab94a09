"""One client for every platform: the entity API must mean the same on each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any

import pytest

from asyncsdk import AsyncClient
from asyncsdk.platforms.registry import ADAPTERS
from tests.contract.entities.deviations import DEVIATIONS, WITHOUT
from tests.support.adapted import expect_deviations, skip_unsupported
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


@pytest.fixture(params=["embedded", "rest", *sorted(ADAPTERS)])
async def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[AsyncClient]:
    """A client of an empty platform."""
    folder: Path = tmp_path_factory.mktemp("platform")
    if request.param == "embedded":
        async with AsyncClient(data=folder) as client:
            yield client
        return
    if request.param in ADAPTERS:  # through the door of the same name
        with RunningServer(folder, doors=[request.param]) as server:
            url = server.door_urls[request.param]
            async with AsyncClient(platform=request.param, url=url, api_key=server.token) as client:
                yield client
        return
    with RunningServer(folder) as server:
        async with AsyncClient(server.url, token=server.token) as client:
            yield client
