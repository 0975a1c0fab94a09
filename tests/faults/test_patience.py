"""Messages that are refused, or whose replies are lost, more often than one message is tried: the run waits."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from asyncsdk import AsyncClient
from asyncsdk.engine import RetryPolicy, TransferConfig
from asyncsdk.entities import patience
from asyncsdk.platforms import rest
from asyncsdk.platforms.requests import MAX_ATTEMPTS
from asyncsdk.worker import Worker
from tests.support.faults.breaks import Lost
from tests.support.faults.fault import Fault
from tests.support.faults.plan import Plan, Rule
from tests.support.faults.refusals import Refuse
from tests.support.faults.server import FaultServer
from tests.support.jobs import EchoRunner
from tests.support.server import RunningServer

COUNT = 60
TIMES = 3 * MAX_ATTEMPTS
"""So often in a row: for one message, and its repetitions, and more of them."""


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with RunningServer(tmp_path_factory.mktemp("platform")) as running:
        yield running


@pytest.fixture
async def proxy(platform: RunningServer) -> AsyncIterator[FaultServer]:
    async with FaultServer(upstream=platform.url, keeps_requests=True) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for number in range(COUNT):
        path = folder / f"{number:02}.bin"
        path.write_bytes(b"%d" % number * 30)
        os.utime(path, (1_700_000_000, 1_700_000_000))  # of one written just now the next write might not show
    return folder


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "wait_seconds", lambda error, attempt: 0.001)
    monkeypatch.setattr(patience, "_POLICY", RetryPolicy(wait_initial_seconds=0.01, wait_max_seconds=16.0))


@pytest.mark.parametrize(
    "fault", [Refuse(503), Refuse(500), Refuse(429, retry_after=0), Lost()], ids=["503", "500", "429", "lost"]
)
@pytest.mark.parametrize("message", ["prepare", "commit"])
async def test_no_object_fails_and_none_is_there_twice(
    platform: RunningServer, proxy: FaultServer, folder: Path, message: str, fault: Fault
) -> None:
    """Of the commits whose replies are lost each one is done: what it made is found, not made again."""
    async with AsyncClient(proxy.url("").rstrip("/"), token=platform.token) as client:
        dataset = await client.datasets.create(f"{message} {fault!r}"[:60])
        proxy.plan = Plan([Rule(fault, method="POST", path=f"*{message}*", nth=list(range(1, TIMES + 1)))])
        report = await dataset.upload(folder)
        assert (report.done, report.skipped, report.failed) == (COUNT, 0, 0)
        proxy.plan = Plan()
        assert [item.path async for item in dataset.items.list()] == sorted(path.name for path in folder.iterdir())
        asked = sum(message in request.target for request in proxy.requests)
        assert asked > TIMES  # so many were in vain


@pytest.mark.parametrize("message", ["prepare", "commit"])
async def test_a_job_does_not_lose_its_output(platform: RunningServer, proxy: FaultServer, message: str) -> None:
    """What is sent after the file is as patient as what is sent before."""
    async with (
        AsyncClient(proxy.url("").rstrip("/"), token=platform.token) as client,
        Worker(client, runners=[EchoRunner()]),
    ):
        rule = Rule(Refuse(503), method="POST", path=f"*/artifacts/{message}", nth=list(range(1, TIMES + 1)))
        proxy.plan = Plan([rule])
        job = await client.jobs.create("echo", {}, inputs={"in": b"abc"})
        await job.wait_result(timeout=60)
        assert sum(request.target.endswith(f"/artifacts/{message}") for request in proxy.requests) == TIMES + 1


async def test_a_single_call_is_as_quick_to_fail_as_ever(platform: RunningServer, proxy: FaultServer) -> None:
    async with AsyncClient(proxy.url("").rstrip("/"), token=platform.token) as client:
        await client.whoami()
        proxy.plan = Plan([Rule(Refuse(503))])
        before = len(proxy.requests)
        with pytest.raises(Exception, match="503"):
            await client.whoami()
        assert len(proxy.requests) - before == MAX_ATTEMPTS


async def test_commits_that_stay_refused_end_with_the_servers_word(
    platform: RunningServer, proxy: FaultServer, folder: Path
) -> None:
    config = TransferConfig(outage_seconds=0.3, retry=RetryPolicy(max_attempts=2))
    async with AsyncClient(proxy.url("").rstrip("/"), token=platform.token, config=config) as client:
        dataset = await client.datasets.create("refused for good")
        proxy.plan = Plan([Rule(Refuse(503, retry_after=0), method="POST", path="*commit*")])
        with pytest.raises(Exception, match="503"):
            await dataset.upload(folder)
        proxy.plan = Plan()
        report = await dataset.upload(folder)
        assert (report.done + report.skipped, report.failed) == (COUNT, 0)
        assert report.skipped  # what had arrived was committed from the journal, not sent again
