"""A number of requests at once that the caller set is nobody else's to change."""

from __future__ import annotations

import pytest

from asyncsdk.engine import Engine
from asyncsdk.engine.limits.controller import LaneController
from tests.support.transports import InstantTransport
from tests.unit.engine.conftest import config


async def test_a_number_that_was_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The controllers would like two; they have a say only while nobody else has."""
    monkeypatch.setattr(LaneController, "observe", lambda controller, tick: 2)
    async with Engine(config(concurrency=6), transport=InstantTransport()) as engine:
        limits = engine.limits
        with limits.pilot.at_work():
            limits.pilot._tick()
            assert (limits.slots.small_limit, limits.slots.part_limit) == (6, 6)
            limits.concurrency = "auto"
            limits.pilot._tick()
            assert (limits.slots.small_limit, limits.slots.part_limit) == (2, 2)
            limits.concurrency = 4
            limits.pilot._tick()
            assert (limits.slots.small_limit, limits.slots.part_limit) == (4, 4)
