"""Whose fault a failed attempt is: of the server it asked, and of no other that failed before."""

from __future__ import annotations

import pytest

from asyncsdk.engine import Engine, PutTarget, RetryPolicy, Upload
from asyncsdk.engine.attempts import Airtime
from asyncsdk.engine.meter import Meter
from asyncsdk.engine.work import Count, Work
from asyncsdk.errors import ConnectionFailed
from asyncsdk.transport.base import Request
from tests.support.http_server import HttpServer, answer
from tests.unit.engine.conftest import config

POLICY = RetryPolicy(max_attempts=4, wait_initial_seconds=0.001, wait_max_seconds=0.002)


async def test_a_platform_that_fails_is_not_taken_for_the_storage_that_is_out(server: HttpServer) -> None:
    """Its attempts count, and are paused between: else they were free, and made without end, while the other is out."""
    url = server.url("/o")
    server.script("/o", answer(503))
    attempts = 0
    async with Engine(config(retry=POLICY, outage_seconds=600)) as engine:
        work = Work(engine._open(), Upload(b"x", PutTarget(url)), None, Meter())

        async def attempt(count: Count) -> None:
            nonlocal attempts
            attempts += 1
            if attempts > 1:
                if attempts > 100:
                    pytest.fail("tried without end")
                raise ConnectionFailed("no connection to the platform")
            request = Request("GET", url)
            reply = await work.send(request, "small")
            for number in range(1, 100):
                engine.limits.origins.failed(url, who=number)
            error = work.refused(reply, request, None)
            assert engine.limits.origins.must_wait(url)
            raise error

        with pytest.raises(ConnectionFailed):
            await work.retry(attempt)
    assert attempts == POLICY.max_attempts + 1  # the one that found the storage out costs none


async def test_a_pause_between_attempts_is_not_the_servers_lateness(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that waits for its next attempt is not late: else it were repeated at once, and the pause no pause."""
    airtime, seen = Airtime(), list[float | None]()

    async def sleep(seconds: float) -> None:
        seen.append(airtime.started)

    async def attempt(count: Count) -> None:
        count.begin()
        assert airtime.started is not None
        raise ConnectionFailed("broken")

    async with Engine(config(retry=POLICY)) as engine:
        monkeypatch.setattr(engine.limits.origins, "sleep", sleep)
        work = Work(engine._open(), Upload(b"x", PutTarget(server.url("/o"))), None, Meter())
        with pytest.raises(ConnectionFailed):
            await work.retry(attempt, airtime=airtime)
    assert seen == [None] * (POLICY.max_attempts - 1)
