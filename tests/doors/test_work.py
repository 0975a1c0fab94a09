"""Export and predict through the door: the same answers as from our own API."""

from __future__ import annotations

import io
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio.to_thread
import httpx
import numpy as np
import pytest
from PIL import Image

from asyncsdk import AsyncClient, AsyncModel
from asyncsdk.domain.filters import Condition
from asyncsdk.errors import ConfigError, JobFailed, NotFound, UnsupportedOperation
from tests.doors.conftest import HUB
from tests.support.official.client import OfficialClient
from tests.support.onnx_models import digits, light_detector, make_scene
from tests.support.server import RunningServer


@pytest.fixture
async def native(served: RunningServer) -> AsyncIterator[AsyncClient]:
    """A client of the platform, which does its jobs as well."""
    async with AsyncClient(served.url, token=served.token) as client, client.worker(kinds=["export", "predict"]):
        yield client


@pytest.fixture
async def adapted(served: RunningServer, door: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(platform=HUB, url=door, api_key=served.token) as client:
        yield client


@pytest.fixture
async def model(native: AsyncClient) -> AsyncModel:
    """A classifier of digits."""
    model = await native.models.create("digits")
    await model.upload_checkpoint(digits().weights, epoch=1, is_best=True)
    await model.upload_checkpoint(b"of a later epoch, and worse", epoch=2)
    return model


def plain(result: Any) -> Any:
    """Return a result without what differs between two runs."""
    return result.model_copy(update={"timing": type(result.timing)(), "image": ""})


async def run(official: OfficialClient, code: str) -> Any:
    """Run *code* in a thread: the worker that it waits for is in this loop."""
    return await anyio.to_thread.run_sync(official.run, code)


async def test_three_voices_predict_the_same(
    official: OfficialClient, adapted: AsyncClient, model: AsyncModel, tmp_path: Path
) -> None:
    their = await adapted.models.get(model.id)
    right = 0
    for number in range(10):
        (tmp_path / f"{number}.png").write_bytes(digits().file(number))
        code = f"model = client.model({model.id!r}); r = model.predict('{number}.png', {{'conf': 0.25, 'topk': 3}})"
        (told,) = (await run(official, f"{code}; result = r.json()['data']"))["images"]
        ours = await model.predict(tmp_path / f"{number}.png", {"topk": 3})
        assert [one["class"] for one in told["results"]] == [one.class_id for one in ours.classes]
        assert [one["name"] for one in told["results"]] == [one.label for one in ours.classes]
        assert told["shape"] == [8, 8]
        assert plain(await their.predict(tmp_path / f"{number}.png", {"topk": 3})) == plain(ours)
        assert ours.top is not None
        right += ours.top.class_id == digits().labels[number]
    assert right >= 9


async def test_a_large_image_with_boxes(
    official: OfficialClient, adapted: AsyncClient, native: AsyncClient, served: RunningServer, tmp_path: Path
) -> None:
    """One that travels as an input of the job."""
    model = await native.models.create("lights")
    await model.upload_checkpoint(light_detector("yolov8"), epoch=0, is_best=True)
    scene = make_scene(640, 480, [(100, 200, 80, 0), (400, 40, 80, 1)])
    Image.open(io.BytesIO(scene.file)).save(tmp_path / "scene.bmp")
    assert (tmp_path / "scene.bmp").stat().st_size > 256 * 1024
    ours = await model.predict(tmp_path / "scene.bmp", {"conf": 0.6})
    code = f"r = client.model({model.id!r}).predict('scene.bmp', {{'conf': 0.6}}); result = r.json()['data']"
    (told,) = (await run(official, code))["images"]
    assert [(one["name"], tuple(one["box"].values())) for one in told["results"]] == [
        (one.label, one.box) for one in ours.detections
    ]
    their = await adapted.models.get(model.id)
    assert plain(await their.predict(tmp_path / "scene.bmp", {"conf": 0.6})) == plain(ours)
    assert plain(await their.predict(np.zeros((8, 8), dtype=np.uint8), {"conf": 0.6})).detections == ()


async def test_a_batch_through_the_adapter(adapted: AsyncClient, model: AsyncModel) -> None:
    """In order; an image that is none says so, and the others are predicted."""
    their = await adapted.models.get(model.id)
    images = [digits().file(0), b"no image", digits().file(2)]
    found = [result async for result in their.predict_many(images)]
    assert [result.ok for result in found] == [True, False, True]
    with pytest.raises(JobFailed, match="image"):
        await their.predict(b"no image")


async def test_an_export_is_a_job(official: OfficialClient, native: AsyncClient, model: AsyncModel) -> None:
    told = await run(official, f"result = client.model({model.id!r}).export('ONNX').json()['data']")
    assert told["format"] == "onnx"
    job = await native.jobs.get(told["id"])
    assert (await job.wait()).status == "succeeded"
    (artifact,) = [one async for one in job.artifacts.list()]
    assert artifact.size_bytes == len(digits().weights)


async def test_an_archive_becomes_items_and_annotations(
    official: OfficialClient, served: RunningServer, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "coco.zip", "w") as archive:
        archive.writestr("data.yaml", "names: [cat, dog]\ntrain: images/train\n")
        archive.writestr("images/train/a.png", digits().file(0))
        archive.writestr("labels/train/a.txt", "1 0.5 0.5 0.1 0.1\n")
    async with AsyncClient(served.url, token=served.token) as client, client.worker(kinds=["unpack_archive"]):
        code = "d = client.dataset(); d.create_dataset({'meta': {'name': 'D'}}); r = d.upload_dataset('coco.zip')"
        told = await run(official, f"{code}; result = r.json()['data']")
        assert (await (await client.jobs.get(told["job"])).wait()).status == "succeeded"
        dataset = await client.datasets.get(told["id"])
        assert [item.path async for item in dataset.items.list(filter=Condition("path", "prefix", "images/"))] == [
            "images/train/a.png"
        ]
        assert [one.label async for one in dataset.annotations.list()] == ["dog"]


async def test_an_archive_through_the_adapter(adapted: AsyncClient, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "coco.zip", "w") as archive:
        archive.writestr("images/train/a.png", digits().file(0) * 3000)
    dataset = await adapted.datasets.create("D")
    with pytest.raises(UnsupportedOperation, match="unpack"):
        await dataset.upload_archive(tmp_path / "coco.zip")
    with pytest.raises(NotFound):  # nothing was sent then
        await dataset.download_archive(tmp_path / "back.zip")
    await dataset.upload_archive(tmp_path / "coco.zip", unpack=False)
    await dataset.download_archive(tmp_path / "back.zip")
    assert (tmp_path / "back.zip").read_bytes() == (tmp_path / "coco.zip").read_bytes()


async def test_what_cannot_be_done_is_refused_with_the_reason(
    served: RunningServer, door: str, model: AsyncModel, adapted: AsyncClient
) -> None:
    key = {"x-api-key": served.token}
    image = {"image": ("image", digits().file(0))}
    async with httpx.AsyncClient(headers=key, trust_env=False) as http:
        for path, arguments, status, reason in [
            (f"/v1/models/{model.id}/export", {"json": {"format": "onxx"}}, 400, "onnx"),
            (f"/v1/models/{model.id}/export", {"json": {"format": "coreml"}}, 409, "coreml"),
            (f"/v1/models/{model.id}/export", {"json": {}}, 400, "format"),
            (f"/v1/models/{'f' * 24}/export", {"json": {"format": "onnx"}}, 404, "no model"),
            (f"/v1/predict/{'f' * 24}", {"files": image}, 404, "no model"),
            (f"/v1/predict/{model.id}", {"files": image, "data": {"confd": "1"}}, 400, "conf"),
            (f"/v1/predict/{model.id}", {"files": {"image": ("image", b"no image")}}, 422, "image"),
        ]:
            reply = await http.post(door + path, **arguments)
            body = reply.json()
            assert (reply.status_code, body["success"]) == (status, False), body
            assert reason in body["message"]
    their = await adapted.models.get(model.id)
    with pytest.raises(ConfigError, match="conf"):
        await their.predict(digits().file(0), {"confd": 1})
    with pytest.raises(UnsupportedOperation, match="export"):
        await their.export("onnx")
    with pytest.raises(UnsupportedOperation, match="checkpoint"):
        await their.predict(digits().file(0), checkpoint="last")


async def test_without_a_worker_it_says_so(served: RunningServer, door: str) -> None:
    key = {"x-api-key": served.token}
    async with httpx.AsyncClient(headers=key, trust_env=False) as http:
        made = await http.post(f"{door}/v1/models", json={"meta": {"name": "M"}})
        path = f"{door}/v1/predict/{made.json()['data']['id']}"
        reply = await http.post(path, files={"image": ("image", digits().file(0))})
        assert (reply.status_code, reply.json()["code"]) == (409, "no_worker")
