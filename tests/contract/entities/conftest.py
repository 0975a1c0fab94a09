"""One client for every platform: the entity API must mean the same on each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asyncsdk import AsyncClient
from tests.support.server import RunningServer


@pytest.fixture(params=["embedded", "rest"])
async def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[AsyncClient]:
    """A client of an empty platform."""
    folder: Path = tmp_path_factory.mktemp("platform")
    if request.param == "embedded":
        async with AsyncClient(data=folder) as client:
            yield client
        return
    with RunningServer(folder) as server:
        async with AsyncClient(server.url, token=server.token) as client:
            yield client
