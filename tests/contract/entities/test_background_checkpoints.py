"""Checkpoints uploaded while training goes on: what is sent, what a newer one replaces, what is reported as lost."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from asyncsdk import AsyncClient, AsyncModel, Client
from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.entities import checkpoint_background
from asyncsdk.entities.checkpoint_background import AsyncBackgroundCheckpoints
from asyncsdk.entities.checkpoint_reports import BackgroundReport
from asyncsdk.entities.checkpoint_waiting import Snapshot
from asyncsdk.errors import AsyncSDKError, BadRequest, ConfigError, ConnectionFailed, SourceChanged, SourceNotFound
from asyncsdk.protocol.checkpoints import CheckpointRecord
from tests.support.server import RunningServer


@pytest.fixture
async def model(client: AsyncClient) -> AsyncModel:
    return await client.models.create("detector")


class Gate:
    """Holds every background upload until it is let through, or makes it fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._upload = checkpoint_background.upload_checkpoint
        self._tokens = asyncio.Semaphore(0)
        self.begun = 0
        self.errors: list[BaseException] = []
        monkeypatch.setattr(checkpoint_background, "upload_checkpoint", self._held)
        monkeypatch.setattr(checkpoint_background, "RETRY_INITIAL_SECONDS", 0.01)

    async def _held(self, *args: Any, **kwargs: Any) -> CheckpointRecord:
        self.begun += 1
        await self._tokens.acquire()
        if self.errors:
            raise self.errors.pop(0)
        return await self._upload(*args, **kwargs)

    def open(self, count: int = 1000) -> None:
        for _ in range(count):
            self._tokens.release()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


@pytest.fixture
async def folder(tmp_path: Path) -> AsyncIterator[Path]:
    """A folder for weights, in which nothing else is left at the end."""
    made = tmp_path / "weights"
    made.mkdir()
    yield made
    assert [path.name for path in made.iterdir() if path.name != "last.pt"] == []


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


def save(folder: Path, data: bytes) -> Path:
    """Write weights in place, as most programs do."""
    path = folder / "last.pt"
    path.write_bytes(data)
    return path


def told(report: BackgroundReport) -> dict[int | None, str]:
    return {one.epoch: one.status for one in report.outcomes}


async def epochs(model: AsyncModel) -> list[int | None]:
    return [one.epoch async for one in model.checkpoints.list()]


async def submit(uploads: AsyncBackgroundCheckpoints, folder: Path, epoch: int, **facts: Any) -> None:
    uploads.submit(save(folder, b"weights of %d" % epoch), epoch=epoch, **facts)


async def test_the_file_may_be_overwritten_as_soon_as_it_was_submitted(
    model: AsyncModel, folder: Path, gate: Gate, tmp_path: Path
) -> None:
    async with model.background_checkpoints(min_interval=0) as uploads:
        uploads.submit(save(folder, b"first"), epoch=1, is_best=True, metrics={"map": 0.5}, metadata={"k": 1})
        save(folder, b"second, not submitted")
        gate.open()
    (outcome,) = uploads.report.outcomes
    assert (outcome.status, uploads.report.ok, uploads.report.uploaded) == ("uploaded", True, 1)
    uploads.report.raise_for_failures()
    made = await model.download_checkpoint(tmp_path / "copy", which=1)
    assert outcome.checkpoint == made
    assert (made.filename, made.is_best, made.metrics, made.metadata) == ("last.pt", True, {"map": 0.5}, {"k": 1})
    assert (tmp_path / "copy").read_bytes() == b"first"


async def test_newer_ones_replace_those_that_were_not_begun(model: AsyncModel, folder: Path, gate: Gate) -> None:
    """Plain ones by any; best ones by better ones only; final ones by nobody."""
    async with model.background_checkpoints(min_interval=0) as uploads:
        await submit(uploads, folder, 0)
        await until(lambda: gate.begun == 1)
        await submit(uploads, folder, 1)
        await submit(uploads, folder, 2)
        await submit(uploads, folder, 3, is_best=True)
        await submit(uploads, folder, 4)
        await submit(uploads, folder, 5, is_best=True)
        await submit(uploads, folder, 6, is_final=True)
        await submit(uploads, folder, 7)
        await submit(uploads, folder, 8, is_final=True)
        await submit(uploads, folder, 9)
        waiting = {0: "uploading", **dict.fromkeys((5, 6, 8, 9), "waiting")}
        assert told(uploads.report) == {**dict.fromkeys((1, 2, 3, 4, 7), "replaced"), **waiting}
        gate.open()
    assert await epochs(model) == [0, 5, 6, 8, 9]
    report = uploads.report
    assert (report.submitted, report.uploaded, report.replaced, report.lost, report.waiting) == (10, 5, 5, 0, 0)


async def test_uploads_keep_their_distance_but_final_ones_and_the_end_do_not(
    model: AsyncModel, folder: Path, gate: Gate
) -> None:
    gate.open()
    async with model.background_checkpoints() as uploads:  # 15 minutes
        await submit(uploads, folder, 0)
        await until(lambda: uploads.report.uploaded == 1)
        await submit(uploads, folder, 1, is_best=True)
        await submit(uploads, folder, 2, is_final=True)
        await until(lambda: uploads.report.uploaded == 2)
        assert await epochs(model) == [0, 2]
        assert told(uploads.report)[1] == "waiting"
    assert await epochs(model) == [0, 2, 1]


async def test_an_open_file_that_is_overwritten_before_its_upload_reads_it_is_lost(
    model: AsyncModel, folder: Path, gate: Gate
) -> None:
    """Half of one save and half of the next would be weights that nobody ever saved."""
    upload = gate._upload

    async def overwrite_first(*args: Any, **kwargs: Any) -> CheckpointRecord:
        with (folder / "last.pt").open("r+b") as file:
            file.write(b"second, longer")
        return await upload(*args, **kwargs)

    gate._upload = overwrite_first
    gate.open()
    async with model.background_checkpoints(min_interval=0, snapshot="open") as uploads:
        uploads.submit(save(folder, b"first"), epoch=1)
    (outcome,) = uploads.report.outcomes
    assert (outcome.status, type(outcome.error)) == ("lost", SourceChanged)
    assert await epochs(model) == []


async def test_a_checkpoint_whose_reply_was_lost_is_there_once(model: AsyncModel, folder: Path, gate: Gate) -> None:
    """Tried again it is found to be there; it has no epoch by which the platform would replace it."""
    upload = gate._upload

    async def lose_the_reply(*args: Any, **kwargs: Any) -> CheckpointRecord:
        await upload(*args, **kwargs)
        raise ConnectionFailed("the reply is lost")

    gate._upload = lose_the_reply
    gate.open()
    async with model.background_checkpoints(min_interval=0) as uploads:
        uploads.submit(save(folder, b"weights"))
    (made,) = [one async for one in model.checkpoints.list()]
    assert (uploads.report.uploaded, uploads.report.lost, gate.begun) == (1, 0, 1)
    assert uploads.report.outcomes[0].checkpoint == made


async def test_a_file_copied_while_the_block_is_cancelled_is_reported_as_lost(
    model: AsyncModel, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is left to upload it; as waiting it would look as if somebody were."""
    copying, may_end, take = threading.Event(), threading.Event(), Snapshot.take

    def take_slowly(*args: Any) -> Snapshot:
        copying.set()
        assert may_end.wait(30)
        return take(*args)

    monkeypatch.setattr(Snapshot, "take", take_slowly)
    block = model.background_checkpoints(min_interval=0)
    uploads = await block.__aenter__()
    submitting = asyncio.create_task(asyncio.to_thread(uploads.submit, save(folder, b"weights"), epoch=1))
    await asyncio.to_thread(copying.wait, 30)
    cancelled = asyncio.CancelledError()
    await block.__aexit__(asyncio.CancelledError, cancelled, None)
    may_end.set()
    await submitting
    assert (uploads.report.waiting, uploads.report.lost, uploads.report.ok) == (0, 1, False)


async def test_what_fails_in_passing_is_tried_again_unless_a_newer_one_takes_its_place(
    model: AsyncModel, folder: Path, gate: Gate
) -> None:
    gate.errors = [ConnectionFailed("no")] * 3
    async with model.background_checkpoints(min_interval=0) as uploads:
        await submit(uploads, folder, 0, is_best=True)
        gate.open(2)
        await until(lambda: gate.begun == 3)
        await submit(uploads, folder, 1)
        await submit(uploads, folder, 2)
        gate.open()
    assert told(uploads.report) == {1: "replaced", 0: "uploaded", 2: "uploaded"}
    gate.errors = [ConnectionFailed("no")]
    gate.begun = 0
    gate._tokens = asyncio.Semaphore(0)
    async with model.background_checkpoints(min_interval=0) as uploads:
        await submit(uploads, folder, 3)
        await until(lambda: gate.begun == 1)
        await submit(uploads, folder, 4)
        gate.open()
    assert told(uploads.report) == {3: "replaced", 4: "uploaded"}


async def test_what_is_lost_is_reported_and_never_raised(
    model: AsyncModel, folder: Path, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    gate.errors = [BadRequest("no"), ValueError("nobody foresaw this")]
    gate.open()
    async with model.background_checkpoints(min_interval=0) as uploads:
        await submit(uploads, folder, 0)
        await until(lambda: uploads.report.lost == 1)
        await submit(uploads, folder, 1)
        await until(lambda: uploads.report.lost == 2)
        uploads.submit(folder / "gone.pt", epoch=2)
        uploads.submit(folder, epoch=3)
        await submit(uploads, folder, -4)
        await until(lambda: uploads.report.lost == 5)
        await submit(uploads, folder, 5)
    assert (uploads.report.lost, uploads.report.uploaded, uploads.report.ok) == (5, 1, False)
    with pytest.raises(ExceptionGroup, match="5 checkpoints") as caught:
        uploads.report.raise_for_failures()
    kinds = Counter(type(error) for error in caught.value.exceptions)
    assert kinds[BadRequest] == 2
    assert kinds[ValueError] == kinds[SourceNotFound] == 1
    assert "(epoch 0) was not uploaded: no" in caplog.text
    assert await epochs(model) == [5]


async def test_a_number_that_is_not_finite_costs_no_checkpoint(model: AsyncModel, folder: Path) -> None:
    async with model.background_checkpoints() as uploads:
        await submit(uploads, folder, 0, metrics={"map": 0.5, "loss": math.nan})
    (outcome,) = uploads.report.outcomes
    assert (outcome.status, outcome.checkpoint is not None and outcome.checkpoint.metrics) == ("uploaded", {"map": 0.5})
    assert "loss" in outcome.message


async def test_the_end_gives_each_three_attempts(model: AsyncModel, folder: Path, gate: Gate) -> None:
    gate.errors = [ConnectionFailed("no")] * 6
    gate.open()
    async with model.background_checkpoints() as uploads:
        await submit(uploads, folder, 0)
        await until(lambda: gate.begun == 1)
        await submit(uploads, folder, 1, is_best=True)
    assert uploads.report.lost + uploads.report.uploaded + uploads.report.replaced == 2
    assert uploads.report.waiting == 0
    assert len(gate.errors) <= 2


async def test_the_end_may_be_bounded_in_time(model: AsyncModel, folder: Path, gate: Gate) -> None:
    async with model.background_checkpoints(close_timeout=0.05) as uploads:
        await submit(uploads, folder, 0)
        await submit(uploads, folder, 1, is_final=True)
    assert told(uploads.report) == {0: "lost", 1: "lost"} or told(uploads.report) == {0: "replaced", 1: "lost"}
    assert uploads.report.waiting == 0


async def test_a_block_that_raises_uploads_what_waits_and_one_that_is_cancelled_does_not(
    model: AsyncModel, folder: Path, gate: Gate
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with model.background_checkpoints() as uploads:
            await submit(uploads, folder, 0)
            await submit(uploads, folder, 1, is_best=True)
            gate.open()
            raise ZeroDivisionError
    assert await epochs(model) == [1]
    gate._tokens = asyncio.Semaphore(0)
    gate.begun = 0
    found: list[AsyncBackgroundCheckpoints] = []

    async def train() -> None:
        async with model.background_checkpoints(min_interval=0) as uploads:
            found.append(uploads)
            await submit(uploads, folder, 2)
            await until(lambda: gate.begun == 1)
            await submit(uploads, folder, 3, is_final=True)
            await asyncio.sleep(60)

    task = asyncio.create_task(train())
    await until(lambda: bool(found) and found[0].report.submitted == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told(found[0].report) == {2: "lost", 3: "lost"}
    assert await epochs(model) == [1]
    assert not [one for one in asyncio.all_tasks() if "checkpoints" in one.get_name()]


async def test_an_open_file_is_right_for_renames_and_notices_writing_in_place(
    model: AsyncModel, folder: Path, gate: Gate, tmp_path: Path
) -> None:
    async with model.background_checkpoints(min_interval=0, snapshot="open") as uploads:
        uploads.submit(save(folder, b"first"), epoch=0)
        beside = tmp_path / "new"
        beside.write_bytes(b"second")
        beside.replace(folder / "last.pt")
        await until(lambda: gate.begun == 1)
        uploads.submit(folder / "last.pt", epoch=1)
        save(folder, b"third, in place")
        gate.open()
    assert told(uploads.report) == {0: "uploaded", 1: "lost"}
    with pytest.raises(ExceptionGroup) as caught:
        uploads.report.raise_for_failures()
    assert isinstance(caught.value.exceptions[0], SourceChanged)
    await model.download_checkpoint(tmp_path / "copy", which=0)
    assert (tmp_path / "copy").read_bytes() == b"first"


async def test_every_checkpoint_of_a_loop_that_overwrites_one_file_is_one_that_was_saved(
    model: AsyncModel, folder: Path
) -> None:
    """Byte for byte, and of the epoch it says, while uploads of earlier ones run; the last and the best are there."""
    saved: dict[int, str] = {}
    async with model.background_checkpoints(min_interval=0) as uploads:

        def train() -> None:
            for epoch in range(60):
                data = os.urandom(200_000) + epoch.to_bytes(2, "big") * 50_000
                saved[epoch] = crc32c_hex(crc32c(data))
                uploads.submit(save(folder, data), epoch=epoch, is_best=epoch == 40, is_final=epoch == 59)

        await asyncio.to_thread(train)
    found = {one.epoch: one.crc32c async for one in model.checkpoints.list()}
    assert found.items() <= saved.items()
    assert {40, 59} <= found.keys()
    report = uploads.report
    assert (report.uploaded, report.lost, report.submitted) == (len(found), 0, 60)
    assert report.replaced == 60 - len(found)


async def test_an_explicit_upload_is_never_put_off(model: AsyncModel, folder: Path) -> None:
    async with model.background_checkpoints() as uploads:
        await submit(uploads, folder, 0)
        await submit(uploads, folder, 1)
        for epoch in (2, 3, 4):
            await model.upload_checkpoint(b"weights", epoch=epoch)
        assert {2, 3, 4} <= set(await epochs(model))


async def test_what_makes_no_sense_is_refused(model: AsyncModel, folder: Path) -> None:
    block = model.background_checkpoints()
    assert isinstance(block, AsyncBackgroundCheckpoints)
    with pytest.raises(ConfigError, match="entered"):
        block.submit(save(folder, b"x"))
    async with block as uploads:
        pass
    with pytest.raises(ConfigError, match="ended"):
        uploads.submit(folder / "last.pt")
    with pytest.raises(ConfigError, match="once"):
        await block.__aenter__()
    wrong: dict[str, Any]
    for wrong in ({"min_interval": -1}, {"snapshot": "link"}, {"close_timeout": math.inf}):
        with pytest.raises(ConfigError):
            model.background_checkpoints(**wrong)


async def test_a_server_that_goes_away_never_stops_the_loop(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_background, "RETRY_INITIAL_SECONDS", 0.01)
    with RunningServer(tmp_path / "data") as server:
        client = AsyncClient(server.url, token=server.token)
        model = await client.models.create("detector")
    async with client, model.background_checkpoints(min_interval=0) as uploads:
        for epoch in range(5):
            await submit(uploads, folder, epoch, is_best=epoch == 2)
    report = uploads.report
    assert (report.uploaded, report.lost >= 2, report.waiting) == (0, True, 0)
    assert all(isinstance(one.error, AsyncSDKError) for one in report.outcomes if one.status == "lost")


def test_the_blocking_twin_does_the_same(tmp_path: Path) -> None:
    with Client(data=tmp_path / "data") as client:
        model = client.models.create("detector")
        with model.background_checkpoints(min_interval=0) as uploads:

            def train() -> None:
                for epoch in range(3):
                    uploads.submit(save(tmp_path, b"%d" % epoch), epoch=epoch, is_final=epoch == 2)

            thread = threading.Thread(target=train)
            thread.start()
            thread.join()
        assert (uploads.report.ok, uploads.report.submitted, uploads.report.waiting) == (True, 3, 0)
        model.download_checkpoint(tmp_path / "copy", which="final")
        assert (tmp_path / "copy").read_bytes() == b"2"
        assert [one.epoch for one in model.checkpoints.prune(keep_last=1)] == [
            one.epoch for one in uploads.report.outcomes if one.status == "uploaded" and one.epoch != 2
        ]
