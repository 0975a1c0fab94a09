"""A platform that is killed and comes back in the middle of long work: the work waits and goes on, and nothing is lost
or doubled."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from asyncsdk import AsyncClient
from asyncsdk.engine import Event, Outcome, Report, TransferConfig
from asyncsdk.entities.datasets import AsyncDataset
from asyncsdk.errors import AsyncSDKError, CircuitOpen, ConnectionFailed, RequestError
from tests.support.server import ServedProcess

FILES = {f"{number:04}.bin": b"%d" % number * 20 for number in range(1200)}
OUT_SECONDS = 2.0
"""More than the attempts of one message take."""


class Restarted:
    """A served platform that can be killed, and comes back on the same port with the same folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.process = ServedProcess(folder).start()
        self.url, self.token = self.process.url, self.process.token
        self._comeback: threading.Timer | None = None
        self.kills = 0

    def kill(self, *, returns: bool = True) -> None:
        """Kill it now; it is back after `OUT_SECONDS`. Only the first call does anything."""
        self.kills += 1
        if self.kills > 1:
            return
        self.process.kill()
        if returns:
            self._comeback = threading.Timer(OUT_SECONDS, self.start)
            self._comeback.start()

    def start(self) -> None:
        self.process = ServedProcess(self._folder, int(self.url.rpartition(":")[2])).start()

    def close(self) -> None:
        if self._comeback is not None:
            self._comeback.join()
        self.process.kill()


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Restarted]:
    running = Restarted(tmp_path / "platform")
    try:
        yield running
    finally:
        running.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    return folder


def after(count: int, action: Callable[[], None]) -> Callable[[Any], None]:
    """Return what calls *action* with the result number *count*."""
    seen = 0

    def look(result: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            action()

    return look


async def items_of(dataset: AsyncDataset) -> dict[str, int]:
    return {item.path: item.size_bytes async for item in dataset.items.list()}


async def test_an_upload_waits_and_goes_on(platform: Restarted, source: Path) -> None:
    async with AsyncClient(platform.url, token=platform.token) as client, asyncio.timeout(120):
        dataset = await client.datasets.create("outage")
        report = await dataset.upload(source, on_outcome=after(1, platform.kill))
        assert platform.kills == 1
        assert (report.done, report.failed, report.is_complete) == (len(FILES), 0, True)
        assert await items_of(dataset) == {name: len(data) for name, data in FILES.items()}


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["download", "verify"])
async def test_what_reads_waits_and_goes_on(platform: Restarted, source: Path, tmp_path: Path, verb: str) -> None:
    async with AsyncClient(platform.url, token=platform.token) as client, asyncio.timeout(120):
        dataset = await client.datasets.create("outage")
        (await dataset.upload(source, resume=False)).raise_for_failures()
        if verb == "verify":
            (await dataset.verify(source, on_comparison=after(1, platform.kill))).raise_for_differences()
        else:
            report = await dataset.download(tmp_path / "copy", on_outcome=after(1, platform.kill))
            assert (report.done, report.failed) == (len(FILES), 0)
            assert {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()} == FILES
        assert platform.kills == 1


async def test_gone_for_good_it_ends_after_outage_seconds_and_goes_on_later(platform: Restarted, source: Path) -> None:
    outcomes: list[Outcome] = []
    kill = after(1, lambda: platform.kill(returns=False))

    def look(outcome: Outcome) -> None:
        outcomes.append(outcome)
        kill(outcome)

    config = TransferConfig(outage_seconds=1.0)
    async with AsyncClient(platform.url, token=platform.token, config=config) as client:
        dataset = await client.datasets.create("outage")
        with pytest.raises((ConnectionFailed, CircuitOpen)):
            async with asyncio.timeout(120):
                await dataset.upload(source, on_outcome=look)
    assert all(isinstance(outcome.error, (RequestError, CircuitOpen)) for outcome in outcomes if not outcome.ok)
    platform.start()
    async with AsyncClient(platform.url, token=platform.token) as client:
        dataset = await client.datasets.get(dataset.id)
        events: list[Event] = []
        report: Report = await dataset.upload(source, on_event=events.append)
        assert report.failed == 0
        assert report.skipped >= sum(outcome.ok for outcome in outcomes) > 0
        assert await items_of(dataset) == {name: len(data) for name, data in FILES.items()}
        assert [event for event in events if type(event).__name__ == "Resuming"]


@pytest.mark.slow
async def test_drained_it_waits_for_nobody(platform: Restarted, source: Path) -> None:
    """What had arrived and could not be committed has its own error, and the run ends without one."""
    async with AsyncClient(platform.url, token=platform.token) as client, asyncio.timeout(60):
        dataset = await client.datasets.create("outage")
        run = asyncio.create_task(dataset.upload(source, on_outcome=after(1, lambda: platform.kill(returns=False))))
        while not platform.kills:
            await asyncio.sleep(0.01)
        await asyncio.sleep(OUT_SECONDS)
        assert not run.done()
        client.engine.drain()
        with suppress(AsyncSDKError):
            report = await run
            assert not report.is_complete


@pytest.mark.slow
async def test_cancelled_it_waits_for_nobody(platform: Restarted, source: Path) -> None:
    async with AsyncClient(platform.url, token=platform.token) as client, asyncio.timeout(60):
        dataset = await client.datasets.create("outage")
        run = asyncio.create_task(dataset.upload(source, on_outcome=after(1, lambda: platform.kill(returns=False))))
        while not platform.kills:
            await asyncio.sleep(0.01)
        await asyncio.sleep(OUT_SECONDS)
        assert not run.done()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run


@pytest.mark.slow
async def test_a_deadline_ends_the_waiting(platform: Restarted, source: Path) -> None:
    config = TransferConfig(deadline_seconds=OUT_SECONDS + 1)
    async with AsyncClient(platform.url, token=platform.token, config=config) as client, asyncio.timeout(60):
        dataset = await client.datasets.create("outage")
        with suppress(AsyncSDKError):  # that of the deadline, unless everything was taken before
            report = await dataset.upload(source, on_outcome=after(1, lambda: platform.kill(returns=False)))
            assert report.failed
        assert platform.kills == 1


async def test_a_platform_that_never_answered_is_not_waited_for(platform: Restarted, source: Path) -> None:
    async with AsyncClient(platform.url, token=platform.token) as client:
        record = await client.datasets.create("outage")
    platform.kill(returns=False)
    async with AsyncClient(platform.url, token=platform.token) as client, asyncio.timeout(60):
        with pytest.raises(ConnectionFailed, match="is the server running"):
            await AsyncDataset._bind(record, client).upload(source)
