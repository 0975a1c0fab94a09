"""The adapter: what it claims it does, what it cannot say it refuses, and what happens on a bad line."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from asyncsdk import AsyncClient
from asyncsdk.domain.filters import AllOf, Condition, Not
from asyncsdk.domain.ids import make_id
from asyncsdk.errors import (
    BadRequest,
    ConfigError,
    Conflict,
    ConnectionFailed,
    MalformedResponse,
    NotFound,
    RateLimited,
    ServerError,
    Unauthenticated,
    UnsupportedOperation,
)
from asyncsdk.platforms.ultralytics import calls
from asyncsdk.platforms.ultralytics.adapter import UltralyticsPlatform
from asyncsdk.protocol import all_messages
from asyncsdk.protocol.base import Empty
from asyncsdk.protocol.checkpoints import CommitCheckpoint, PrepareCheckpoint, Retention
from asyncsdk.protocol.metrics import LogMetrics, MetricEntry
from asyncsdk.protocol.models import CreateModel, GetModel, UpdateModel
from asyncsdk.protocol.projects import CreateProject, DeleteProject, GetProject, ListProjects
from asyncsdk.protocol.uploads import RenewEntry, RenewUploads
from tests.doors.conftest import HUB
from tests.support.server import RunningServer

KEY = "a-key-that-nobody-may-see"
ID = "0" * 23 + "1"
DATA = {"id": ID, "meta": {"name": "P"}}


@pytest.fixture
async def client(served: RunningServer, door: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(platform=HUB, url=door, api_key=served.token) as client:
        yield client


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits before repetitions, which are not really waited for."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(calls, "sleep", sleep)
    return waited


async def ask(message: Any, *replies: httpx.Response | Exception) -> tuple[Any, list[httpx.Request]]:
    """Return what comes of a message when the service answers so, or the error, and the requests."""
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        reply = replies[min(len(seen), len(replies)) - 1]
        if isinstance(reply, Exception):
            raise reply
        return httpx.Response(reply.status_code, content=reply.content, headers=reply.headers)

    platform = UltralyticsPlatform("http://service.example", KEY, transport=httpx.MockTransport(handler))
    try:
        found: Any = await platform.send(message)
    except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
        found = error
    await platform.aclose()
    return found, seen


def json(value: Any, status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, json=value, headers=headers)


GOOD = json({"success": True, "data": DATA})


# --- what it claims ---


def test_what_it_does_not_claim_is_refused_by_name() -> None:
    others = [message for message in all_messages() if not UltralyticsPlatform.supports(message)]
    assert len(others) > 30
    assert set(UltralyticsPlatform.notes) <= set(UltralyticsPlatform.capabilities)


async def test_everything_of_an_entity_comes_back(client: AsyncClient) -> None:
    project = await client.projects.create("faces", description="of people", metadata={"a": [1, {"b": True}]})
    assert (project.name, project.description, project.metadata) == ("faces", "of people", {"a": [1, {"b": True}]})
    dataset = await client.datasets.create("photos", project=project)
    config = {"batch_size": 16, "imgsz": 640, "optimizer": "SGD", "architecture": "y.yaml", "dataset": "coco8.yaml"}
    model = await client.models.create("M", project=project, dataset=dataset, config=config, metadata={"m": 1})
    assert (model.project_id, model.dataset_id, model.config) == (project.id, dataset.id, config)
    assert await model.refresh() == model
    assert model.updated_at.year >= 2024
    changed = await model.update(config={"imgsz": 320}, metadata={"n": 2}, description="new")
    assert (changed.config, changed.metadata, changed.description) == ({"imgsz": 320}, {"n": 2}, "new")
    with pytest.raises(Conflict):
        await model.update(name="too late")
    assert (await client.models.get(name="M", project=project)).id == model.id
    assert (await client.projects.create("faces", exist_ok=True)).id == project.id
    assert (await client.datasets.create("photos", project=project, exist_ok=True)).id == dataset.id
    with pytest.raises(Conflict) as taken:
        await client.projects.create("faces")
    assert taken.value.ids == (project.id,)


async def test_lists_are_filtered_here(client: AsyncClient) -> None:
    """Whatever the number of pages that it takes."""
    for number in range(7):
        await client.projects.create(f"p{number}", metadata={"even": number % 2 == 0})
    assert [one.name async for one in client.projects.list()] == [f"p{number}" for number in range(7)]
    even = Condition("metadata.even", "eq", True)
    pages = [page async for page in client.projects.list(filter=even).pages(2)]
    assert [[one.name for one in page.entries] for page in pages] == [["p0", "p2"], ["p4", "p6"]]
    late = AllOf([Condition("name", "ge", "p3"), Not(even)])
    assert [one.name async for one in client.projects.list(filter=late)] == ["p3", "p5"]
    assert [one.name async for one in client.projects.list(filter=late, limit=1)] == ["p3"]
    with pytest.raises(BadRequest, match="colour"):
        await client.projects.list(filter=Condition("colour", "eq", "red")).to_list()


async def test_weights_go_up_and_come_back(client: AsyncClient, tmp_path: Path) -> None:
    """Verified both ways; from paths, memory and streams."""
    model = await client.models.create("M")
    first, last = os.urandom(5_000_000), os.urandom(100)
    (tmp_path / "a.pt").write_bytes(first)
    made = await model.upload_checkpoint(tmp_path / "a.pt", epoch=0, is_best=True)
    assert (made.filename, made.size_bytes, made.is_best) == ("last.pt", 5_000_000, True)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, 100, 10):
            yield last[start : start + 10]

    await model.upload_checkpoint(pieces(), epoch=1)
    for which, data in (("best", first), ("last", last)):
        found = await model.download_checkpoint(tmp_path / which, which=which)  # type: ignore[arg-type]
        assert (tmp_path / which).read_bytes() == data
        assert found.size_bytes == len(data)
        assert (await model.checkpoints.get(found.id)).crc32c == found.crc32c
    with pytest.raises(NotFound):
        await model.checkpoints.get(which="final")
    final = await model.upload_checkpoint(last, epoch=2, is_final=True, metrics={"map": 0.5})
    assert (await model.refresh()).status == "trained"
    assert (await model.checkpoints.get(which="final")).id == final.id
    with pytest.raises(NotFound):
        await model.checkpoints.get(make_id())


async def test_a_project_image(client: AsyncClient, tmp_path: Path) -> None:
    project = await client.projects.create("P")
    (tmp_path / "face.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    await project.upload_image(tmp_path / "face.png")
    assert (await project.refresh()).image_filename == "face.png"


async def test_metrics_and_heartbeat(client: AsyncClient, served: RunningServer) -> None:
    model = await client.models.create("M")
    async with model.heartbeat(on_sigterm=False, interval=0.05), model.metrics.batched(interval=0.01) as metrics:
        for step in range(5):
            metrics.log({"loss": 1 / (step + 1), "map": step}, step=step)
    assert [(one.name, one.count, one.last_value) async for one in model.metrics.series()] == [
        ("loss", 5, 0.2), ("map", 5, 4.0),
    ]  # fmt: skip
    assert len(await model.metrics.list(filter=Condition("name", "eq", "map")).to_list()) == 5
    assert [one.step async for one in model.metrics.list(sort=["-step"], limit=2)] == [4, 4]
    assert (await model.refresh()).status == "training"
    async with AsyncClient(served.url, token=served.token) as native:
        agents = [one async for one in (await native.models.get(model.id)).agents.list()]
    assert len(agents) == 1


async def test_a_bad_number_is_told_and_the_others_are_stored(client: AsyncClient) -> None:
    model = await client.models.create("M")
    entries = (MetricEntry(name="a", step=1, value=None), MetricEntry(name="b", step=1, value=2.0))
    reply = await client.send(LogMetrics(model_id=model.id, entries=entries))
    assert (reply.accepted, [problem.index for problem in reply.problems]) == (1, [0])
    assert [one.name async for one in model.metrics.list()] == ["b"]


async def test_users(client: AsyncClient) -> None:
    me = await client.whoami()
    assert (me.name, me.role) == ("owner", "owner")
    assert [one.id async for one in client.users.list()] == [me.id]
    assert (await client.users.get(me.id)).name == "owner"


# --- what it cannot say ---

CANNOT: list[Any] = [
    CreateModel(name="M", labels={"cat": 1}),
    CreateModel(name="M", framework="torch"),
    CreateModel(name="M", retention=Retention(keep_last=1)),
    UpdateModel(model_id=ID, labels={"cat": 1}),
    ListProjects(sort=("name",)),
    ListProjects(deleted=True),
    PrepareCheckpoint(model_id=ID),
    PrepareCheckpoint(model_id=ID, epoch=1, metadata={"a": 1}),
    PrepareCheckpoint(model_id=ID, epoch=1, metrics={"map": 0.5}),
    PrepareCheckpoint(model_id=ID, epoch=1, is_final=True, metrics={"map": 0.5, "loss": 1}),
    LogMetrics(model_id=ID, entries=(MetricEntry(name="a", value=1.0),)),
]


@pytest.mark.parametrize("message", CANNOT, ids=lambda message: type(message).__name__)
async def test_what_the_wire_has_no_place_for_is_refused_unsent(message: Any) -> None:
    """Nothing is left out silently."""
    error, seen = await ask(message, GOOD)
    assert isinstance(error, UnsupportedOperation)
    assert seen == []


@pytest.mark.parametrize("metadata", [{"weights": 1}, {"id": "x"}, {"a": None}])
async def test_metadata_that_would_mean_something_else_are_refused(metadata: dict[str, Any]) -> None:
    error, seen = await ask(CreateProject(name="P", metadata=metadata), GOOD)
    assert isinstance(error, BadRequest)
    assert seen == []


async def test_uploads_of_another_client_begin_anew() -> None:
    """Also after a restart: what the journal knows is not known here."""
    key = f"{ID}-{'0' * 32}"
    entry = RenewEntry(key=key, size_bytes=1)
    commit = CommitCheckpoint(model_id=ID, checkpoint_id=ID, key=key, size_bytes=1, crc32c="0" * 8, epoch=1)
    for message in (RenewUploads(scope_id=ID, entries=(entry,)), commit):
        assert isinstance((await ask(message, GOOD))[0], NotFound)


# --- a bad line ---


async def test_the_key_goes_along_and_is_seen_nowhere() -> None:
    error, (request,) = await ask(GetProject(project_id=ID), json({"message": "no", "success": False}, 401))
    assert isinstance(error, Unauthenticated)
    assert request.headers["x-api-key"] == KEY
    assert KEY not in f"{error!r} {error.body} {UltralyticsPlatform('http://service.example', KEY)!r}"


@pytest.mark.parametrize("trouble", [json({}, 503), httpx.ReadError("reset"), json({}, 429, **{"retry-after": "7"})])
async def test_reading_is_repeated(trouble: Any, waits: list[float]) -> None:
    found, seen = await ask(GetProject(project_id=ID), trouble, trouble, GOOD)
    assert found.name == "P"
    assert len(seen) == 3
    if isinstance(trouble, httpx.Response) and trouble.status_code == 429:
        assert [7 < seconds <= 7.7 for seconds in waits] == [True, True]  # as asked, and up to a tenth more


@pytest.mark.parametrize(
    ("trouble", "requests", "error"),
    [
        (httpx.ConnectError("refused"), 4, ConnectionFailed),
        (httpx.ReadError("reset"), 1, ConnectionFailed),
        (json({}, 503), 1, ServerError),
        (json({}, 429), 4, RateLimited),
        (json({}, 400), 1, BadRequest),
    ],
)
async def test_creating_is_repeated_only_when_it_was_not_heard(trouble: Any, requests: int, error: type) -> None:
    found, seen = await ask(CreateProject(name="P"), trouble)
    assert (type(found), len(seen)) == (error, requests)


async def test_a_repeated_delete_that_finds_nothing_has_worked() -> None:
    found, _ = await ask(DeleteProject(project_id=ID), httpx.ReadError("reset"), json({}, 404))
    assert found == Empty()
    found, _ = await ask(DeleteProject(project_id=ID), json({"message": "no project"}, 404))
    assert isinstance(found, NotFound)


@pytest.mark.parametrize(
    "reply",
    [
        httpx.Response(200, text="<html>"),
        json([]),
        json({"success": True}),
        json({"success": False, "data": DATA, "message": "no luck"}),
        json({"data": {"id": "N1GSvm4LZ9LpKbV9MB6V", "meta": {"name": "P"}}}),
        json({"data": {"meta": {"name": "P"}}}),
    ],
)
async def test_answers_that_make_no_sense_are_told(reply: httpx.Response) -> None:
    """An id of another form leads nowhere: said at once."""
    error, _ = await ask(GetProject(project_id=ID), reply)
    assert isinstance(error, MalformedResponse)


async def test_redirects_are_not_followed() -> None:
    away = httpx.Response(307, headers={"location": "http://elsewhere.example/"})
    error, (request,) = await ask(GetProject(project_id=ID), away)
    assert isinstance(error, MalformedResponse)
    assert request.url.host == "service.example"


async def test_weights_that_the_service_does_not_have_were_not_uploaded() -> None:
    """An answer is not taken for a success when the model says otherwise."""
    model = {"data": {**DATA, "project": ID, "has_last_weights": False, "has_best_weights": False}}
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return json(model)

    platform = UltralyticsPlatform("http://service.example", KEY, transport=httpx.MockTransport(handler))
    prepared = await platform.send(PrepareCheckpoint(model_id=ID, epoch=1))
    commit = CommitCheckpoint(model_id=ID, checkpoint_id=ID, key=prepared.key, size_bytes=1, crc32c="0" * 8, epoch=1)
    with pytest.raises(MalformedResponse, match="none"):
        await platform.send(commit)
    await platform.aclose()


async def test_times_that_are_not_told_are_the_beginning_of_time() -> None:
    found, _ = await ask(GetModel(model_id=ID), json({"data": {**DATA, "project": ID}}))
    assert found.created_at == datetime(1970, 1, 1, tzinfo=UTC)


# --- settings ---


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"platform": "nobody", "url": "http://x", "api_key": "k"}, "there is no platform"),
        ({"platform": HUB, "api_key": "k"}, "url="),
        ({"platform": "rest"}, "url="),
        ({"platform": "embedded", "url": "http://x", "token": "t"}, "embedded"),
        ({"platform": HUB, "url": "http://x", "api_key": "two words"}, "printable"),
    ],
)
async def test_settings_that_make_no_sense(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        async with AsyncClient(**settings) as client:  # type: ignore[arg-type]
            await client.projects.list().to_list()


async def test_settings_come_from_the_environment(
    served: RunningServer, door: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCSDK_PLATFORM", HUB)
    monkeypatch.setenv("ASYNCSDK_URL", door)
    with pytest.raises(Unauthenticated, match="ASYNCSDK_API_KEY"):
        async with AsyncClient() as client:
            await client.projects.list().to_list()
    monkeypatch.setenv("ASYNCSDK_API_KEY", served.token)
    async with AsyncClient() as client:
        assert (await client.projects.create("P")).name == "P"
        assert served.token not in repr(client.settings)


async def test_a_key_of_one_server_never_goes_to_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ASYNCSDK_URL", "http://one.example")
    monkeypatch.setenv("ASYNCSDK_API_KEY", KEY)
    async with AsyncClient(platform=HUB, url="http://other.example") as client:
        assert client.settings.api_key is None
    async with AsyncClient(platform=HUB) as client:
        assert client.settings.api_key == KEY
    monkeypatch.setenv("ASYNCSDK_PLATFORM", HUB)
    async with AsyncClient(data=tmp_path / "data") as client:
        assert (await client.projects.create("P")).name == "P"
