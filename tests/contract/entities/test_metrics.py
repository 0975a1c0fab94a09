"""Metrics as a user logs and reads them, on every platform the same; and through the loss of a server."""

from __future__ import annotations

import asyncio
import csv
import math
import threading
from pathlib import Path

import pytest

from asyncsdk import AsyncClient, AsyncModel, Client
from asyncsdk.domain.filters import Condition
from asyncsdk.errors import BadRequest, ConfigError, DestinationUnwritable, MetricsNotSent, NotFound
from asyncsdk.protocol.metrics import MAX_METRIC_ENTRIES
from tests.support.ports import held_port
from tests.support.server import RunningServer, ServedProcess


@pytest.fixture
async def model(client: AsyncClient) -> AsyncModel:
    return await client.models.create("detector")


async def test_an_explicit_call_is_stored_when_it_returns(model: AsyncModel) -> None:
    await model.metrics.log({"loss": 0.5, "val/mAP": 0.25}, step=3)
    await model.metrics.log({"loss": 0.125}, step=4)
    await model.metrics.log({"parameters": 25_000_000})
    await model.metrics.log({"loss": 0.0625}, step=4)
    assert await model.metrics.latest() == {"loss": 0.0625, "parameters": 25e6, "val/mAP": 0.25}
    losses = model.metrics.list(filter=Condition("name", "eq", "loss"))
    assert [(one.step, one.value) async for one in losses] == [(3, 0.5), (4, 0.0625)]
    assert [(one.name, one.count) async for one in model.metrics.series(sort=["-name"], limit=2)] == [
        ("val/mAP", 1),
        ("parameters", 1),
    ]


async def test_an_explicit_call_that_fails_raises_and_stores_nothing(model: AsyncModel) -> None:
    with pytest.raises(BadRequest, match="finite"):
        await model.metrics.log({"good": 1.0, "loss": math.nan}, step=1)
    with pytest.raises(ConfigError, match="step"):
        await model.metrics.log({"good": 1.0}, step=2**63)
    assert await model.metrics.latest() == {}
    await model.metrics.log({})
    await model.delete()
    with pytest.raises(NotFound):
        await model.metrics.log({"good": 1.0})


async def test_an_explicit_call_may_be_larger_than_a_message(model: AsyncModel) -> None:
    await model.metrics.log({f"layer {n}": n for n in range(MAX_METRIC_ENTRIES + 5)}, step=1)
    assert len(await model.metrics.latest()) == MAX_METRIC_ENTRIES + 5


async def test_a_training_thread_logs_in_batches(model: AsyncModel) -> None:
    async with model.metrics.batched(interval=0.01) as metrics:

        def train() -> None:
            for step in range(2000):
                metrics.log({"loss": 1 / (step + 1), "lr": 0.1}, step=step)

        await asyncio.to_thread(train)
    assert (metrics.report.sent, metrics.report.pending, metrics.report.failures) == (4000, 0, 0)
    table = await model.metrics.table(names=["loss"])
    assert dict(table.series("loss")) == {step: 1 / (step + 1) for step in range(2000)}
    assert table.names == ("loss",)
    late = await model.metrics.table(filter=Condition("step", "ge", 1998))
    assert [row["step"] for row in late.to_rows()] == [1998, 1999]


async def test_metrics_are_read_as_rows_and_as_a_file(model: AsyncModel, tmp_path: Path) -> None:
    await model.metrics.log({"loss": 0.1, "b,c": 1e-300}, step=0)
    await model.metrics.log({"loss": 1 / 3}, step=10)
    await model.metrics.log({"size": 7})
    table = await model.metrics.table()
    assert table.to_rows() == [
        {"step": None, "b,c": None, "loss": None, "size": 7.0},
        {"step": 0, "b,c": 1e-300, "loss": 0.1, "size": None},
        {"step": 10, "b,c": None, "loss": 1 / 3, "size": None},
    ]
    table.to_csv(tmp_path / "metrics.csv")
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["", "0", "10"]
    assert (float(rows[2]["loss"]), rows[2]["b,c"], float(rows[1]["b,c"])) == (1 / 3, "", 1e-300)
    with pytest.raises(DestinationUnwritable):
        table.to_csv(tmp_path / "missing" / "metrics.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


async def test_curves_are_drawn(model: AsyncModel, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib (extra plot)")
    await model.metrics.log({"size": 7})
    with pytest.raises(ConfigError, match="no series"):
        await model.metrics.plot(tmp_path / "curves.png")
    for step in range(5):
        await model.metrics.log({"loss $x^": 1 / (step + 1), "val/mAP": step}, step=step)
    await model.metrics.plot(tmp_path / "curves.png")
    await model.metrics.plot(tmp_path / "curves.svg", names=["val/mAP"])
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert b"</svg>" in (tmp_path / "curves.svg").read_bytes()
    with pytest.raises(ConfigError, match="'nobody'"):
        await model.metrics.plot(tmp_path / "x.png", names=["nobody"])
    with pytest.raises(ConfigError, match="png"):
        await model.metrics.plot(tmp_path / "curves.pdf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "curves.svg"]


async def test_a_server_that_was_killed_and_comes_back_has_everything_in_the_end(tmp_path: Path) -> None:
    """Logged before, while it is away, and after; the last value of each step, none missing, none twice."""
    wanted: dict[int, float] = {}
    with held_port() as port, ServedProcess(tmp_path / "data", port) as server:
        async with AsyncClient(server.url, token=server.token) as client:
            model = await client.models.create("detector")
            async with model.metrics.batched(interval=0.05) as metrics:

                async def log_some(first: int) -> None:
                    for step in range(first, first + 300):
                        metrics.log({"loss": step}, step=step)
                        metrics.log({"loss": step + 0.5}, step=step // 2)
                        wanted.update({step: float(step), step // 2: step + 0.5})
                        if step % 20 == 0:
                            await asyncio.sleep(0.01)

                await log_some(0)
                async with asyncio.timeout(30):
                    while metrics.report.sent == 0:
                        await asyncio.sleep(0.01)
                server.kill()
                await log_some(300)
                async with asyncio.timeout(50):
                    while metrics.report.failures == 0:
                        await asyncio.sleep(0.01)
                with ServedProcess(tmp_path / "data", port):
                    await log_some(600)
                    async with asyncio.timeout(50):
                        while metrics.report.pending or metrics.report.kept:
                            await metrics.flush()
                    table = await model.metrics.table()
    assert dict(table.series("loss")) == wanted
    assert metrics.report.lost == 0


async def test_a_server_that_never_comes_back_leaves_a_file_for_later(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        async with AsyncClient(server.url, token=server.token) as client:
            model = await client.models.create("detector")
            block = model.metrics.batched(interval=60, close_timeout=0.2)
            metrics = await block.__aenter__()
            metrics.log({"loss": 0.5}, step=1)
    with pytest.raises(MetricsNotSent) as caught:
        await block.__aexit__(None, None, None)
    assert (caught.value.count, metrics.report.kept) == (1, 1)
    with RunningServer(tmp_path / "data") as server:
        async with AsyncClient(server.url, token=server.token) as client:
            again = await client.models.get(model.id)
            await again.metrics.log({"loss": 0.25}, step=1)
            assert (await again.metrics.send_kept()).sent == 1
            assert await again.metrics.latest() == {"loss": 0.25}, "a later measurement stands"


def test_the_blocking_twin_does_the_same(tmp_path: Path) -> None:
    """Threads log into one block; the end of the block waits until all of it was sent."""
    with Client(data=tmp_path / "data") as client:
        model = client.models.create("detector")
        model.metrics.log({"loss": 1.0}, step=0)
        with model.metrics.batched(interval=0.01) as metrics:

            def train(name: str) -> None:
                for step in range(200):
                    metrics.log({name: step}, step=step)

            threads = [threading.Thread(target=train, args=(name,)) for name in "ab"]
            for thread in threads:
                thread.start()
            metrics.flush()
            for thread in threads:
                thread.join()
        assert metrics.report.sent == 400
        table = model.metrics.table()
        assert (len(table.series("a")), len(table.series("b")), table.series("loss")) == (200, 200, {0: 1.0})
        assert model.metrics.latest() == {"a": 199.0, "b": 199.0, "loss": 1.0}
        assert [one.name for one in model.metrics.series()] == ["a", "b", "loss"]
        assert model.metrics.send_kept().files == 0
