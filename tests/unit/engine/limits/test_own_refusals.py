"""One object that is refused whatever is done says nothing of the server; what it had before, and others, do."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from asyncsdk.engine import Download, Engine, Outcome, RetryPolicy, Transfer, Upload, UrlOrigin
from asyncsdk.engine.config import MiB
from asyncsdk.engine.health import Health
from asyncsdk.engine.limits import origins
from asyncsdk.errors import ServerError
from tests.support.feeds import multipart_target
from tests.support.http_server import Connection, HttpServer, Received
from tests.unit.engine.conftest import config

POLICY = RetryPolicy(max_attempts=6, wait_initial_seconds=0.001, wait_max_seconds=0.002, budget_least=100_000)
PARTS = 12


class Choosy(HttpServer):
    """Refuses everything but the first *taken* requests, which are through before that; until told to stop."""

    taken = 0
    refused = 0
    is_refusing = True
    health: Health | None = None

    async def answer(self, connection: Connection, request: Received) -> None:
        if not self.is_refusing or self.taken > 0:
            self.taken -= 1
            await super().answer(connection, request)
        else:
            while self.health is not None and self.health.part_answers < 3:
                await asyncio.sleep(0.01)
            self.refused += 1
            await connection.reply(503)


def one_object(kind: str, server: HttpServer, folder: Path) -> Transfer:
    if kind == "ranges":
        server.objects["/large"] = os.urandom(PARTS * MiB)
        return Download(UrlOrigin(server.url("/large"), size_bytes=PARTS * MiB), folder / "there")
    (folder / "large").write_bytes(bytes(PARTS * MiB))
    return Upload(folder / "large", multipart_target(server, PARTS))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become hundredths."""
    monkeypatch.setattr(origins, "_SHORTEST_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(origins, "_SUSPECT_SECONDS", 0.0)
    monkeypatch.setattr(origins, "_LONGEST_PAUSE_SECONDS", 0.3)


@pytest.mark.parametrize("kind", ["ranges", "parts"])
async def test_an_object_that_is_refused_alone_fails_with_its_own_error(tmp_path: Path, kind: str) -> None:
    """Its many requests are not many objects: nothing is waited for, and its attempts are what ends it."""
    outcomes = list[Outcome]()
    async with Choosy() as server, Engine(config(concurrency=16, retry=POLICY, outage_seconds=3600)) as engine:
        async with asyncio.timeout(50):
            await engine.collect([one_object(kind, server, tmp_path)], on_outcome=outcomes.append)
        assert not engine.limits.origins.is_out(server.url("/large"))
    [outcome] = outcomes
    assert isinstance(outcome.error, ServerError)
    assert outcome.attempts == POLICY.max_attempts
    assert server.refused > origins.LEAST_FAILURES


@pytest.mark.parametrize("kind", ["ranges", "parts"])
async def test_an_object_that_was_taken_until_now_waits_for_the_server(tmp_path: Path, kind: str) -> None:
    """What a server took in part it does not refuse for good: it is out, though nothing else is meant for it."""
    async with Choosy() as server, Engine(config(concurrency=16, retry=POLICY, outage_seconds=3600)) as engine:
        server.taken, server.health = 3, engine.limits.health
        run = asyncio.create_task(engine.collect([one_object(kind, server, tmp_path)]))
        async with asyncio.timeout(50):
            while not engine.limits.origins.is_out(server.url("/large")):
                assert not run.done()
                await asyncio.sleep(0.01)
            server.is_refusing = False
            assert (await run).done == 1
