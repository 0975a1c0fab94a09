"""A server that is gone for good is found out by the first objects, not by every one of them."""

from __future__ import annotations

import socket

from asyncsdk.engine import Engine, Outcome, PutTarget, Upload
from asyncsdk.errors import ConnectionFailed
from tests.support.http_server import HttpServer
from tests.unit.engine.conftest import config


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


async def test_once_nothing_gets_through_objects_are_tried_once_and_each_has_its_outcome() -> None:
    url = f"http://127.0.0.1:{free_port()}/o"
    outcomes: list[Outcome] = []
    async with Engine(config(concurrency=4)) as engine:
        await engine.collect((Upload(b"x", PutTarget(url)) for _ in range(100)), on_outcome=outcomes.append)
    assert len(outcomes) == 100
    assert all(isinstance(outcome.error, ConnectionFailed) for outcome in outcomes)
    tried_again = [outcome for outcome in outcomes if outcome.attempts > 1]
    assert 4 <= len(tried_again) <= 8  # those under way when the first four had given up


async def test_the_first_answer_brings_the_retries_back(server: HttpServer) -> None:
    dead = PutTarget(f"http://127.0.0.1:{free_port()}/o")
    alive = PutTarget(server.url("/o"))
    async with Engine(config(concurrency=1)) as engine:
        attempts: list[int] = []

        def transfers(targets: list[PutTarget]) -> list[Upload]:
            return [Upload(b"x", target) for target in targets]

        await engine.collect(
            transfers([dead, dead, alive, dead, dead]), on_outcome=lambda outcome: attempts.append(outcome.attempts)
        )
    assert attempts == [4, 1, 1, 4, 1]
