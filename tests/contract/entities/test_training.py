"""What training scripts do beside moving weights: heartbeats, links, URLs, deleting softly, pictures, people, login."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
import orjson
import pytest

from asyncsdk import AsyncClient, Client, ItemUpload
from asyncsdk.domain.filters import Condition
from asyncsdk.errors import ConfigError, Conflict, DestinationUnwritable, NotFound, SourceNotFound, Unauthenticated
from asyncsdk.server.backend import Backend
from tests.support.ports import held_port
from tests.support.server import RunningServer, ServedProcess

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(250))
WEIGHTS = bytes(range(256)) * 100


async def read_url(url: str) -> bytes:
    """Read a URL as any program would, without a token."""
    parts = urlsplit(url)
    if parts.scheme == "file":
        return await asyncio.to_thread(Path(unquote(parts.path)).read_bytes)
    async with httpx.AsyncClient(trust_env=False) as client:
        reply = await client.get(url)
    assert reply.is_success, reply.text
    return reply.content


# --- heartbeats ---


async def test_a_heartbeat_shows_in_the_model(client: AsyncClient) -> None:
    model = await client.models.create("m")
    async with model.heartbeat(interval=600, name="me") as beating:
        (agent,) = await model.agents.list().to_list()
        assert (agent.id, agent.name, agent.status) == (beating.agent_id, "me", "alive")
        assert (await model.refresh()).status == "training"
    assert [agent.status async for agent in model.agents.list()] == ["stopped"]
    async with beating:
        assert (await model.refresh()).status == "training"
    assert [agent.beats async for agent in model.agents.list()] == [4]
    assert await model.agents.list(filter=Condition("status", "eq", "alive")).to_list() == []


async def test_a_heartbeat_for_nobody_is_refused(client: AsyncClient) -> None:
    model = await client.models.create("m")
    await model.delete()
    with pytest.raises(NotFound):
        await model.heartbeat().start()


def test_beats_go_on_while_the_program_works(tmp_path: Path) -> None:
    """The blocking twin beats beside code that never looks up; it is the same agent all the time."""
    with Client(data=tmp_path) as client:
        model = client.models.create("m")
        with model.heartbeat(interval=0.05) as beating:
            while True:  # the test's own time limit ends it
                (agent,) = model.agents.list().to_list()
                if agent.beats >= 4:
                    break
                sum(range(100_000))
            assert beating.is_beating
        (agent,) = model.agents.list().to_list()
        assert (agent.status, agent.id, beating.is_beating) == ("stopped", beating.agent_id, False)


def test_a_server_that_comes_back_hears_the_same_agent(tmp_path: Path) -> None:
    """The server is killed and comes back: beats are lost, training goes on, the agent is not a second one."""
    with (
        held_port() as port,
        ServedProcess(tmp_path, port) as server,
        Client(server.url, token=server.token) as client,
    ):
        model = client.models.create("m")
        with model.heartbeat(interval=0.05) as beating:
            agent_id = beating.agent_id
            server.kill()
            while not beating.missed:  # the test's own time limit ends it
                time.sleep(0.01)
            with ServedProcess(tmp_path, port):
                while beating.missed:
                    time.sleep(0.01)
                assert [agent.id for agent in model.agents.list()] == [agent_id]
                beating.stop()
                assert [agent.status for agent in model.agents.list()] == ["stopped"]


# --- models ---


async def test_a_model_knows_its_dataset_and_architecture(client: AsyncClient) -> None:
    dataset = await client.datasets.create("photos")
    model = await client.models.create("m", dataset=dataset, config={"architecture": "yolo11n", "epochs": 3})
    assert (model.dataset_id, model.architecture, model.status) == (dataset.id, "yolo11n", "created")
    other = await client.datasets.create("other")
    assert (await model.update(dataset=other.id)).dataset_id == other.id
    assert (await client.models.create("n", config={"parent": "m"})).architecture == "m"
    assert (await client.models.create("o", config={"architecture": 7})).architecture is None


async def test_weights_can_be_read_by_their_url(client: AsyncClient) -> None:
    model = await client.models.create("m")
    with pytest.raises(NotFound):
        await model.weights_url()
    await model.upload_checkpoint(WEIGHTS, epoch=0, is_best=True)
    await model.upload_checkpoint(b"last", epoch=1)
    assert await read_url(await model.weights_url()) == WEIGHTS
    assert await read_url(await model.weights_url("last")) == b"last"
    assert await read_url(await model.weights_url(0)) == WEIGHTS
    found = await model.refresh()
    assert (found.status, found.is_resumable, found.has_best, found.has_final) == ("training", True, True, False)


async def test_a_dataset_without_an_archive_has_no_url(client: AsyncClient) -> None:
    model = await client.models.create("m")
    with pytest.raises(NotFound, match="linked to no dataset"):
        await model.dataset_url()
    model = await model.update(dataset=await client.datasets.create("photos"))
    with pytest.raises(NotFound, match="no archive"):
        await model.dataset_url()


async def test_the_archive_of_the_dataset_can_be_read_by_its_url(tmp_path: Path) -> None:
    """And goes with the dataset, as every object that nothing points to."""
    async with AsyncClient(data=tmp_path) as client:
        dataset = await client.datasets.create("photos")
        (await dataset.upload([ItemUpload(b"a zip file", "archive.zip")])).raise_for_failures()
        model = await client.models.create("m", dataset=dataset)
        with closing(sqlite3.connect(tmp_path / "asyncsdk.db")) as connection, connection:
            connection.execute("UPDATE blobs SET references_count = references_count + 1")
            connection.execute("UPDATE datasets SET archive_blob_id = (SELECT id FROM blobs), archive_filename = 'a'")
        assert await read_url(await model.dataset_url()) == b"a zip file"
        await dataset.delete()
        assert [path for path in (tmp_path / "objects").rglob("*") if path.is_file()] == []


# --- soft deletes ---


async def test_what_is_deleted_softly_comes_back(client: AsyncClient) -> None:
    project = await client.projects.create("p")
    dataset = await client.datasets.create("d", project=project)
    model = await client.models.create("m", project=project, dataset=dataset)
    await model.delete(hard=False)
    assert [found.id async for found in client.models.list(deleted=True)] == [model.id]
    assert (await model.restore()).id == model.id
    await client.datasets.delete(dataset, hard=False)
    with pytest.raises(NotFound):
        await dataset.upload([ItemUpload(b"bytes", "a.jpg")])
    assert (await client.datasets.restore(dataset.id)).name == "d"
    await project.delete(hard=False)
    assert not await client.projects.exists("p")
    assert [found.name async for found in client.projects.list(deleted=True)] == ["p"]
    with pytest.raises(Conflict) as closed:
        await client.models.restore(model)
    assert closed.value.ids == (project.id,)
    await client.projects.restore(project)
    assert [found.id async for found in client.models.list(project=project)] == [model.id]
    assert [found.id async for found in client.datasets.list(project=project)] == [dataset.id]
    await model.delete()
    with pytest.raises(NotFound):
        await model.restore()


# --- pictures ---


async def test_a_picture_comes_back_byte_for_byte(client: AsyncClient, tmp_path: Path) -> None:
    project = await client.projects.create("p")
    with pytest.raises(NotFound, match="no image"):
        await project.download_image(tmp_path)
    cover = tmp_path / "cover.png"
    cover.write_bytes(PNG)
    assert (await project.upload_image(cover)).image_filename == "cover.png"
    there = tmp_path / "there"
    there.mkdir()
    assert await project.download_image(there) == there / "cover.png"
    assert (there / "cover.png").read_bytes() == PNG
    jpeg = b"\xff\xd8\xff" + bytes(1000)
    assert (await project.upload_image(jpeg)).image_filename == "image.jpg"
    assert (await project.download_image(tmp_path / "copy.jpg")).read_bytes() == jpeg


async def test_what_is_no_picture_is_refused_before_it_moves(client: AsyncClient, tmp_path: Path) -> None:
    project = await client.projects.create("p")
    text = tmp_path / "notes.png"
    text.write_text("only its name says that it is a picture")
    for source in (b"", b"text", text):
        with pytest.raises(ConfigError, match="PNG"):
            await project.upload_image(source)
    with pytest.raises(ConfigError, match="at most"):
        await project.upload_image(PNG + bytes(32 * 1024 * 1024))
    with pytest.raises(SourceNotFound):
        await project.upload_image(tmp_path / "missing.png")
    assert (await project.refresh()).image_filename is None


# --- people ---


async def test_users_are_found(client: AsyncClient) -> None:
    me = await client.whoami()
    assert [user.name async for user in client.users.list()] == ["owner"]
    assert (await client.users.get(me.id)).id == me.id
    assert (await client.users.get(name="owner")).role == "owner"
    assert (await client.users.get(me)).name == "owner"
    with pytest.raises(NotFound, match="nobody"):
        await client.users.get(name="nobody")
    with pytest.raises(ConfigError):
        await client.users.get("no id")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    with RunningServer(tmp_path / "server") as server:
        yield server


def token_of(folder: Path, name: str) -> str:
    backend = Backend.open(folder)
    try:
        return backend.create_token(backend.create_user(name, "viewer").user_id, "test")
    finally:
        backend.close()


@pytest.mark.parametrize("field", ["token", "api_key"])
async def test_login_is_checked_and_kept(server: RunningServer, tmp_path: Path, home: Path, field: str) -> None:
    async with AsyncClient(server.url) as client:
        user = await client.login(**{field: server.token})
        assert user.name == "owner"
        assert (await client.whoami()).id == user.id
        profile = home / "profile.json"
        assert orjson.loads(profile.read_bytes()) == {"url": server.url, "token": server.token}
        assert profile.stat().st_mode & 0o077 == 0
        await client.login(token=token_of(tmp_path / "server", "guest"))
        assert (await client.whoami()).name == "guest"
    async with AsyncClient() as later:
        assert (await later.whoami()).name == "guest"


async def test_a_login_that_fails_changes_nothing(server: RunningServer, home: Path) -> None:
    async with AsyncClient(server.url, token=server.token) as client:
        with pytest.raises(Unauthenticated):
            await client.login(token="wrong")
        assert (await client.whoami()).name == "owner"
        for facts in ({}, {"token": "a", "api_key": "b"}, {"token": " "}):
            with pytest.raises(ConfigError):
                await client.login(**facts)
    assert not (home / "profile.json").exists()


async def test_a_login_that_cannot_be_kept_is_told(server: RunningServer, home: Path) -> None:
    async with AsyncClient(server.url, token=server.token) as client:
        (home / "profile.json").mkdir(parents=True)
        with pytest.raises(DestinationUnwritable):
            await client.login(token=server.token)
        assert (await client.whoami()).name == "owner"


async def test_the_embedded_platform_needs_no_login(tmp_path: Path) -> None:
    async with AsyncClient(data=tmp_path) as client:
        with pytest.raises(ConfigError, match="no login"):
            await client.login(token="any")


def test_the_blocking_client_logs_in_too(server: RunningServer) -> None:
    with Client(server.url) as client:
        assert client.login(api_key=server.token).name == "owner"
        assert [user.name for user in client.users.list()] == ["owner"]
