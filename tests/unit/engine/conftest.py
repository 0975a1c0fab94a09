"""A scripted server and an engine; both are checked to leave nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from asyncsdk.engine import Engine, RetryPolicy, TransferConfig
from asyncsdk.engine.budget import process_budget
from asyncsdk.engine.config import MiB
from tests.support.http_server import HttpServer

FAST = RetryPolicy(max_attempts=4, wait_initial_seconds=0.001, wait_max_seconds=0.002, retry_after_max_seconds=0.01)


def config(**changes: object) -> TransferConfig:
    """Small parts and quick retries."""
    values: dict[str, object] = {
        "concurrency": 4,
        "part_size": MiB,
        "multipart_threshold": 2 * MiB,
        "retry": FAST,
        "cleanup_seconds": 2.0,
        "outage_seconds": 1.0,
    }
    return TransferConfig(**(values | changes))  # type: ignore[arg-type]


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    async with HttpServer() as running:
        yield running


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    before = asyncio.all_tasks()
    async with Engine(config()) as running:
        yield running
    assert process_budget().leased_bytes == 0
    left = {t for t in asyncio.all_tasks() - before if "_accept" not in repr(t) and t is not asyncio.current_task()}
    assert not left
