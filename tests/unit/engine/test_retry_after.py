"""``Retry-After`` for downloads, whole and in ranges, and for small files; its absurd values."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asyncsdk.engine import Download, Engine, Event, PutTarget, RetryPolicy, Transfer, Upload, UrlOrigin
from asyncsdk.engine.config import MiB
from asyncsdk.engine.events import Retried
from asyncsdk.errors import CircuitOpen, RateLimited
from tests.support.http_server import HttpServer, answer
from tests.unit.engine.conftest import config

ASKED_SECONDS = 0.2
PATIENT = RetryPolicy(wait_initial_seconds=0.001, wait_max_seconds=0.002, retry_after_max_seconds=ASKED_SECONDS)


async def move(server: HttpServer, transfer: Transfer, retry: RetryPolicy = PATIENT) -> list[float]:
    """Move it; returns the pauses between attempts."""
    events: list[Event] = []
    async with Engine(config(retry=retry)) as engine:
        report = await engine.collect([transfer], on_event=events.append)
    report.raise_for_failures()
    return [event.wait_seconds for event in events if isinstance(event, Retried)]


@pytest.mark.parametrize("kind", ["small up", "small down", "whole", "range"])
async def test_what_the_server_asks_for_is_waited(server: HttpServer, tmp_path: Path, kind: str) -> None:
    """Never earlier, a tenth later at most."""
    server.objects["/o"] = os.urandom(4 * MiB)
    server.objects["/s"] = b"abc"
    moves: dict[str, Transfer] = {
        "small up": Upload(b"abc", PutTarget(server.url("/s"))),
        "small down": Download(UrlOrigin(server.url("/s"), size_bytes=3), tmp_path / "s"),
        "whole": Download(server.url("/s"), None),
        "range": Download(UrlOrigin(server.url("/o"), size_bytes=4 * MiB), tmp_path / "o"),
    }
    server.script("/s", answer(503, b"", {"Retry-After": "60"}))
    server.script("/o", answer(503, b"", {"Retry-After": "60"}))
    (wait,) = await move(server, moves[kind])
    assert ASKED_SECONDS <= wait <= 1.1 * ASKED_SECONDS + 1e-9


@pytest.mark.parametrize("asked", ["0", "Mon, 01 Jan 2001 00:00:00 GMT"])
async def test_no_wait_asked_for_is_no_reason_to_hurry(server: HttpServer, asked: str) -> None:
    """The backoff grows as without it: attempts are not used up in milliseconds."""
    server.script("/s", *[answer(503, b"", {"Retry-After": asked})] * 6)
    policy = RetryPolicy(wait_initial_seconds=0.02, wait_max_seconds=0.1)
    waits = await move(server, Upload(b"abc", PutTarget(server.url("/s"))), policy)
    assert len(waits) == 6
    assert any(wait > 0.001 for wait in waits)


@pytest.mark.parametrize("kind", ["small up", "range"])
async def test_a_pause_that_is_too_long_is_told_and_the_server_left_alone(
    server: HttpServer, tmp_path: Path, kind: str
) -> None:
    """The first one is told what the server said; what comes after it asks for nothing."""
    server.objects["/o"] = os.urandom(4 * MiB)
    small = [Upload(b"abc", PutTarget(server.url(f"/{number}"))) for number in range(3)]
    large = [Download(UrlOrigin(server.url("/o"), size_bytes=4 * MiB), tmp_path / f"{number}") for number in range(3)]
    transfers: list[Transfer] = [*small] if kind == "small up" else [*large]
    refusal = answer(429, b"", {"Retry-After": "3600"})
    for path in ("/0", "/1", "/2", "/o"):
        server.script(path, *[refusal] * 20)
    async with Engine(config(retry=RetryPolicy(wait_initial_seconds=0.001), concurrency=1, large_objects=1)) as engine:
        report = await engine.collect(transfers)
    assert report.failed == 3
    first, *others = [failure.error for failure in report.failures]
    assert isinstance(first, RateLimited)
    assert first.retry_after == 3600
    assert "a pause of 3600 s" in str(first)
    assert [type(error) for error in others] == [CircuitOpen] * 2
    assert len(server.requests) == 1


def test_how_long_a_pause_may_be() -> None:
    """As long as a server that is out is waited for, two minutes at least; or the policy cuts it."""
    assert config(outage_seconds=600, retry=RetryPolicy()).longest_pause == 600
    assert config(outage_seconds=0, retry=RetryPolicy()).longest_pause == 120
    assert config(outage_seconds=0, retry=PATIENT).longest_pause == float("inf")
