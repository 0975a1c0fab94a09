"""Objects that are under way follow how many requests there may be: nobody waits for a range to end first."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asyncsdk.engine import Engine, UrlOrigin
from asyncsdk.engine.config import MiB
from tests.support.http_server import Connection, HttpServer, Received
from tests.unit.engine.conftest import config

PARTS = 24


class Patient(HttpServer):
    """Answers nothing until it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()

    async def answer(self, connection: Connection, request: Received) -> None:
        await self.may_answer.wait()
        await super().answer(connection, request)


@pytest.fixture
async def patient() -> AsyncIterator[Patient]:
    async with Patient() as server:
        yield server


@pytest.mark.parametrize("kind", ["file", "memory", "stream"])
async def test_a_download_takes_what_becomes_free_while_its_ranges_are_under_way(
    patient: Patient, tmp_path: Path, kind: str
) -> None:
    """Four at once, of which none ends; then there may be twenty, and twenty are asked for. Fewer are kept to again."""
    patient.objects["/o"] = data = os.urandom(PARTS * MiB)
    origin = UrlOrigin(patient.url("/o"), size_bytes=len(data))
    async with Engine(config(concurrency=20)) as engine:
        engine.limits.concurrency = 4

        async def download() -> bytes:
            if kind == "stream":
                async with engine.stream(origin) as pieces:
                    return b"".join([piece async for piece in pieces])
            outcome = await engine.download(origin, tmp_path / "o" if kind == "file" else None)
            return outcome.data if outcome.data is not None else (tmp_path / "o").read_bytes()

        task = asyncio.create_task(download())
        async with asyncio.timeout(30):
            while patient.active < 4:
                await asyncio.sleep(0.01)
            assert len(patient.requests) == 4
            # As the controller does: by a timer of the loop, outside of any task.
            asyncio.get_running_loop().call_soon(setattr, engine.limits, "concurrency", 20)
            while patient.active < 20:
                await asyncio.sleep(0.01)
            assert len(patient.requests) == 20
            patient.may_answer.set()
            assert await task == data
        assert engine.limits.slots.has_grown == []


async def test_what_was_told_of_more_is_not_remembered(patient: Patient, tmp_path: Path) -> None:
    """The download of a day hears of it many times."""
    patient.objects["/o"] = os.urandom(8 * MiB)
    origin = UrlOrigin(patient.url("/o"), size_bytes=8 * MiB)
    async with Engine(config(concurrency=20)) as engine, asyncio.timeout(30):
        engine.limits.concurrency = 2
        task = asyncio.create_task(engine.download(origin, tmp_path / "o"))
        while patient.active < 2:
            await asyncio.sleep(0.01)
        for _ in range(50):
            engine.limits.concurrency = 3
            engine.limits.concurrency = 2
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        held = [thing for thing in gc.get_objects() if isinstance(thing, asyncio.Task)]
        assert len([one for one in held if "_following" in getattr(one.get_coro(), "__qualname__", "")]) <= 1
        patient.may_answer.set()
        assert (await task).ok
