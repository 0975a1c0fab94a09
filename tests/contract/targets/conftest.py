"""Every kind of target before a server that is scripted; before real servers where they can be had."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from asyncsdk.engine import Engine, TransferConfig
from asyncsdk.engine.budget import process_budget
from tests.support.clouds.kinds import PARTED, SCRIPTED, Scripted
from tests.support.real.fixtures import azurite_server, gcs_server, rclone_server, swift_server
from tests.unit.engine.conftest import FAST

__all__ = ["azurite_server", "gcs_server", "rclone_server", "swift_server"]


def config(**changes: object) -> TransferConfig:
    """Few requests at once, quick retries."""
    values: dict[str, object] = {"concurrency": 4, "retry": FAST, "cleanup_seconds": 2.0}
    return TransferConfig(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture(params=SCRIPTED)
async def kind(request: pytest.FixtureRequest) -> AsyncIterator[Scripted]:
    """Each kind, its server running."""
    made = Scripted(request.param)
    async with made.server:
        yield made


@pytest.fixture(params=PARTED)
async def parted(request: pytest.FixtureRequest) -> AsyncIterator[Scripted]:
    """Each kind that goes in parts."""
    made = Scripted(request.param)
    async with made.server:
        yield made


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    """An engine; it is checked to leave no memory and no task behind."""
    before = asyncio.all_tasks()
    async with Engine(config()) as running:
        yield running
    assert process_budget().leased_bytes == 0
    left = {t for t in asyncio.all_tasks() - before if "_accept" not in repr(t) and t is not asyncio.current_task()}
    assert not left
