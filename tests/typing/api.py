"""What users write, as a type checker sees it. Checked by mypy, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, assert_type

import asyncsdk
from asyncsdk.engine import Download, Engine, Outcome, Progress, PutTarget, Report, TransferConfig, Upload

ROW: dict[str, Any] = {"path": "a.jpg", "predictions": []}


async def main_job(client: asyncsdk.AsyncClient) -> None:
    project = await client.projects.create("streets")
    assert_type(project, asyncsdk.AsyncProject)
    dataset = await client.datasets.create("photos", project=project, exist_ok=True)
    assert_type(dataset, asyncsdk.AsyncDataset)
    report = await dataset.upload("photos/", include=["*.jpg"], on_existing="skip_same", on_progress=note)
    assert_type(report, Report)
    await dataset.upload(items())
    await dataset.upload(arriving_items())
    await dataset.upload([Path("a.jpg"), asyncsdk.ItemUpload(b"bytes", "b.jpg", {"number": 1})])
    async for item in dataset.items.list(limit=10):
        assert_type(item, asyncsdk.AsyncItem)
        assert_type(item.size_bytes, int)
    assert_type(await dataset.download("copy/"), Report)
    model = await client.models.create("detector", project=project.id)
    checkpoint = await model.upload_checkpoint("last.pt", epoch=3, is_best=True, metrics={"map": 0.61})
    assert_type(checkpoint, asyncsdk.AsyncCheckpoint)
    await model.download_checkpoint("copy.pt", which="best")
    await model.download_checkpoint("copy.pt", which=3)
    await dataset.prediction_tasks.create("detect", kind="object-detection", categories=["car", "person"])
    await dataset.upload_predictions("detect", [ROW])
    async for row in dataset.predictions.list("detect"):
        assert_type(row.path, str)


def main_job_blocking(client: asyncsdk.Client) -> None:
    project = client.projects.create("streets")
    assert_type(project, asyncsdk.Project)
    dataset = client.datasets.create("photos", project=project)
    assert_type(dataset, asyncsdk.Dataset)
    assert_type(dataset.upload("photos/", on_progress=note, on_outcome=keep), Report)
    dataset.upload(items())
    for item in dataset.items.list():
        assert_type(item, asyncsdk.Item)
    model = client.models.get(name="detector")
    assert_type(model.download_checkpoint("copy.pt", which="last"), asyncsdk.Checkpoint)
    dataset.upload_predictions("detect", iter([ROW]))


async def engine_alone(url: str) -> None:
    transfers = [Upload(Path("a.jpg"), PutTarget(url)), Download(url, Path("b.jpg"))]
    async with Engine(TransferConfig(concurrency=32)) as engine, engine.run(transfers) as outcomes:
        async for outcome in outcomes:
            assert_type(outcome, Outcome)
    async with Engine() as engine:
        assert_type(await engine.upload(b"bytes", PutTarget(url)), Outcome)
        assert_type(await engine.download(url, Path("b.jpg")), Outcome)


def note(progress: Progress) -> None:
    assert_type(progress.objects_total, int | None)


def keep(outcome: Outcome) -> None:
    assert_type(outcome.ok, bool)


def items() -> Iterator[asyncsdk.ItemUpload]:
    yield asyncsdk.ItemUpload(Path("a.jpg"))


async def arriving_items() -> AsyncIterator[asyncsdk.ItemUpload]:
    yield asyncsdk.ItemUpload(b"bytes", "a.jpg")
