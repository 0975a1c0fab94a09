"""A bad line before the door: what ours say was stored is stored, once; the official client loses in silence."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import anyio.to_thread
import pytest

from asyncsdk import AsyncClient, Client
from asyncsdk.engine import RetryPolicy, TransferConfig
from asyncsdk.platforms.ultralytics import calls
from tests.doors.conftest import HUB
from tests.support.faults.breaks import Lost, Reset
from tests.support.faults.plan import Plan, Rule
from tests.support.faults.refusals import Refuse
from tests.support.faults.server import FaultServer
from tests.support.official.client import OfficialClient
from tests.support.real.required import missing
from tests.support.real.tools import TOOLS
from tests.support.server import RunningServer

RULES = (
    Rule(Refuse(503), every=4, method="POST"),
    Rule(Reset(after=-1, direction="up"), every=9, method="POST"),
    Rule(Lost(), every=11, method="POST"),
)
"""By number, so that no four requests in a row meet one: below 200 there are never more than three."""


@pytest.fixture
async def bad_line(served: RunningServer) -> AsyncIterator[FaultServer]:
    async with FaultServer(upstream=served.url, keeps_requests=False) as proxy:
        yield proxy


async def test_nothing_is_lost_and_nothing_doubled(
    served: RunningServer, bad_line: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "wait_seconds", lambda error, attempt: 0.0)
    config = TransferConfig(retry=RetryPolicy(max_attempts=6, wait_initial_seconds=0.001, wait_max_seconds=0.01))
    async with AsyncClient(served.url, token=served.token) as native:
        model_id = (await native.models.create("M")).id
        bad_line.plan = Plan(RULES)
        url = bad_line.url(f"/doors/{HUB}")
        async with AsyncClient(platform=HUB, url=url, api_key=served.token, config=config) as client:
            model = await client.models.get(model_id)
            for epoch in range(12):
                (tmp_path / "last.pt").write_bytes(bytes([epoch]) + os.urandom(200_000))
                await model.upload_checkpoint(tmp_path / "last.pt", epoch=epoch)
                await model.metrics.log({"loss": float(epoch)}, step=epoch)
        assert {name for name, count in bad_line.plan.met.items() if count >= 2} == {"Refuse", "Reset", "Lost"}
        stored = await native.models.get(model_id)
        assert [one.epoch async for one in stored.checkpoints.list(sort=["epoch"])] == list(range(12))
        assert [one.value async for one in stored.metrics.list()] == [float(epoch) for epoch in range(12)]
        await stored.download_checkpoint(tmp_path / "back", which=11)
        assert (tmp_path / "back").read_bytes() == (tmp_path / "last.pt").read_bytes()


async def test_the_official_client_loses_what_nobody_looks_at(
    served: RunningServer, bad_line: FaultServer, tmp_path: Path
) -> None:
    """The other side of the comparison, so that the documentation stays true."""
    if (reason := TOOLS["hub-sdk"].unavailable()) is not None:
        missing("hub-sdk", reason)
    (tmp_path / "last.pt").write_bytes(os.urandom(200_000))
    url = bad_line.url(f"/doors/{HUB}")

    def talk() -> tuple[str, list[bool]]:
        with OfficialClient("hub-sdk", {"ULTRALYTICS_HUB_API": url}, folder=tmp_path) as official:
            official.run(f"from hub_sdk import HUBClient\nclient = HUBClient({{'api_key': {served.token!r}}})")
            code = "model = client.model(); model.create_model({'meta': {'name': 'M'}}); result = model.id"
            model_id: str = official.run(code)
            bad_line.plan = Plan([Rule(Refuse(503), every=3, method="POST")])
            code = "result = [model.upload_model(n, 'last.pt') is None for n in range(9)]"
            return model_id, official.run(code)

    model_id, is_none = await anyio.to_thread.run_sync(talk)
    assert is_none == [False, False, True] * 3
    async with AsyncClient(served.url, token=served.token) as native:
        stored = await native.models.get(model_id)
        assert [one.epoch async for one in stored.checkpoints.list(sort=["epoch"])] == [0, 1, 3, 4, 6, 7]


def test_the_blocking_twin_speaks_to_the_service_too(served: RunningServer, door: str, tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"weights")
    with Client(platform=HUB, url=door, api_key=served.token) as client:
        model = client.models.create("M")
        model.upload_checkpoint(tmp_path / "last.pt", epoch=0, is_best=True)
        model.metrics.log({"loss": 0.5}, step=0)
        model.download_checkpoint(tmp_path / "back.pt")
        assert (tmp_path / "back.pt").read_bytes() == b"weights"
        assert [one.name for one in client.models.list()] == ["M"]
