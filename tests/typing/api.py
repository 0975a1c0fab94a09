"""What users write, as a type checker sees it. Checked by mypy, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, assert_type

import asyncsdk
from asyncsdk.engine import Download, Engine, Outcome, Progress, PutTarget, Report, TransferConfig, Upload
from asyncsdk.protocol.archives import UnpackedArchive

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
    async with model.heartbeat(interval=60) as beating:
        assert_type(beating, asyncsdk.AsyncHeartbeat)
        assert_type(beating.agent_id, str | None)
    assert_type(await model.agents.list().to_list(), list[asyncsdk.AsyncAgent])
    assert_type(await model.weights_url("best"), str)
    await model.delete(hard=False)
    assert_type(await model.restore(), asyncsdk.AsyncModel)
    assert_type(await project.upload_image("cover.png"), asyncsdk.AsyncProject)
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
    with model.heartbeat() as beating:
        assert_type(beating, asyncsdk.Heartbeat)
    assert_type(model.agents.list().to_list(), list[asyncsdk.Agent])
    assert_type(model.restore(), asyncsdk.Model)
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


async def training(model: asyncsdk.AsyncModel, blocking: asyncsdk.Model) -> None:
    async with model.metrics.batched(interval=1) as metrics, model.background_checkpoints() as uploads:
        metrics.log({"loss": 0.5, "count": 3}, step=1)
        uploads.submit("last.pt", epoch=1, metrics={"loss": 0.5})
    assert_type(metrics.report.sent, int)
    assert_type(uploads.report.ok, bool)
    with blocking.metrics.batched() as log, blocking.background_checkpoints() as sent:
        log.log({"loss": 0.5})
        log.flush()
        sent.submit(Path("last.pt"))
    assert_type(blocking.metrics.latest(), dict[str, float])
    assert_type((await model.metrics.table()).steps, tuple[int, ...])
    await model.update(retention=asyncsdk.Retention(keep_last=3))


async def working(model: asyncsdk.AsyncModel, blocking: asyncsdk.Model) -> None:
    assert_type(await model.predict("a.jpg", {"conf": 0.5}), asyncsdk.PredictionResult)
    async for result in model.predict_many(["a.jpg", b"bytes"], asyncsdk.PredictConfig(topk=1)):
        assert_type(result.detections, tuple[asyncsdk.Detection, ...])
    made = await (await model.export("onnx", half=True))
    assert_type(made, asyncsdk.AsyncExport)
    assert_type(blocking.predict(Path("a.jpg")), asyncsdk.PredictionResult)
    assert_type(blocking.export("onnx").wait_result(), asyncsdk.Export)


async def packed(dataset: asyncsdk.AsyncDataset, blocking: asyncsdk.Dataset) -> None:
    job = await dataset.upload_archive("a.zip")
    assert_type(await job, UnpackedArchive)
    await dataset.upload_archive(Path("a.zip"), unpack=False)
    assert_type(blocking.upload_archive("a.zip").wait_result(), UnpackedArchive)
    assert_type(blocking.download_archive("a.zip"), Path)
    item = await dataset.items.get(path="a.jpg")
    assert_type(
        await item.annotations.create(asyncsdk.AnnotationDraft("cat", asyncsdk.Box(x=0, y=0, width=1, height=1))), int
    )
    async for annotation in dataset.annotations.list():
        assert_type(annotation, asyncsdk.AsyncAnnotation)
    assert_type(list(blocking.annotations.list()), list[asyncsdk.Annotation])
