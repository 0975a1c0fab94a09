"""What HUB's own client does, through the door: every call of it that ever worked."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from asyncsdk import AsyncClient
from asyncsdk.errors import NotFound
from tests.support.official.client import OfficialClient
from tests.support.server import RunningServer

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 100
MISSING = "f" * 24


@pytest.fixture
async def native(served: RunningServer) -> Any:
    async with AsyncClient(served.url, token=served.token) as client:
        yield client


def new_model(official: OfficialClient, **fields: Any) -> str:
    body = {"meta": {"name": "detector"}, **fields}
    model_id: str = official.run(f"model = client.model(); model.create_model({body!r}); result = model.id")
    return model_id


# --- keys ---


def test_a_good_key_logs_in(official: OfficialClient) -> None:
    assert official.run("result = [client.authenticated, client.get_state()]") == [True, True]


def test_a_token_logs_in_as_id_token(official: OfficialClient, served: RunningServer) -> None:
    code = f"result = HUBClient({{'id_token': {served.token!r}}}).project_list().total_pages"
    assert official.run(code) == 0


def test_a_bad_key_does_not(official: OfficialClient, door: str) -> None:
    """Neither logs in nor reads, whatever the client makes of it."""
    code = "other = HUBClient({'api_key': 'wrong'}); result = [other.authenticated, other.get_state()]"
    assert official.run(code) == [False, False]
    for headers in ({}, {"x-api-key": "wrong"}, {"authorization": "Bearer wrong"}):
        reply = httpx.post(f"{door}/v1/auth", headers=headers)
        assert (reply.status_code, reply.json()["success"]) == (401, False)
        assert httpx.get(f"{door}/v1/models", headers=headers).status_code == 401


def test_lists_of_everybody_need_a_key_too(official: OfficialClient) -> None:
    """Nothing on this platform is public."""
    new_model(official)
    assert official.run("l = client.model_list(public=True); result = [l.results, l.total_pages]") == [[], 0]
    code = "l = HUBClient({'api_key': 'wrong'}).model_list(public=True); result = [l.results, l.total_pages]"
    assert official.run(code) == [{}, 0]


# --- entities ---


@pytest.mark.parametrize("kind", ["project", "dataset", "model"])
def test_create_read_update_delete(official: OfficialClient, kind: str) -> None:
    code = f"""
one = client.{kind}()
one.create_{kind}({{"meta": {{"name": "first"}}, "filename": "x.zip"}})
created = [one.id, one.data["id"], one.data["meta"]["name"], one.data["filename"]]
updated = one.update({{"meta": {{"name": "second"}}}}).json()
again = client.{kind}(one.id)
result = [created, updated["success"], again.data["meta"]["name"], again.data["filename"]]
"""
    created, success, name, filename = official.run(code)
    assert created == [created[0], created[0], "first", "x.zip"]
    assert (success, name, filename) == (True, "second", "x.zip")
    assert official.run("result = one.delete(hard=True).json()['success']") is True
    assert official.run(f"gone = client.{kind}(one.id); result = gone.data") == {}
    assert official.run("result = one.delete(hard=True)") is None


async def test_deleting_is_soft_unless_hard(official: OfficialClient, native: AsyncClient) -> None:
    model_id = new_model(official)
    assert official.run("result = model.delete().status_code") == 200
    with pytest.raises(NotFound):
        await native.models.get(model_id)
    assert [one.id async for one in native.models.list(deleted=True)] == [model_id]
    assert official.run("result = model.delete(hard=True).status_code") == 200
    assert [one.id async for one in native.models.list(deleted=True)] == []


async def test_a_model_has_its_configuration_and_links(official: OfficialClient, native: AsyncClient) -> None:
    """Numbers may come as text, and stay as they came."""
    official.run("p = client.project(); p.create_project({'meta': {'name': 'P'}})")
    official.run("d = client.dataset(); d.create_dataset({'meta': {'name': 'D'}})")
    config = {"batchSize": "-1", "epochs": "3", "imageSize": 640, "patience": 100, "device": "cpu", "cache": "ram"}
    lineage = {"architecture": {"name": "yolo11n.yaml"}, "parent": {"name": "yolo11n.pt"}}
    fields = {"config": config, "lineage": lineage}
    official.run(f"fields = {fields!r}; fields |= {{'projectId': p.id, 'datasetId': d.id, 'meta': {{'name': 'M'}}}}")
    official.run("model = client.model(); model.create_model(fields)")
    assert official.run("result = model.data['config']") == config
    told = (
        "result = [model.get_architecture(), model.is_pretrained(), model.is_custom(), model.data['project'] == p.id]"
    )
    assert official.run(told) == ["yolo11n.yaml", True, False, True]
    record = await native.models.get(official.run("result = model.id"))
    assert (record.project_id, record.dataset_id) == tuple(official.run("result = [p.id, d.id]"))
    assert record.config == {
        "batch_size": "-1", "epochs": "3", "imgsz": 640, "patience": 100, "device": "cpu", "cache": "ram",
        "architecture": "yolo11n.yaml", "parent": "yolo11n.pt",
    }  # fmt: skip


def test_lists_have_pages(official: OfficialClient) -> None:
    """Forward to the end, where it stays, and back."""
    official.run("for n in range(5):\n    client.project().create_project({'meta': {'name': f'p{n}'}})")
    code = """
l = client.project_list(page_size=2)
seen = [[r["meta"]["name"] for r in l.results]]
for _ in range(3):
    l.next()
    seen.append([r["meta"]["name"] for r in l.results])
l.previous()
seen.append([r["meta"]["name"] for r in l.results])
result = [seen, l.total_pages, l.current_page]
"""
    forward = [["p0", "p1"], ["p2", "p3"], ["p4"]]
    assert official.run(code) == [[*forward, ["p4"], ["p2", "p3"]], 3, 1]
    assert official.run("result = [len(client.project().list(n, 2).json()['data']['results']) for n in range(4)]") == [
        2, 2, 1, 0,
    ]  # fmt: skip
    query = "l._get(query='p3'); result = [r['meta']['name'] for r in l.results]"
    assert official.run("l = client.project_list(page_size=2)\n" + query) == ["p3"]


def test_users_can_be_read(official: OfficialClient, door: str, served: RunningServer) -> None:
    me = httpx.get(f"{door}/v1/users", headers={"x-api-key": served.token}).json()["data"]
    assert [user["meta"]["name"] for user in me["results"]] == ["owner"]
    assert (
        official.run(f"result = client.user({me['results'][0]['id']!r}).read({me['results'][0]['id']!r}).status_code")
        == 200
    )
    assert official.run(f"result = client.user().read({MISSING!r})") is None


# --- training ---


async def test_weights_of_epochs_and_final_ones(official: OfficialClient, native: AsyncClient, tmp_path: Path) -> None:
    model_id = new_model(official)
    first, best, final = (os.urandom(3_000_000) for _ in range(3))
    for name, data in {"first.pt": first, "best-so-far.pt": best, "final.pt": final}.items():
        (tmp_path / name).write_bytes(data)
    assert official.run("model.upload_model(0, 'first.pt'); model.get_data(); result = model.is_resumable()") is True
    official.run("model.upload_model(1, 'best-so-far.pt', is_best=True); model.get_data()")
    read = (
        "import requests, hashlib\n"
        "result = hashlib.sha256(requests.get(model.get_weights_url({!r})).content).hexdigest()"
    )
    assert official.run(read.format("best")) == official.run(read.format("last")) == hashlib.sha256(best).hexdigest()
    assert official.run("result = [model.is_trained(), model.has_best_weights()]") == [False, True]
    official.run(f"r = model.upload_model(2, {str(tmp_path / 'final.pt')!r}, map=0.51, final=True)")
    assert official.run("model.get_data(); result = [r.json()['data']['size'], model.is_trained()]") == [
        3_000_000,
        True,
    ]
    found = [one async for one in (await native.models.get(model_id)).checkpoints.list()]
    facts = [(one.epoch, one.filename, one.is_best, one.is_final, one.metrics) for one in found]
    assert facts == [
        (0, "last.pt", False, False, {}),
        (1, "last.pt", False, False, {}),
        (2, "best.pt", True, True, {"map": 0.51}),
    ]
    await found[0].download(tmp_path / "back.pt")
    assert (tmp_path / "back.pt").read_bytes() == first


async def test_metrics(official: OfficialClient, native: AsyncClient) -> None:
    """Several epochs at once; numbers of Python or text; read back in order of the epochs."""
    model_id = new_model(official)
    code = """
a = model.upload_metrics({10: json.dumps({"loss": 0.5, "metrics/mAP50(B)": 1})})
b = model.upload_metrics({2: json.dumps({"loss": 1.5}), 3: json.dumps({"loss": 1.25})})
result = [a.status_code, b.status_code, model.get_metrics()]
"""
    expected = [
        {"epoch": 2, "metrics": {"loss": 1.5}},
        {"epoch": 3, "metrics": {"loss": 1.25}},
        {"epoch": 10, "metrics": {"loss": 0.5, "metrics/mAP50(B)": 1.0}},
    ]
    assert official.run(code) == [200, 200, expected]
    model = await native.models.get(model_id)
    assert [(one.name, one.step, one.value) async for one in model.metrics.list()] == [
        ("loss", 2, 1.5), ("loss", 3, 1.25), ("loss", 10, 0.5), ("metrics/mAP50(B)", 10, 1.0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "metrics",
    [{"1": "{broken"}, {"1": json.dumps({"loss": None})}, {"1": '{"loss": NaN}'}, {"first": "{}"}, {"1": "[]"}, {}],
    ids=str,
)
async def test_bad_metrics_are_refused_whole(
    official: OfficialClient, native: AsyncClient, door: str, served: RunningServer, metrics: dict[str, str]
) -> None:
    model_id = new_model(official)
    body = {"metrics": {"0": '{"loss": 1}', **metrics} if metrics else {}, "type": "metrics"}
    reply = httpx.post(f"{door}/v1/models/{model_id}", json=body, headers={"x-api-key": served.token})
    assert (reply.status_code, reply.json()["success"]) == (400, False)
    assert official.run(f"result = model.upload_metrics({metrics!r})") is None
    assert [one async for one in (await native.models.get(model_id)).metrics.list()] == []


async def test_heartbeats(official: OfficialClient, native: AsyncClient) -> None:
    """One agent, named by the server, whatever the number of beats; SIGTERM ends the program as its client wants."""
    model = await native.models.get(new_model(official))
    official.run("model.start_heartbeat(interval=0.05)")
    deadline = time.monotonic() + 20
    agents: list[Any] = []
    while not (agents and agents[0].beats >= 3) and time.monotonic() < deadline:
        agents = [one async for one in model.agents.list()]
    (agent,) = agents
    assert agent.id == official.run("result = model.hub_client.agent_id")
    assert agent.name.startswith("python-3.")
    assert agent.name.endswith("-local")
    assert (await model.refresh()).status == "training"
    official.run("model.stop_heartbeat()")
    assert official.run("import signal; result = signal.getsignal(signal.SIGTERM).__name__") == "_handle_signal"
    os.kill(official.pid, signal.SIGTERM)


# --- files of projects ---


async def test_a_project_gets_its_image(official: OfficialClient, native: AsyncClient, tmp_path: Path) -> None:
    (tmp_path / "face.png").write_bytes(PNG)
    (tmp_path / "text.png").write_bytes(b"no picture")
    code = "p = client.project(); p.create_project({'meta': {'name': 'P'}}); result = p.id"
    project = await native.projects.get(official.run(code))
    assert official.run("result = p.upload_image('text.png')") is None
    assert (await project.refresh()).image_filename is None
    assert official.run("result = p.upload_image('face.png').status_code") == 200
    project = await project.refresh()
    assert project.image_filename == "face.png"
    await project.download_image(tmp_path / "back.png")
    assert (tmp_path / "back.png").read_bytes() == PNG


async def test_a_dataset_gets_its_archive(official: OfficialClient, native: AsyncClient, tmp_path: Path) -> None:
    """Kept and offered for download also where nobody unpacks it, which the answer says."""
    with zipfile.ZipFile(tmp_path / "coco8.zip", "w") as archive:
        archive.writestr("images/train/a.jpg", os.urandom(500_000))
    (tmp_path / "text.zip").write_bytes(b"no archive")
    code = "d = client.dataset(); d.create_dataset({'meta': {'name': 'D'}}); result = d.id"
    dataset = await native.datasets.get(official.run(code))
    code = "result = [d.get_download_link(), d.upload_dataset('text.zip'), d.upload_dataset('gone.zip')]"
    assert official.run(code) == [
        None, None, None,
    ]  # fmt: skip
    told = official.run("result = d.upload_dataset('coco8.zip').json()")
    assert (told["success"], told["data"]["job"], "worker" in told["message"]) == (True, None, True)
    official.run(
        f"model = client.model(); model.create_model({{'meta': {{'name': 'M'}}, 'datasetId': {dataset.id!r}}})"
    )
    links = official.run("d.get_data(); model.get_data(); result = [d.get_download_link(), model.get_dataset_url()]")
    for link in links:
        assert httpx.get(link).content == (tmp_path / "coco8.zip").read_bytes()
    await dataset.download_archive(tmp_path / "back.zip")
    assert (tmp_path / "back.zip").read_bytes() == (tmp_path / "coco8.zip").read_bytes()


# --- what it cannot do ---


def test_refusals_have_their_reason_and_status(official: OfficialClient, door: str, served: RunningServer) -> None:
    """The client swallows them; whoever looks at the wire finds them."""
    for method, path, status in [
        ("GET", f"/v1/models/{MISSING}", 404),
        ("GET", "/v1/models/not-an-id", 404),
        ("PATCH", f"/v1/projects/{MISSING}", 404),
        ("POST", "/v1/models", 400),
        ("GET", "/v1/nothing", 404),
        ("PUT", "/v1/models", 405),
        ("GET", "/v1/models?limit=0", 400),
        ("GET", "/v1/models?limit=ten", 400),
        ("GET", "/v1/models?last_doc_id=nonsense", 400),
        ("DELETE", f"/v1/models/{MISSING}?hard=perhaps", 400),
        ("POST", f"/v1/models/{MISSING}/upload", 400),
    ]:
        reply = httpx.request(method, door + path, json={} if method in {"PATCH", "POST"} else None,
                              headers={"x-api-key": served.token})  # fmt: skip
        body = reply.json()
        assert (reply.status_code, body["success"], bool(body["message"])) == (status, False, True), (path, body)
    assert official.run(f"result = client.model({MISSING!r}).data") == {}


def test_the_door_is_shut_unless_named(tmp_path: Path) -> None:
    with RunningServer(tmp_path / "data") as server:
        assert httpx.post(f"{server.url}/doors/ultralytics/v1/auth").status_code == 404


@pytest.fixture
def own_port(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path / "data", doors=["ultralytics"], door_ports={"ultralytics": 0}) as server:
        yield server


def test_a_door_with_a_port_of_its_own_is_at_its_root(own_port: RunningServer) -> None:
    """And below the main port, too; URLs that it gives lead back to where it was asked."""
    root = own_port.door_urls["ultralytics"]
    assert root != own_port.url
    key = {"x-api-key": own_port.token}
    for url in (root, f"{own_port.url}/doors/ultralytics"):
        assert httpx.post(f"{url}/v1/auth", headers=key).json()["success"] is True
    assert httpx.get(f"{root}/v1/whoami", headers={"authorization": f"Bearer {own_port.token}"}).status_code == 404
    model = httpx.post(f"{root}/v1/models", json={"meta": {"name": "M"}}, headers=key).json()["data"]["id"]
    form = {"epoch": "0", "type": "epoch", "isBest": "True"}
    reply = httpx.post(f"{root}/v1/models/{model}/upload", data=form, files={"last.pt": b"weights"}, headers=key)
    assert reply.status_code == 200
    url = httpx.get(f"{root}/v1/models/{model}", headers=key).json()["data"]["weights"]
    assert url.startswith(f"{root}/objects/")
    assert httpx.get(url).content == b"weights"
