"""Engines whose worker processes are there from the start, and what tests want to know of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from asyncsdk.engine import Engine, TransferConfig
from asyncsdk.engine.crew.crew import Crew

__all__ = ["crew_of", "engine_with_workers", "is_gone", "pipes", "until"]


def crew_of(engine: Engine) -> Crew:
    """Return the crew of an engine that is open."""
    resources = engine._resources
    assert resources is not None
    assert resources.crew is not None
    return resources.crew


@asynccontextmanager
async def engine_with_workers(config: TransferConfig) -> AsyncIterator[Engine]:
    """Give an engine whose workers are ready, and see that nothing is left of them."""
    before = pipes()
    async with Engine(config) as engine:
        crew = crew_of(engine)
        crew.start()
        await until(lambda: len(crew.pids) == config.processes)
        pids = crew.pids
        yield engine
        pids += crew.pids
    assert all(is_gone(pid) for pid in pids), "a worker outlived its engine"
    assert pipes() == before


async def until(condition: object, seconds: float = 40.0) -> None:
    """Wait until *condition* holds."""
    assert callable(condition)
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Whether there is no such process, or only its exit status is left."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def pipes() -> int:
    """Return how many ends of pipes this process has open."""
    count = 0
    for path in Path("/proc/self/fd").iterdir() if Path("/proc/self/fd").is_dir() else ():
        with contextlib.suppress(OSError):  # the one that lists them
            count += path.readlink().name.startswith("pipe:")
    return count
