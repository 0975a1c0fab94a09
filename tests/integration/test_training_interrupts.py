"""A training process that is interrupted: what it handed over in passing arrives, or is told to be lost and kept."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from asyncsdk import Client
from tests.support.server import ServedProcess

WAIT_SECONDS = 50

BLOCKING = """
import sys, time
from asyncsdk import Client

arguments, weights = eval(sys.argv[1]), sys.argv[2]
with Client(**arguments) as client:
    model = client.models.get(name="detector")
    with (
        model.metrics.batched(interval=600, close_timeout=0.5 if "url" in arguments else 30) as metrics,
        model.background_checkpoints() as uploads,
    ):
        uploads.submit(weights, epoch=0)
        while not uploads.report.uploaded:
            time.sleep(0.01)
        uploads.submit(weights, epoch=1, is_best=True)
        metrics.log({"loss": 0.5}, step=1)
        print("ready", flush=True)
        time.sleep(60)
"""

ASYNCHRONOUS = """
import asyncio, sys
from asyncsdk import AsyncClient

async def train(arguments, weights):
    async with AsyncClient(**arguments) as client:
        model = await client.models.get(name="detector")
        async with model.metrics.batched(interval=600) as metrics, model.background_checkpoints() as uploads:
            uploads.submit(weights, epoch=0)
            while not uploads.report.uploaded:
                await asyncio.sleep(0.01)
            uploads.submit(weights, epoch=1, is_best=True)
            metrics.log({"loss": 0.5}, step=1)
            print("ready", flush=True)
            await asyncio.sleep(60)

asyncio.run(train(eval(sys.argv[1]), sys.argv[2]))
"""


@contextmanager
def training(script: str, arguments: dict[str, str], weights: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a training process up to the moment when it waits."""
    weights.write_bytes(b"weights")
    process = subprocess.Popen(
        [sys.executable, "-c", script, repr(arguments), str(weights)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate(timeout=WAIT_SECONDS)[1]
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    with Client(data=folder) as client:
        client.models.create("detector")
    return folder


@pytest.mark.parametrize(("script", "epochs"), [(BLOCKING, [0, 1]), (ASYNCHRONOUS, [0])], ids=["blocking", "asyncio"])
def test_ctrl_c_in_the_loop_sends_metrics_and_what_may_still_begin(
    data: Path, tmp_path: Path, home: Path, script: str, epochs: list[int]
) -> None:
    """The blocking block raises and uploads what waits; under asyncio it is cancelled, and tells what is lost."""
    with training(script, {"data": str(data)}, tmp_path / "last.pt") as process:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors
    assert ("(epoch 1) was not uploaded" in errors) is (1 not in epochs)
    with Client(data=data) as client:
        model = client.models.get(name="detector")
        assert [one.epoch for one in model.checkpoints.list()] == epochs
        assert model.metrics.latest() == {"loss": 0.5}
    assert not list(home.rglob("*.jsonl"))
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["last.pt"]


def test_a_kill_leaves_no_copies_behind(data: Path, tmp_path: Path) -> None:
    """A snapshot has no name: what waited is gone with the process."""
    with training(BLOCKING, {"data": str(data)}, tmp_path / "last.pt") as process:
        process.kill()
        process.communicate(timeout=WAIT_SECONDS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "last.pt"]


def test_a_second_ctrl_c_does_not_wait_for_a_server_that_hangs(data: Path, tmp_path: Path, home: Path) -> None:
    """What waited is told to be lost, and the metrics are in a file that can be sent later."""
    with ServedProcess(data) as server:
        arguments = {"url": server.url, "token": server.token}
        with training(BLOCKING, arguments, tmp_path / "last.pt") as process:
            server.process.send_signal(signal.SIGSTOP)
            process.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=1)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=WAIT_SECONDS)
        server.process.send_signal(signal.SIGCONT)
        assert process.returncode == -signal.SIGINT
        assert "(epoch 1) was not uploaded: its upload was cancelled" in errors or "the block ended" in errors
        assert "1 metrics were not sent and are kept" in errors
        assert len(list(home.rglob("*.jsonl"))) == 1
        with Client(**arguments) as client:
            model = client.models.get(name="detector")
            assert model.metrics.send_kept().sent == 1
            assert model.metrics.latest() == {"loss": 0.5}
