"""``Retry-After``: what a server asks for is waited, by every target and for every kind of request."""

from __future__ import annotations

import os
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from asyncsdk.engine import Engine, Event, RetryPolicy, Upload
from asyncsdk.engine.events import Retried
from tests.contract.targets.conftest import config
from tests.support.clouds.kinds import PART_BYTES, Scripted
from tests.support.http_server import Action, Connection, Received

ASKED_SECONDS = 0.2
"""Servers ask for whole seconds: what is waited is capped here, far above the backoff."""

PATIENT = RetryPolicy(wait_initial_seconds=0.001, wait_max_seconds=0.002, retry_after_max_seconds=ASKED_SECONDS)


def refuse(form: str) -> Action:
    """Ask for a minute's pause: in seconds, or by the date of its end."""

    async def action(connection: Connection, request: Received) -> bool:
        await connection.read_body(request)
        asked = "60" if form == "seconds" else formatdate(time.time() + 60, usegmt=True)
        await connection.reply(503, b"", {"Retry-After": asked})
        return True

    return action


async def let_pass(connection: Connection, request: Received) -> bool:
    return False


@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("at", [0, 1, 2])
async def test_what_the_server_asks_for_is_waited(kind: Scripted, tmp_path: Path, form: str, at: int) -> None:
    """At the first request, a part, and the last one: never earlier, a tenth later at most; and then it arrives."""
    path = tmp_path / "file"
    path.write_bytes(data := os.urandom(2 * PART_BYTES + 17))
    kind.server.script("/o", *[let_pass] * at, refuse(form))
    events: list[Event] = []
    async with (
        Engine(config(retry=PATIENT, concurrency=1)) as engine,
        engine.run([Upload(path, kind.target("o"))], on_event=events.append) as outcomes,
    ):
        (outcome,) = [outcome async for outcome in outcomes]
    assert outcome.ok
    assert kind.stored("o") == data
    waits = [event.wait_seconds for event in events if isinstance(event, Retried)]
    assert len(waits) == (1 if at < len(kind.server.requests) - 1 else 0)
    for wait in waits:
        assert ASKED_SECONDS <= wait <= 1.1 * ASKED_SECONDS + 1e-9
        assert (outcome.waits or {})["rate"] >= ASKED_SECONDS
