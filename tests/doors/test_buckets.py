"""Files through a door when objects are kept in a bucket: they pass through this machine and leave nothing there."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from asyncsdk import AsyncClient
from asyncsdk.errors import AsyncSDKError
from asyncsdk.server.objects.clouds.bucket import store_unavailable
from asyncsdk.server.objects.clouds.objects import CloudObjects
from tests.doors.conftest import HUB
from tests.doors.test_forms import BOUNDARY, FIELDS, TYPE, begin, form, kept, part, until
from tests.support.real.buckets import KINDS, CloudHome, cloud_home, google_server
from tests.support.real.fixtures import azurite_server, gcs_server, rclone_server, swift_server
from tests.support.server import RunningServer

__all__ = ["azurite_server", "gcs_server", "google_server", "rclone_server", "swift_server"]

MiB = 1024 * 1024
PNG = b"\x89PNG\r\n\x1a\n" + bytes(1000)


@pytest.fixture(params=[pytest.param(kind, marks=[pytest.mark.slow] * (kind == "swift")) for kind in KINDS])
def home(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> CloudHome:
    """Where the objects are."""
    return cloud_home(request.param, request, monkeypatch)


@pytest.fixture
def served(tmp_path: Path, home: CloudHome) -> Iterator[RunningServer]:
    """A platform whose objects are in a bucket, with its door open; whatever happens, none lie in its folder."""
    with RunningServer(tmp_path / "data", doors=[HUB], objects=home.location) as server:
        yield server
        assert kept(server) == []


@pytest.fixture
def http(served: RunningServer) -> Iterator[httpx.Client]:
    """Speaks to the door with the owner's key."""
    url = served.door_urls[HUB]
    with httpx.Client(base_url=url, headers={"x-api-key": served.token}, trust_env=False, timeout=60) as client:
        yield client


def new(http: httpx.Client, kind: str) -> str:
    made: str = http.post(f"/v1/{kind}", json={"meta": {"name": "N"}}).json()["data"]["id"]
    return made


def upload(http: httpx.Client, path: str, *parts: bytes) -> httpx.Response:
    return http.post(f"/v1/{path}/upload", content=form(*parts), headers=TYPE)


def pieces(home: CloudHome) -> int:
    """Return how many objects the bucket has, those on their way included."""
    return home.count()


async def test_files_of_every_kind_arrive(
    served: RunningServer, http: httpx.Client, home: CloudHome, tmp_path: Path
) -> None:
    """Weights in several pieces of whatever the bucket takes at once, a small image, an archive."""
    model, project, dataset = new(http, "models"), new(http, "projects"), new(http, "datasets")
    weights = os.urandom(20 * MiB + 1)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    data = (tmp_path / "a.zip").read_bytes()
    for path, parts in {
        f"models/{model}": [*FIELDS, part("last.pt", weights, "last.pt")],
        f"projects/{project}": [part("file", PNG, "face.png")],
        f"datasets/{dataset}": [part("a.zip", data, "a.zip")],
    }.items():
        reply = upload(http, path, *parts)
        assert reply.status_code == 200, reply.text
    assert pieces(home) == 3
    async with AsyncClient(served.url, token=served.token, home=tmp_path / "home") as client:
        await (await client.models.get(model)).download_checkpoint(tmp_path / "last.pt")
        await (await client.datasets.get(dataset)).download_archive(tmp_path / "back.zip")
        assert (await client.projects.get(project)).image_filename == "face.png"
    url = served.door_urls[HUB]
    async with AsyncClient(platform=HUB, url=url, api_key=served.token, home=tmp_path / "adapter") as client:
        await (await client.models.get(model)).download_checkpoint(tmp_path / "best.pt")
        await (await client.datasets.get(dataset)).download_archive(tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == data
    assert (tmp_path / "best.pt").read_bytes() == (tmp_path / "last.pt").read_bytes() == weights
    assert (tmp_path / "back.zip").read_bytes() == data


def test_what_is_refused_leaves_nothing(served: RunningServer, http: httpx.Client, home: CloudHome) -> None:
    """By its form, by its record, or because nobody is there any more to hear of it."""
    model, project = new(http, "models"), new(http, "projects")
    wrong = [part("last.pt", b"x" * MiB, "last.pt"), part("epoch", b"zero"), *FIELDS[1:]]
    assert upload(http, f"models/{model}", *wrong).status_code == 400
    assert upload(http, f"projects/{project}", part("file", b"no image", "a.png")).status_code == 400
    before = open_files(served)
    data = form(*FIELDS, part("last.pt", os.urandom(4 * MiB), "last.pt"))[: 3 * MiB]
    key = {"x-api-key": served.token}
    with begin(served.door_urls[HUB], f"/v1/models/{model}/upload", key, data, 9 * MiB):
        until(lambda: open_files(served) > before)
    until(lambda: open_files(served) == before)
    assert pieces(home) == 0


def open_files(served: RunningServer) -> int:
    """Return how many files without a name this process has in the data folder."""
    links = list(Path("/proc/self/fd").iterdir())
    found = [str(link.readlink()) for link in links if link.is_symlink()]
    return sum(name.startswith(f"{served.folder}/") and name.endswith(" (deleted)") for name in found)


@pytest.mark.parametrize("home", ["rclone"], indirect=True)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_bucket_that_fails_is_told_and_leaves_nothing(
    served: RunningServer, http: httpx.Client, home: CloudHome, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Also when it has the object and only its answer is lost."""
    real = CloudObjects.put

    def put(self: CloudObjects, *arguments: Any) -> None:
        if when == "after":
            real(self, *arguments)
            assert pieces(home) == 1
        raise store_unavailable("PutObject")

    model = new(http, "models")
    monkeypatch.setattr(CloudObjects, "put", put)
    reply = upload(http, f"models/{model}", *FIELDS, part("last.pt", b"x" * MiB, "last.pt"))
    assert (reply.status_code, reply.json()["code"]) == (503, "store_unavailable")
    assert pieces(home) == 0
    monkeypatch.undo()


@pytest.mark.parametrize("home", ["rclone"], indirect=True)
def test_a_removal_that_fails_hides_nothing(
    served: RunningServer, http: httpx.Client, home: CloudHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client hears what ended its request; the sweep has the rest."""

    def remove(self: CloudObjects, objects: Any) -> None:
        error: AsyncSDKError = store_unavailable("DeleteObjects")
        raise error

    project = new(http, "projects")
    monkeypatch.setattr(CloudObjects, "remove", remove)
    assert upload(http, f"projects/{project}", part("file", b"no image", "a.png")).status_code == 400
    assert pieces(home) == 1


@pytest.mark.parametrize("home", ["rclone", "google"], indirect=True)
def test_large_files_pass_in_constant_memory(home: CloudHome, tmp_path: Path) -> None:
    """What the server needs for more of them, when each thread that reads something back has been busy before."""
    folder = tmp_path / "data"
    command = [sys.executable, "-m", "asyncsdk", "serve", "--data", str(folder), "--port", "0", "--no-worker"]
    command += ["--objects", str(home.location), "--objects-endpoint", home.location.endpoint]
    command += ["--door-port", f"{HUB}=0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            url = json.loads(running.stdout.readline())["doors"][HUB]
            key = {"x-api-key": (folder / "token").read_text().strip()}
            with httpx.Client(base_url=url, headers=key, trust_env=False, timeout=120) as http:
                model = new(http, "models")
                peaks = [_peak(http, running.pid, model, size) for size in (64, 128)]
            assert peaks[1] - peaks[0] < 24 * MiB
        finally:
            running.send_signal(signal.SIGTERM)
            running.wait(30)


def _peak(http: httpx.Client, pid: int, model: str, size: int) -> int:
    """Upload weights of *size* MiB and return the most memory that the server ever had."""
    piece = os.urandom(MiB)

    def body() -> Iterator[bytes]:
        yield b"".join(FIELDS) + part("last.pt", b"", "last.pt")[:-2]
        for _ in range(size):
            yield piece
        yield b"\r\n--" + BOUNDARY + b"--\r\n"

    reply = http.post(f"/v1/models/{model}/upload", content=body(), headers=TYPE)
    assert reply.status_code == 200, reply.text
    status = Path(f"/proc/{psutil.Process(pid).pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024
