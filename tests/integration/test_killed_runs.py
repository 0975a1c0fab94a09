"""Clients killed with SIGKILL while they move things: the same call goes on, loses nothing, doubles nothing, and moves
nothing again that was final."""

from __future__ import annotations

import hashlib
import os
import random
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asyncsdk import AsyncClient
from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.engine.journal import journal_folder
from asyncsdk.errors import ServerError
from asyncsdk.protocol.checkpoints import CommitCheckpoint
from asyncsdk.server.backend import Backend
from asyncsdk.server.objects import minting, parts
from tests.support.killed_run import CONFIG
from tests.support.killing import GRACE_SECONDS, ROOT, Blow, Watch
from tests.support.server import RunningServer

__all__ = ["GRACE_SECONDS", "ROOT"]

pytestmark = pytest.mark.timeout(300)

SMALL = 150
LARGE = "3/large.bin"
PART_BYTES = 1024 * 1024
PARTS = 21
LARGE_BYTES = (PARTS - 1) * PART_BYTES + 12_345
KILLS = 5
FEW_KILLS = 3
MANY_KILLS = 50


def make_watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Return a watch over a platform whose parts are small, so that a large object has many of them."""
    monkeypatch.setattr(parts, "MIN_PART_SIZE", PART_BYTES)
    monkeypatch.setattr(minting, "MULTIPART_THRESHOLD", 2 * PART_BYTES)
    return Watch(monkeypatch)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return make_watch(monkeypatch)


@contextmanager
def served_platform(folder: Path) -> Iterator[RunningServer]:
    with RunningServer(folder) as served:
        yield served


def make_files(folder: Path, small: int, seed: int) -> dict[str, bytes]:
    """Make small files and a large one; returns their bytes by name."""
    rng = random.Random(seed)
    files = {f"{number % 7}/{number:04d}.bin": rng.randbytes(rng.randint(1, 3000)) for number in range(small)}
    files[LARGE] = rng.randbytes(LARGE_BYTES)
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (1_700_000_000, 1_700_000_000))
    return files


def final_names(log: Path) -> set[str]:
    """Return what was told to be final."""
    if not log.exists():
        return set()
    return {line.partition(" ")[2] for line in log.read_text().splitlines() if not line.startswith("failed")}


def summed(data: bytes) -> str:
    return crc32c_hex(crc32c(data))


def blows_for(rng: random.Random, kills: int, requests: int) -> list[Blow]:
    """Return when each client is killed: at any request, and two in five amid the parts of the large object.

    Those amid parts are where a run that begins anew would show: each has more parts behind it than may come twice.
    """
    amid = 2 * kills // 5
    anywhere = [Blow(requests=rng.randint(1, max(2, requests // kills))) for _ in range(kills - amid)]
    within = [Blow(parts=CONFIG.concurrency + rng.randint(2, 4), grace_seconds=GRACE_SECONDS) for _ in range(amid)]
    return anywhere + within


async def check_uploaded(served: RunningServer, dataset_id: str, files: dict[str, bytes], folder: Path) -> None:
    async with AsyncClient(served.url, token=served.token) as client:
        dataset = await client.datasets.get(dataset_id)
        found = [item async for item in dataset.items.list()]
        assert sorted(item.path for item in found) == sorted(files), "lost or doubled"
        assert {item.path: item.crc32c for item in found} == {name: summed(data) for name, data in files.items()}
        report = await dataset.download(folder, resume=False)
        report.raise_for_failures()
    for name, data in files.items():
        assert hashlib.sha256((folder / name).read_bytes()).digest() == hashlib.sha256(data).digest()


async def items_of(served: RunningServer, dataset_id: str) -> set[str]:
    async with AsyncClient(served.url, token=served.token) as client:
        return {item.path async for item in (await client.datasets.get(dataset_id)).items.list()}


def upload_command(served: RunningServer, dataset_id: str, source: Path) -> list[str]:
    """Return ``asyncsdk upload`` as somebody would type it; the token is for the environment."""
    options = ["--url", served.url, "--concurrency", str(CONFIG.concurrency), "--quiet"]
    return [sys.executable, "-m", "asyncsdk", "upload", str(source), dataset_id, *options]


def has_journal(home: Path) -> bool:
    return any(journal_folder(home).glob("*.sqlite3"))


def is_through(log: Path, files: dict[str, bytes], home: Path) -> bool:
    """Whether who was killed had come to the end of the run before: all was told, and the journal was gone. The same
    call is another run then, which may well move everything again."""
    return final_names(log) == set(files) and not has_journal(home)


class Rounds:
    """Clients that are killed one after the other, each going on with what the one before has left.

    A round is one destination, moved to by one client after the other until one of them ends. A client that ends before
    its blow falls was in the last of its round: the same blow falls on one of the next, by the clock in half the time,
    as clients may be faster than the one that was measured. So no blow is ever missing.
    """

    def __init__(self, watch: Watch, blows: Sequence[Blow]) -> None:
        self.watch = watch
        self.count = 0
        self._blows = len(blows)
        self._left = deque(blows)

    def __iter__(self) -> Iterator[int]:
        """Number the rounds, for as long as clients are left to kill."""
        while self._left:
            self.count += 1
            assert self.count <= 3 * self._blows + 3, "clients end before they are killed, again and again"
            yield self.count
        assert self.watch.kills == self._blows

    def blows(self) -> Iterator[Blow]:
        """Give the blows of a round, the last of which never falls; `missed` puts one back."""
        while self._left:
            yield self._left.popleft()
        yield Blow()

    def missed(self, blow: Blow) -> None:
        """The client had ended before it."""
        if blow != Blow():
            self._left.append(blow if blow.seconds is None else replace(blow, seconds=blow.seconds / 2))


def again_allowed(watch: Watch, blow: Blow) -> int:
    """Return how many parts of a client that was just killed may be moved again: those under way, and without a grace
    those that arrived within the last 20 ms. Never more than it moved."""
    return min(watch.counted("parts"), CONFIG.concurrency * (1 if blow.grace_seconds else 2))


async def upload_killed(
    tmp_path: Path, home: Path, watch: Watch, verb: str, blows: Sequence[Blow], small: int = SMALL
) -> None:
    """Kill clients that upload a folder, at each of *blows*, and hold everything that is promised of the next.

    Args:
        verb: Of `tests.support.killed_run`; or ``command``: ``asyncsdk upload``, whose items tell what was final.
    """
    source = tmp_path / "source"
    files = make_files(source, small, seed=len(blows))
    rounds = Rounds(watch, blows)
    with served_platform(tmp_path / "platform") as served:
        for number in rounds:
            log, budget, before_all = tmp_path / f"log{number}", PARTS, sum(watch.parts.values())
            async with AsyncClient(served.url, token=served.token) as client:
                dataset = await client.datasets.create(f"d{number}")
            for blow in rounds.blows():
                final, arrived = final_names(log), set(watch.arrived)
                sent, parts = Counter(watch.sent), Counter(watch.parts)
                if verb == "command":
                    final = await items_of(served, dataset.id)
                    command = upload_command(served, dataset.id, source)
                    has_ended = watch.run_command(command, blow, ASYNCSDK_TOKEN=served.token)
                else:
                    has_ended = watch.run(served, verb, dataset.id, source, log, blow)
                again = [name for name in final if watch.sent[summed(files[name])] != sent[summed(files[name])]]
                assert again == [], "final, and sent again"
                assert LARGE not in final or watch.parts == parts, "final, and parts of it sent again"
                assert [key for key in arrived if watch.parts[key] != parts[key]] == [], "arrived, and sent again"
                if has_ended:
                    rounds.missed(blow)
                if has_ended or is_through(log, files, home):
                    break
                budget += again_allowed(watch, blow)
            assert sum(watch.parts.values()) - before_all <= budget, "begun anew"
            await check_uploaded(served, dataset.id, files, tmp_path / f"copy{number}")
            assert not has_journal(home), "a run that is complete is forgotten"


@pytest.mark.parametrize(
    ("verb", "kills"),
    [
        ("upload", KILLS),
        pytest.param("overwrite", FEW_KILLS, marks=pytest.mark.slow),
        pytest.param("fail", FEW_KILLS, marks=pytest.mark.slow),
    ],
)
async def test_a_killed_upload_goes_on(
    tmp_path: Path, home: Path, watch: Watch, verb: str, kills: int, record_property: Any
) -> None:
    await upload_killed(tmp_path, home, watch, verb, blows_for(random.Random(7), kills, SMALL + PARTS))
    record_property("kills survived", watch.kills)


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_an_upload_killed_fifty_times_goes_on(
    tmp_path: Path, home: Path, watch: Watch, record_property: Any
) -> None:
    blows = blows_for(random.Random(7), MANY_KILLS, 10 * SMALL + PARTS)
    await upload_killed(tmp_path, home, watch, "upload", blows, 10 * SMALL)
    record_property("kills survived", watch.kills)


async def download_killed(tmp_path: Path, home: Path, watch: Watch, blows: Sequence[Blow], small: int = SMALL) -> None:
    source = tmp_path / "source"
    files = make_files(source, small, seed=len(blows))
    large = summed(files[LARGE])
    rounds = Rounds(watch, blows)
    with served_platform(tmp_path / "platform") as served:
        async with AsyncClient(served.url, token=served.token) as client:
            dataset = await client.datasets.create("d")
            (await dataset.upload(source, resume=False)).raise_for_failures()
        for number in rounds:
            log, copy, budget = tmp_path / f"log{number}", tmp_path / f"copy{number}", PARTS
            before_all = Counter(watch.fetched)
            for blow in rounds.blows():
                sums, fetched = {summed(files[name]) for name in final_names(log)}, Counter(watch.fetched)
                has_ended = watch.run(served, "download", dataset.id, copy, log, blow)
                again = [key for key, count in watch.fetched.items() if key[0] in sums and count != fetched[key]]
                assert again == [], "final, and fetched again"
                if has_ended:
                    rounds.missed(blow)
                if has_ended or is_through(log, files, home):
                    break
                budget += again_allowed(watch, blow)
            moved = watch.fetched - before_all
            assert sum(count for key, count in moved.items() if key[0] == large) <= budget, "begun anew"
            found = {path.relative_to(copy).as_posix(): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
            assert found == files, "lost, or left behind"
            assert not has_journal(home), "a run that is complete is forgotten"


async def test_a_killed_download_goes_on(tmp_path: Path, home: Path, watch: Watch, record_property: Any) -> None:
    await download_killed(tmp_path, home, watch, blows_for(random.Random(11), KILLS, SMALL + PARTS))
    record_property("kills survived", watch.kills)


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_a_download_killed_fifty_times_goes_on(
    tmp_path: Path, home: Path, watch: Watch, record_property: Any
) -> None:
    blows = blows_for(random.Random(11), MANY_KILLS, 10 * SMALL + PARTS)
    await download_killed(tmp_path, home, watch, blows, 10 * SMALL)
    record_property("kills survived", watch.kills)


async def model_of(served: RunningServer) -> str:
    async with AsyncClient(served.url, token=served.token) as client:
        return (await client.models.create("m")).id


async def checkpoints_of(served: RunningServer, model_id: str) -> list[tuple[str, int]]:
    async with AsyncClient(served.url, token=served.token) as client:
        model = await client.models.get(model_id)
        return [(found.crc32c, found.size_bytes) async for found in model.checkpoints.list()]


async def test_a_killed_checkpoint_upload_sends_the_parts_that_are_missing(
    tmp_path: Path, home: Path, watch: Watch
) -> None:
    data = random.Random(3).randbytes(10 * PART_BYTES + 99)
    source, log = tmp_path / "weights.bin", tmp_path / "log"
    source.write_bytes(data)
    watch.grace_seconds = GRACE_SECONDS
    with served_platform(tmp_path / "platform") as served:
        model_id = await model_of(served)
        for _ in range(2):
            assert not watch.run(served, "upload_checkpoint", model_id, source, log, 5)
        assert watch.run(served, "upload_checkpoint", model_id, source, log, 0)
        assert await checkpoints_of(served, model_id) == [(summed(data), len(data))]
        assert sum(watch.parts.values()) <= 11 + 2 * CONFIG.concurrency < 11 + 2 * 5
        assert not has_journal(home)
        # Another call is another checkpoint: nothing of the run before is known any more.
        assert watch.run(served, "upload_checkpoint", model_id, source, log, 0)
        assert len(await checkpoints_of(served, model_id)) == 2


@pytest.mark.parametrize("size_bytes", [70_000, 5 * PART_BYTES + 5], ids=["one_request", "in_parts"])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_commit_whose_reply_is_lost_makes_no_second_checkpoint(
    tmp_path: Path, home: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch, moment: str, size_bytes: int
) -> None:
    """The client dies while its commit is under way: before or after the platform has made the checkpoint."""
    data = random.Random(5).randbytes(size_bytes)
    source, log = tmp_path / "weights.bin", tmp_path / "log"
    source.write_bytes(data)
    handle = Backend.handle
    deaths: list[str] = []

    def deadly(backend: Backend, message: Any, *arguments: Any) -> Any:
        is_first = isinstance(message, CommitCheckpoint) and not deaths
        if is_first and moment == "before":
            deaths.append(message.checkpoint_id)
            watch.kill()
            raise ServerError("the request never arrived", status=500)
        reply = handle(backend, message, *arguments)
        if is_first:
            deaths.append(message.checkpoint_id)
            watch.kill()
        return reply

    monkeypatch.setattr(Backend, "handle", deadly)
    with served_platform(tmp_path / "platform") as served:
        model_id = await model_of(served)
        assert not watch.run(served, "upload_checkpoint", model_id, source, log, 0)
        sent, parts = sum(watch.sent.values()), Counter(watch.parts)
        assert watch.run(served, "upload_checkpoint", model_id, source, log, 0)
        assert await checkpoints_of(served, model_id) == [(summed(data), len(data))]
    assert (sum(watch.sent.values()), watch.parts) == (sent, parts), "its bytes had arrived"
    assert final_names(log) == set(deaths)
    assert not has_journal(home)


async def test_a_killed_checkpoint_download_fetches_the_ranges_that_are_missing(
    tmp_path: Path, home: Path, watch: Watch
) -> None:
    watch.grace_seconds = GRACE_SECONDS
    data = random.Random(4).randbytes(LARGE_BYTES)
    source, log, copy = tmp_path / "weights.bin", tmp_path / "log", tmp_path / "copy.bin"
    source.write_bytes(data)
    with served_platform(tmp_path / "platform") as served:
        model_id = await model_of(served)
        async with AsyncClient(served.url, token=served.token) as client:
            await (await client.models.get(model_id)).upload_checkpoint(source)
        for _ in range(2):
            assert not watch.run(served, "download_checkpoint", model_id, copy, log, 9)
            assert not copy.exists()
        assert watch.run(served, "download_checkpoint", model_id, copy, log, 0)
    assert copy.read_bytes() == data
    ranges = -(-LARGE_BYTES // CONFIG.part_size)
    assert sum(watch.fetched.values()) <= ranges + 2 * CONFIG.concurrency < ranges + 2 * 9
    assert [path for path in tmp_path.iterdir() if path.name.endswith(".part")] == []
    assert not has_journal(home)
