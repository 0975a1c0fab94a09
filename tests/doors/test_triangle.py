"""One story in three voices leaves one state: HUB's client through the door, our adapter through it, our own API."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from asyncsdk import AsyncClient
from tests.doors.conftest import HUB
from tests.support.dump import dump
from tests.support.official.client import OfficialClient
from tests.support.real.required import missing
from tests.support.real.tools import TOOLS
from tests.support.server import RunningServer

CONFIG = {"batch_size": 16, "epochs": 4, "imgsz": 640, "patience": 100, "device": "cpu", "cache": "ram"}
LINEAGE = {"architecture": "yolo11n.yaml", "parent": "yolo11n.pt"}
NAMES = ["last.pt", "last.pt", "last.pt", "best.pt"]
METRICS = {epoch: {"loss": 1.0 / (epoch + 1), "metrics/mAP50(B)": epoch / 10} for epoch in range(4)}


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with weights of four epochs, the last of them final, and an image."""
    folder = tmp_path / "files"
    folder.mkdir()
    for epoch in range(4):
        (folder / f"{epoch}").mkdir()
        # The wire cannot carry the name of the file: it calls all of them this.
        (folder / f"{epoch}" / NAMES[epoch]).write_bytes(bytes([epoch]) * 1_500_000)
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.writestr("images/train/a.jpg", b"\xff\xd8\xff" + bytes(1000))
        archive.writestr("labels/train/a.txt", "0 0.5 0.5 0.1 0.1\n")
    (folder / "face.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))
    return folder


@pytest.fixture
def platforms(tmp_path: Path) -> Iterator[list[RunningServer]]:
    """Three empty platforms."""
    with (
        RunningServer(tmp_path / "official", doors=[HUB]) as one,
        RunningServer(tmp_path / "adapter", doors=[HUB]) as two,
        RunningServer(tmp_path / "native") as three,
    ):
        yield [one, two, three]


def official_voice(server: RunningServer, files: Path) -> None:
    """Tell the story with ``hub-sdk``."""
    with OfficialClient("hub-sdk", {"ULTRALYTICS_HUB_API": server.door_urls[HUB]}, folder=files) as client:
        client.run(
            f"""
import json, time
from hub_sdk import HUBClient
client = HUBClient({{"api_key": {server.token!r}}})

project = client.project()
project.create_project({{"meta": {{"name": "faces"}}}})
dataset = client.dataset()
dataset.create_dataset({{"meta": {{"name": "photos"}}, "projectId": project.id, "source": "camera"}})
config = {{"batchSize": 16, "epochs": 4, "imageSize": 640, "patience": 100, "device": "cpu", "cache": "ram"}}
lineage = {{name: {{"name": value}} for name, value in {LINEAGE!r}.items()}}
links = {{"projectId": project.id, "datasetId": dataset.id}}
model = client.model()
model.create_model({{"meta": {{"name": "detector"}}, "config": config, "lineage": lineage, **links}})

model.hub_client.alive = True
model.hub_client._start_heartbeats(model.id, 60)
for epoch in range(3):
    assert model.upload_model(epoch, f"{{epoch}}/last.pt", is_best=epoch == 1) is not None
assert model.upload_model(3, "3/best.pt", map=0.51, final=True) is not None
assert model.upload_metrics({{n: json.dumps(m) for n, m in {METRICS!r}.items()}}) is not None
while model.hub_client.agent_id is None:
    time.sleep(0.01)
model.stop_heartbeat()

assert model.update({{"meta": {{"name": "face detector"}}, "config": {{"patience": 50}}}}) is not None
assert project.upload_image("face.png") is not None
assert dataset.upload_dataset("photos.zip") is not None
for name, hard in (("put away", False), ("gone", True)):
    other = client.model()
    other.create_model({{"meta": {{"name": name}}, "projectId": project.id}})
    assert other.delete(hard=hard) is not None
"""
        )


async def our_voice(client: AsyncClient, files: Path) -> None:
    """Tell the story with the entity API, whatever platform the client speaks to."""
    project = await client.projects.create("faces")
    dataset = await client.datasets.create("photos", project=project, metadata={"source": "camera"})
    model = await client.models.create("detector", project=project, dataset=dataset, config={**CONFIG, **LINEAGE})
    async with model.heartbeat(on_sigterm=False):
        for epoch in range(3):
            await model.upload_checkpoint(files / f"{epoch}/last.pt", epoch=epoch, is_best=epoch == 1)
        await model.upload_checkpoint(files / "3/best.pt", epoch=3, is_best=True, is_final=True, metrics={"map": 0.51})
        for epoch, values in METRICS.items():
            await model.metrics.log(values, step=epoch)
    model = await model.refresh()
    await model.update(name="face detector", config={**model.config, "patience": 50})
    await project.upload_image(files / "face.png")
    await dataset.upload_archive(files / "photos.zip", unpack=False)
    for name, hard in (("put away", False), ("gone", True)):
        other = await client.models.create(name, project=project)
        await other.delete(hard=hard)


async def test_one_story_in_three_voices(platforms: list[RunningServer], files: Path) -> None:
    if (reason := TOOLS["hub-sdk"].unavailable()) is not None:
        missing("hub-sdk", reason)
    official, adapted, native = platforms
    official_voice(official, files)
    async with AsyncClient(platform=HUB, url=adapted.door_urls[HUB], api_key=adapted.token) as client:
        await our_voice(client, files)
    async with AsyncClient(native.url, token=native.token) as client:
        await our_voice(client, files)
    states = [dump(server.folder) for server in platforms]
    assert len(states[0]) == 1 + 1 + 2 + 4 + 8 + 1
    assert states[0] == states[2]
    assert states[1] == states[2]
