"""Worker processes and a server that is out: what they hold waits as it would in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from asyncsdk.engine import Outcome, PutTarget, RetryPolicy, Transfer, TransferConfig, Upload
from asyncsdk.errors import CircuitOpen, TooManyFailures
from tests.support.crew import engine_with_workers
from tests.support.http_server import Connection, HttpServer, Received

COUNT = 400
CREW = TransferConfig(
    concurrency=32,
    processes=2,
    outage_seconds=60,
    retry=RetryPolicy(max_attempts=4, wait_initial_seconds=0.001, wait_max_seconds=0.002),
)


class Flaky(HttpServer):
    is_out = False
    status = 503
    refused = 0

    async def answer(self, connection: Connection, request: Received) -> None:
        if self.is_out:
            self.refused += 1
            await connection.reply(self.status)
        else:
            await super().answer(connection, request)


def uploads(server: HttpServer, folder: Path, count: int = COUNT) -> Iterator[Transfer]:
    (folder / "source").write_bytes(b"x" * 1000)
    for number in range(count):
        yield Upload(folder / "source", PutTarget(server.url(f"/{number}")))


async def test_an_outage_costs_no_object(tmp_path: Path) -> None:
    """Each of the two finds out for itself; then few requests are sent, and all objects get there."""
    async with Flaky() as server, engine_with_workers(CREW) as engine:
        server.is_out = True
        run = asyncio.create_task(engine.collect(uploads(server, tmp_path)))
        async with asyncio.timeout(40):
            await asyncio.sleep(2.0)
            assert server.refused < 300
            server.is_out = False
            report = await run
    assert (report.done, report.failed) == (COUNT, 0)


async def test_a_server_that_stays_out_ends_the_run_once(tmp_path: Path) -> None:
    outcomes: list[Outcome] = []
    async with Flaky() as server, engine_with_workers(replace(CREW, outage_seconds=1.5)) as engine:
        server.is_out = True
        run = engine.run(uploads(server, tmp_path, 1_000_000), on_outcome=outcomes.append)
        with pytest.raises(CircuitOpen):
            async with asyncio.timeout(40), run as given:
                async for _ in given:
                    pass
        assert not run.is_complete
    assert {type(outcome.error) for outcome in outcomes} == {CircuitOpen}
    assert len(outcomes) < 10_000
    assert server.refused < 300


async def test_a_run_that_is_drained_does_not_wait_for_it(tmp_path: Path) -> None:
    async with Flaky() as server, engine_with_workers(CREW) as engine:
        server.is_out = True
        run = asyncio.create_task(engine.collect(uploads(server, tmp_path, 1_000_000)))
        await asyncio.sleep(1.0)
        assert engine.drain()
        async with asyncio.timeout(20):
            report = await run
    assert not report.is_complete
    assert set(report.failures_by_code) == {"circuit_open"}


async def test_so_many_failures_end_the_run(tmp_path: Path) -> None:
    """The parent counts them, whoever has them."""
    outcomes: list[Outcome] = []
    async with Flaky() as server, engine_with_workers(replace(CREW, max_failures=20)) as engine:
        server.is_out, server.status = True, 403
        with pytest.raises(TooManyFailures, match="403"):
            async with asyncio.timeout(40):
                await engine.collect(uploads(server, tmp_path, 1_000_000), on_outcome=outcomes.append)
    assert 20 <= len(outcomes) < 10_000
