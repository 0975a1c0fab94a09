"""Whom an engine belongs to."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from asyncsdk.engine import Engine, PutTarget, TransferConfig
from asyncsdk.errors import ConfigError, ForkedProcessError
from tests.support.http_server import HttpServer


async def test_a_closed_engine_refuses(server: HttpServer) -> None:
    engine = Engine()
    await engine.upload(b"x", PutTarget(server.url("/o")))
    await engine.aclose()
    await engine.aclose()
    with pytest.raises(ConfigError):
        await engine.upload(b"x", PutTarget(server.url("/o")))


def test_another_event_loop_is_refused() -> None:
    engine = Engine()

    async def use() -> None:
        async with engine.run([]):
            pass

    asyncio.run(use())
    with pytest.raises(ConfigError, match="event loop"):
        asyncio.run(use())


def test_after_a_fork_the_parents_engine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(TransferConfig())
    pid = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: pid + 1)

    async def use() -> None:
        with pytest.raises(ForkedProcessError):
            await engine.upload(b"x", PutTarget("http://127.0.0.1:9/o"))
        with pytest.raises(ForkedProcessError):
            async with engine.run([]):
                pass
        await engine.aclose()

    asyncio.run(use())


async def test_nothing_is_opened_before_the_first_transfer() -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    engine = Engine()
    assert descriptors() == before
    await engine.aclose()
