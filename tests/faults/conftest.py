"""Fault servers, an engine that tries again quickly, and a look at what is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from asyncsdk.engine import Engine, MiB, RetryPolicy, TransferConfig
from asyncsdk.engine.budget import process_budget
from asyncsdk.transport.base import Timeouts
from tests.support.faults.server import FaultServer
from tests.support.wire.certificates import Certificates

ATTEMPTS = 4
QUICK = RetryPolicy(
    max_attempts=ATTEMPTS, wait_initial_seconds=0.001, wait_max_seconds=0.002, retry_after_max_seconds=0.05
)
IMPATIENT = Timeouts(connect=5.0, idle=0.7, reply=0.7)

Start = Callable[..., "contextlib.AbstractAsyncContextManager[FaultServer]"]


def config(**changes: object) -> TransferConfig:
    """Small parts, quick retries, and a second of silence at most."""
    values: dict[str, object] = {
        "concurrency": 4,
        "part_size": MiB,
        "multipart_threshold": 2 * MiB,
        "retry": QUICK,
        "timeouts": IMPATIENT,
        "cleanup_seconds": 2.0,
        "outage_seconds": 1.0,
    }
    return TransferConfig(**(values | changes))  # type: ignore[arg-type]


def descriptors() -> set[str]:
    """Return what this process has open, other than what it opens to look."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that lists them is gone by now
            found.add(f"{entry.name} {entry.readlink()}")
    return found


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    """A store of its own, without faults until a test plans some."""
    async with FaultServer() as running:
        yield running


@pytest.fixture
async def engine(server: FaultServer) -> AsyncIterator[Engine]:
    """An engine that must leave no task, no memory, no descriptor and no connection behind."""
    before, opened = asyncio.all_tasks(), descriptors()
    async with Engine(config()) as running:
        yield running
    assert process_budget().leased_bytes == 0
    for _ in range(200):  # the server learns a little later that its connections are closed
        tasks = asyncio.all_tasks() - before - {asyncio.current_task()}
        left = descriptors() - opened
        if not server.open_connections and not left and not tasks:
            break
        await asyncio.sleep(0.02)
    assert server.open_connections == 0, "connections are left"
    assert not tasks, "tasks are left"
    assert not left, "descriptors are left"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority and what it signed."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def good(certificates: Certificates) -> ssl.SSLContext:
    """What a server speaks with which nothing is wrong."""
    return certificates.server()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A folder for downloads, empty."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder
