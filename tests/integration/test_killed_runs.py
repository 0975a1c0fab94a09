"""Clients killed with SIGKILL while they move things: the same call goes on, loses nothing, doubles nothing, and moves
nothing again that was final."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from asyncsdk import AsyncClient
from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.engine.journal import journal_folder
from asyncsdk.errors import ServerError
from asyncsdk.protocol.checkpoints import CommitCheckpoint
from asyncsdk.server.backend import Backend
from asyncsdk.server.http.front.objects import ObjectBytes
from tests.support.killed_run import CONFIG
from tests.support.server import RunningServer

pytestmark = pytest.mark.timeout(300)

SMALL = 300
LARGE_BYTES = 20 * 1024 * 1024 + 12_345
KILLS = 5
MANY_KILLS = 50
GRACE_SECONDS = 0.5

ROOT = Path(__file__).resolve().parents[2]


class Watch:
    """What the server is asked for, and a knife.

    Attributes:
        sent: How often the bytes of a checksum were sent whole, by its eight digits.
        parts: How often each part was sent.
        fetched: How often each object, or range of one, was fetched: checksum and first byte.
        grace_seconds: How long the client is left alone before the knife, with a server that does nothing meanwhile:
            then whatever has come is in the journal, and only what is under way may be moved again.
        processes: Worker processes of the client. Only their parent is killed; that ends them.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: Counter[str] = Counter()
        self.parts: Counter[int] = Counter()
        self.fetched: Counter[tuple[str, int]] = Counter()
        self.left = -1
        self.grace_seconds = 0.0
        self.processes = 1
        self.process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        put, find = ObjectBytes.put, ObjectBytes.find
        watch = self

        def watched_put(bytes_: ObjectBytes, head: Any) -> Any:
            query = head.query.decode()
            parameters = dict(one.partition("=")[::2] for one in query.split("&"))
            if "partNumber" in parameters:
                watch._strike()
                watch.parts[int(parameters["partNumber"])] += 1
                time.sleep(0.01)  # a part takes its time: the others get their turn
            else:
                watch._strike()
                watch.sent[parameters.get("crc32c", "")] += 1
            return put(bytes_, head)

        def watched_find(bytes_: ObjectBytes, head: Any) -> Any:
            watch._strike()
            found = find(bytes_, head)
            if found.stop - found.start > 100_000:
                time.sleep(0.01)  # as above
            parameters = dict(one.partition("=")[::2] for one in head.query.decode().split("&"))
            watch.fetched[parameters["crc32c"], found.start] += 1
            return found

        monkeypatch.setattr(ObjectBytes, "put", watched_put)
        monkeypatch.setattr(ObjectBytes, "find", watched_find)

    def _strike(self) -> None:
        with self._lock:
            self.left -= 1
            if self.left == 0 and self.process is not None:
                time.sleep(self.grace_seconds)
                self.process.kill()

    def run(self, served: RunningServer, verb: str, entity_id: str, path: Path, log: Path, kill_after: int) -> bool:
        """Run the client until it ends or is killed at the request *kill_after* (0: not); returns whether it ended."""
        command = [sys.executable, "-m", "tests.support.killed_run", verb, served.url, served.token, entity_id]
        with self._lock:
            self.left = kill_after or -1
            self.process = subprocess.Popen(
                [*command, str(path), str(log), str(self.processes)],
                cwd=ROOT,
                stderr=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"},
            )
        process = self.process
        _, errors = process.communicate(timeout=120)
        assert process.returncode in {0, -9}, errors.decode()
        return process.returncode == 0

    def kill(self) -> None:
        """End the client at once."""
        if self.process is not None:
            self.process.kill()


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


@contextmanager
def served_platform(folder: Path) -> Iterator[RunningServer]:
    with RunningServer(folder) as served:
        yield served


def make_files(folder: Path, small: int, seed: int) -> dict[str, bytes]:
    """Make small files and a large one; returns their bytes by name."""
    rng = random.Random(seed)
    files = {f"{number % 7}/{number:04d}.bin": rng.randbytes(rng.randint(1, 3000)) for number in range(small)}
    files["3/large.bin"] = rng.randbytes(LARGE_BYTES)
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


def kill_points(rng: random.Random, kills: int, requests: int) -> list[int]:
    """Return after how many requests each client is killed: seldom more than are left."""
    return [rng.randint(1, max(2, 2 * requests // kills)) for _ in range(kills)]


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


def has_journal(home: Path) -> bool:
    return any(journal_folder(home).glob("*.sqlite3"))


async def upload_killed(tmp_path: Path, home: Path, watch: Watch, verb: str, kills: int, small: int) -> None:
    source, log = tmp_path / "source", tmp_path / "log"
    files = make_files(source, small, seed=kills)
    with served_platform(tmp_path / "platform") as served:
        async with AsyncClient(served.url, token=served.token) as client:
            dataset = await client.datasets.create("d")
        killed = 0
        for point in kill_points(random.Random(7), kills, small + 21):
            before, sums = final_names(log), Counter(watch.sent)
            if watch.run(served, verb, dataset.id, source, log, point):
                break
            killed += 1
            again = [name for name in before if watch.sent[summed(files[name])] != sums[summed(files[name])]]
            assert again == [], "final, and sent again"
        before, sums = final_names(log), Counter(watch.sent)
        assert watch.run(served, verb, dataset.id, source, log, 0)
        assert [name for name in before if watch.sent[summed(files[name])] != sums[summed(files[name])]] == []
        await check_uploaded(served, dataset.id, files, tmp_path / "copy")
    assert not has_journal(home), "a run that is complete is forgotten"
    # What was on its way, or had arrived within 20 ms before, comes twice; nothing else does.
    parts = -(-LARGE_BYTES // (8 * 1024 * 1024))
    assert sum(watch.parts.values()) <= parts + killed * CONFIG.concurrency


@pytest.mark.parametrize("verb", ["upload", "overwrite", "fail"])
async def test_a_killed_upload_goes_on(tmp_path: Path, home: Path, watch: Watch, verb: str) -> None:
    await upload_killed(tmp_path, home, watch, verb, KILLS, SMALL)


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_an_upload_killed_fifty_times_goes_on(tmp_path: Path, home: Path, watch: Watch) -> None:
    await upload_killed(tmp_path, home, watch, "upload", MANY_KILLS, 10 * SMALL)


async def download_killed(tmp_path: Path, home: Path, watch: Watch, kills: int, small: int) -> None:
    source, log, copy = tmp_path / "source", tmp_path / "log", tmp_path / "copy"
    files = make_files(source, small, seed=kills)
    with served_platform(tmp_path / "platform") as served:
        async with AsyncClient(served.url, token=served.token) as client:
            dataset = await client.datasets.create("d")
            (await dataset.upload(source, resume=False)).raise_for_failures()
        killed = 0
        ranges = -(-LARGE_BYTES // CONFIG.part_size)
        for point in kill_points(random.Random(11), kills, small + ranges):
            before, fetched = final_names(log), Counter(watch.fetched)
            if watch.run(served, "download", dataset.id, copy, log, point):
                break
            killed += 1
            sums = {summed(files[name]) for name in before}
            again = [key for key, count in watch.fetched.items() if key[0] in sums and count != fetched[key]]
            assert again == [], "final, and fetched again"
        assert watch.run(served, "download", dataset.id, copy, log, 0)
    found = {path.relative_to(copy).as_posix(): path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    whole = {name: data for name, data in found.items() if not name.endswith(".part")}
    assert whole == files
    # A small file is written and renamed in one go: at most those of that moment are left, the large one's never.
    left = [path for path in copy.rglob("*.part") if path.stat().st_size > 4096]
    assert left == []
    assert not has_journal(home)
    large = summed(files["3/large.bin"])
    assert sum(count for key, count in watch.fetched.items() if key[0] == large) <= ranges + killed * CONFIG.concurrency


async def test_a_killed_download_goes_on(tmp_path: Path, home: Path, watch: Watch) -> None:
    await download_killed(tmp_path, home, watch, KILLS, SMALL)


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_a_download_killed_fifty_times_goes_on(tmp_path: Path, home: Path, watch: Watch) -> None:
    await download_killed(tmp_path, home, watch, MANY_KILLS, 10 * SMALL)


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
    data = random.Random(3).randbytes(10 * 8 * 1024 * 1024 + 99)
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


@pytest.mark.parametrize("size_bytes", [70_000, 17 * 1024 * 1024], ids=["one_request", "in_parts"])
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
