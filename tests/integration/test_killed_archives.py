"""Archives whose client or worker is killed with SIGKILL: what was sent is not sent again, and the end is the same."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from asyncsdk import AsyncClient, AsyncDataset
from asyncsdk.errors import JobCancelled
from asyncsdk.protocol.archives import UnpackedArchive
from asyncsdk.worker import unpacking
from tests.integration.test_killed_runs import (
    GRACE_SECONDS,
    ROOT,
    Watch,
    has_journal,
    served_platform,
    summed,
)
from tests.support.crew import until
from tests.support.killed_run import CONFIG
from tests.support.zips import make_zip, yolo_files

pytestmark = pytest.mark.timeout(300)

IMAGES = 3000
"""Six batches: none of the kills comes too late."""


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


async def test_a_killed_upload_of_an_archive_sends_the_parts_that_are_missing(
    tmp_path: Path, home: Path, watch: Watch
) -> None:
    """As a checkpoint does."""
    source, log = tmp_path / "dataset.zip", tmp_path / "log"
    source.write_bytes(make_zip({"a.bin": random.Random(3).randbytes(10 * 8 * 1024 * 1024 + 99)}, method=0))
    watch.grace_seconds = GRACE_SECONDS
    with served_platform(tmp_path / "platform") as served:
        async with AsyncClient(served.url, token=served.token) as client:
            dataset_id = (await client.datasets.create("packed")).id
        for _ in range(2):
            assert not watch.run(served, "upload_archive", dataset_id, source, log, 5)
        assert watch.run(served, "upload_archive", dataset_id, source, log, 0)
        parts = sum(watch.parts.values())
        assert parts <= 11 + 2 * CONFIG.concurrency < 11 + 2 * 5
        assert not has_journal(home)
        async with AsyncClient(served.url, token=served.token) as client:
            found = await (await client.datasets.get(dataset_id)).download_archive(tmp_path / "copy.zip")
            assert found.read_bytes() == source.read_bytes()
        assert watch.run(served, "upload_archive", dataset_id, source, log, 0)
        assert sum(watch.parts.values()) == parts, "the platform had it"


def packed(path: Path) -> dict[str, bytes]:
    """Write an archive of many images with a label each; returns the images by the path of their item."""
    rng = random.Random(9)
    images = {f"train/{number:05}": rng.randbytes(rng.randint(1, 3000)) for number in range(IMAGES)}
    labels = dict.fromkeys(images, "0 .5 .5 .1 .1\n1 .5 .5 .2 .2\n")
    path.write_bytes(make_zip(yolo_files(images, labels, ["cat", "dog"])))
    return {f"images/{name}.png": data for name, data in images.items()}


async def until_begun(dataset: AsyncDataset, count: int) -> None:
    while (await dataset.refresh()).item_count <= count:
        await asyncio.sleep(0.01)


async def test_whoever_takes_over_from_a_killed_worker_ends_at_the_same_state(tmp_path: Path) -> None:
    """Killed twice, early and later: no item and no annotation is missing or there twice, none is another."""
    images = packed(tmp_path / "dataset.zip")
    with served_platform(tmp_path / "platform") as served:
        async with AsyncClient(served.url, token=served.token) as client:
            dataset = await client.datasets.create("packed")
            command = [sys.executable, "-m", "asyncsdk", "worker", "--kinds", "unpack_archive", "--url", served.url]
            scratch = tmp_path / "scratch"  # what a killed worker leaves lies with the rest of the test
            scratch.mkdir()
            environment = {
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "ASYNCSDK_TOKEN": served.token,
                "PYTHONWARNINGS": "error",
                "TMPDIR": str(scratch),
            }
            job = None
            for count in (0, 2 * IMAGES // 5):
                process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
                try:
                    assert process.stderr is not None
                    assert " does: " in (line := process.stderr.readline()), line
                    if job is None:
                        job = await dataset.upload_archive(tmp_path / "dataset.zip")
                    await until_begun(dataset, count)
                finally:
                    process.kill()
                    process.communicate()
                assert (await dataset.refresh()).item_count < IMAGES, "it was to be killed before the end"
                for worker in [one async for one in client.workers.list()]:
                    await worker.delete()  # its lease ends now instead of in half a minute
            async with client.worker(kinds=["unpack_archive"]):
                assert job is not None
                result = await job
            assert result == UnpackedArchive(items=IMAGES, annotations=2 * IMAGES)
            found = {item.path: item.crc32c async for item in dataset.items.list()}
            assert found == {path: summed(data) for path, data in images.items()}
            assert (await dataset.refresh()).item_count == IMAGES
            labels = Counter([(one.item_id, one.label) async for one in dataset.annotations.list()])
            assert len(labels) == 2 * IMAGES
            assert set(labels.values()) == {1}


@pytest.mark.slow
async def test_a_job_that_is_cancelled_stops_and_can_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it is left in the scratch folder, what it had made stays, and the next one ends at the same state."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    extract = unpacking._extract

    def slowly(*arguments: Any) -> Any:
        time.sleep(0.5)  # a worker hears within a second that it is to stop
        return extract(*arguments)

    monkeypatch.setattr(unpacking, "_extract", slowly)
    images = packed(tmp_path / "dataset.zip")
    async with AsyncClient(data=tmp_path / "data") as client:
        dataset = await client.datasets.create("packed")
        job = await dataset.upload_archive(tmp_path / "dataset.zip")
        await until_begun(dataset, 0)
        await job.cancel()
        with pytest.raises(JobCancelled):
            await job
        await until(lambda: not list(scratch.iterdir()))
        assert 0 < (await dataset.refresh()).item_count < IMAGES, "it was to be cancelled before the end"
        assert await (await dataset.unpack_archive()) == UnpackedArchive(items=IMAGES, annotations=2 * IMAGES)
        assert {item.path async for item in dataset.items.list()} == images.keys()
        await until(lambda: not list(scratch.iterdir()))
