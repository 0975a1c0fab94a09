"""Commands killed with SIGKILL and typed again, before servers that nobody here wrote as well as before our own."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from asyncsdk import AsyncClient
from asyncsdk.engine.journal import journal_folder
from asyncsdk.engine.journal.catalogue import summaries
from asyncsdk.protocol.uploads import CommitUploads
from asyncsdk.server.objects.clouds.location import Location
from tests.integration.test_killed_runs import (
    FEW_KILLS,
    LARGE,
    MANY_KILLS,
    PARTS,
    SMALL,
    Rounds,
    blows_for,
    check_uploaded,
    final_names,
    has_journal,
    make_files,
    make_watch,
    upload_killed,
)
from tests.support.faults.exchange import Exchange
from tests.support.faults.fault import Fault
from tests.support.faults.plan import Plan
from tests.support.faults.server import FaultServer
from tests.support.killing import ROOT, Blow, Watch, random_seed
from tests.support.real import s3
from tests.support.real.buckets import cloud_home
from tests.support.real.fixtures import rclone_server
from tests.support.real.running import RealServer
from tests.support.real.sigv4 import presign
from tests.support.server import RunningServer

__all__ = ["rclone_server"]

pytestmark = pytest.mark.timeout(300)

UP, DOWN = 40, 20
KEPT_WITHIN_SECONDS = 30.0
FEW_AND_MANY = pytest.mark.parametrize(
    "kills",
    [
        pytest.param(2, id="few"),
        pytest.param(MANY_KILLS, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
    ],
)


@FEW_AND_MANY
async def test_a_killed_upload_command_goes_on(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, kills: int, record_property: Any
) -> None:
    """``asyncsdk upload``, killed and typed again: items that are there are not sent again."""
    watch, small = make_watch(monkeypatch), SMALL if kills < MANY_KILLS else 4 * SMALL
    blows = [*blows_for(random.Random(3), kills - 1, small + PARTS), Blow(parts=7)]
    await upload_killed(tmp_path, home, watch, "command", blows, small)
    record_property("kills survived", watch.kills)


@dataclass
class Knife:
    """Kills a client at one of its requests, when all that were answered are in its journal.

    Attributes:
        folder: Of the journal.
        left: At which request from now; 0: not at all.
        under_way: Requests that will be answered.
        answered: How often each request was answered for good.
    """

    folder: Path
    left: int = 0
    process: asyncio.subprocess.Process | None = None
    under_way: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    is_down: bool = False

    async def meet(self, exchange: Exchange) -> None:
        self.left -= 1
        if self.left == 0 and self.process is not None:
            self.is_down = True
            await self._until_kept()
            self.process.kill()
        if self.is_down:  # whoever comes now finds nobody
            await exchange.until_client_leaves()
        self.under_way += 1

    async def _until_kept(self) -> None:
        """Return when the client has written down what it was told, which it does without being asked for more.

        A fixed time would have to be longer than the slowest machine takes, and an answer could still come within it.
        """
        async with asyncio.timeout(KEPT_WITHIN_SECONDS):
            while self.under_way or await asyncio.to_thread(self._kept) < len(self.answered):
                await asyncio.sleep(0.02)

    def _kept(self) -> int:
        return sum(run.objects for run in summaries(self.folder))


@dataclass(frozen=True, slots=True)
class Mortal(Fault):
    """Every request may be the last of its client."""

    knife: Knife

    async def on_head(self, exchange: Exchange) -> None:
        await self.knife.meet(exchange)

    async def send(self, exchange: Exchange) -> None:
        await exchange.send()
        self.knife.answered[f"{exchange.seen.method} {exchange.seen.target.partition('?')[0]}"] += 1
        self.knife.under_way -= 1


async def transfer(manifest: Path, knife: Knife, point: int) -> bool:
    """Run ``asyncsdk transfer`` until it ends or is killed at request *point*; returns whether it ended."""
    knife.left, knife.is_down, knife.under_way = point, False, 0
    knife.process = process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "asyncsdk", "transfer", str(manifest), "--concurrency", "4", "--quiet"),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, errors = await asyncio.wait_for(process.communicate(), 120)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode in {0, -9}, errors.decode()
    return process.returncode == 0


@FEW_AND_MANY
async def test_a_killed_transfer_command_goes_on_before_a_server_nobody_here_wrote(
    tmp_path: Path, home: Path, rclone_server: RealServer, kills: int, record_property: Any
) -> None:
    """Up and down, between a folder and rclone: what was answered is not asked for again, and every byte is right."""
    rng = random.Random(random_seed(record_property))
    times = 1 if kills < MANY_KILLS else 10
    up = {f"up{number}": rng.randbytes(rng.randint(1, 60_000)) for number in range(UP * times)}
    down = {f"down{number}": rng.randbytes(rng.randint(1, 60_000)) for number in range(DOWN * times)}
    folder = f"killed{kills}"
    knife = Knife(journal_folder(home))
    async with FaultServer(Plan([Mortal(knife)]), upstream=rclone_server.url, keeps_requests=False) as proxy:
        there = RealServer(proxy.url("").rstrip("/"), *_who(rclone_server))
        lines = []
        for name, data in up.items():
            (tmp_path / name).write_bytes(data)
            lines.append({"source": str(tmp_path / name), "url": presign(there, "PUT", f"{folder}/{name}")})
        for name, data in down.items():
            inside = rclone_server.data / rclone_server.bucket / folder / name
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.write_bytes(data)
            lines.append({"url": presign(there, "GET", f"{folder}/{name}"), "destination": str(tmp_path / name)})
        rng.shuffle(lines)
        manifest = tmp_path / "manifest.jsonl"
        manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
        for _ in range(kills):
            before = Counter(knife.answered)
            assert not await transfer(manifest, knife, rng.randint(2, max(2, len(lines) // kills))), "not killed"
            assert [what for what in before if knife.answered[what] != before[what]] == [], "answered, and asked again"
        before = Counter(knife.answered)
        assert await transfer(manifest, knife, 0)
    assert [what for what in before if knife.answered[what] != before[what]] == [], "answered, and asked again"
    assert len(knife.answered) == len(lines)
    assert {name: s3.read(rclone_server, f"{folder}/{name}") for name in up} == up
    assert {name: (tmp_path / name).read_bytes() for name in down} == down
    assert not has_journal(home), "a run that is complete is forgotten"
    record_property("kills survived", kills)


def _who(server: RealServer) -> tuple[Any, ...]:
    return server.bucket, server.access_key, server.secret_key, server.region, server.data, lambda: None


@asynccontextmanager
async def served_beside(folder: Path, location: Location) -> AsyncIterator[RunningServer]:
    """Serve a platform whose bucket is reached through this event loop, which nothing may block meanwhile."""
    served = await asyncio.to_thread(lambda: RunningServer(folder, objects=location).start())
    try:
        yield served
    finally:
        await asyncio.to_thread(served.stop)


@pytest.mark.parametrize(
    "kills",
    [pytest.param(FEW_KILLS, id="few", marks=pytest.mark.slow), pytest.param(12, id="more", marks=pytest.mark.slow)],
)
async def test_a_killed_upload_into_a_bucket_goes_on(
    tmp_path: Path,
    home: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    kills: int,
    record_property: Any,
) -> None:
    """A platform whose objects rclone keeps, their bytes sent there: nothing that is an item is sent again."""
    rng = random.Random(random_seed(record_property))
    place = cloud_home("rclone", request, monkeypatch)
    watch = Watch(monkeypatch)
    source = tmp_path / "source"
    files = make_files(source, SMALL, seed=4)
    names = {data: name for name, data in files.items()}
    sent: Counter[str] = Counter()
    commits = [Blow(messages=n + 1, kinds=(CommitUploads,), moment=rng.choice(["before", "after"])) for n in range(2)]
    blows = [*commits, *(Blow(seconds=rng.uniform(0.1, 1.0)) for _ in range(kills - len(commits)))]
    rounds = Rounds(watch, blows)
    async with FaultServer(upstream=place.server.url) as proxy:
        location = Location.parse(str(place.location), proxy.url("").rstrip("/"))
        async with served_beside(tmp_path / "platform", location) as served:
            for number in rounds:
                log = tmp_path / f"log{number}"
                async with AsyncClient(served.url, token=served.token) as client:
                    dataset = await client.datasets.create(f"d{number}")
                for blow in rounds.blows():
                    final, before = final_names(log), Counter(sent)
                    proxy.requests.clear()
                    has_ended = await asyncio.to_thread(watch.run, served, "upload", dataset.id, source, log, blow)
                    sent.update(names[seen.body] for seen in proxy.requests if seen.body in names)
                    assert [name for name in final if sent[name] != before[name]] == [], "final, and sent again"
                    parts = [seen for seen in proxy.requests if "partNumber" in seen.target]
                    assert LARGE not in final or not parts, "final, and parts of it sent again"
                    if has_ended:
                        rounds.missed(blow)
                        break
                await check_uploaded(served, dataset.id, files, tmp_path / f"copy{number}")
                assert not has_journal(home), "a run that is complete is forgotten"
    assert len(sent) == SMALL, "small objects go there in one request each"
    record_property("kills survived", watch.kills)
