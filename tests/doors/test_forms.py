"""Forms at a door: whole or nothing, in constant memory, whatever comes in whatever pieces."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsdk.errors import BadRequest
from asyncsdk.server.doors.forms import FileHead, read_form
from tests.support.server import RunningServer

BOUNDARY = b"0123456789abcdef"
MiB = 1024 * 1024


def part(name: str, data: bytes, file_name: str | None = None) -> bytes:
    file = "" if file_name is None else f'; filename="{file_name}"'
    head = f'--{BOUNDARY.decode()}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + data + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"


FIELDS = (part("epoch", b"0"), part("type", b"epoch"), part("isBest", b"True"))
TYPE = {"content-type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}


@pytest.fixture
def key(served: RunningServer) -> dict[str, str]:
    return {"x-api-key": served.token}


@pytest.fixture
def model_id(served: RunningServer, door: str, key: dict[str, str]) -> str:
    made = httpx.post(f"{door}/v1/models", json={"meta": {"name": "M"}}, headers=key)
    model_id: str = made.json()["data"]["id"]
    return model_id


def kept(served: RunningServer) -> list[str]:
    return [path.name for path in (served.folder / "objects").rglob("*") if path.is_file()]


# --- through the door ---


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (form(*FIELDS, part("last.pt", b"x" * 100, "last.pt")), 200),
        (form(part("last.pt", b"x" * 100, "last.pt"), *FIELDS), 200),
        (form(*FIELDS, part("last.pt", b"", "last.pt")), 200),
        (form(part("last.pt", b"x" * 100, "last.pt"), part("epoch", b"zero"), *FIELDS[1:]), 400),
        (form(part("last.pt", b"x" * 100, "last.pt"), *FIELDS[1:]), 400),
        (form(part("epoch", b"-1"), *FIELDS[1:], part("last.pt", b"x", "last.pt")), 400),
        (form(FIELDS[0], part("type", b"other"), part("last.pt", b"x", "last.pt")), 400),
        (form(FIELDS[0], part("type", b"final"), part("map", b"nan"), part("best.pt", b"x", "best.pt")), 400),
        (form(*FIELDS), 400),
        (form(*FIELDS, part("a", b"x" * 3 * MiB, "a"), part("b", b"y" * 3 * MiB, "b")), 400),
        (form(*FIELDS, part("last.pt", b"x" * 3 * MiB, "last.pt"))[:-30], 400),
        (form(*FIELDS, part("note", b"x" * 70_000), part("last.pt", b"x", "last.pt")), 413),
        (form(*FIELDS, *(part(f"f{n}", b"") for n in range(101)), part("last.pt", b"x", "last.pt")), 413),
        (form(*FIELDS, *(part(f"f{n}" * 1000, b"") for n in range(40)), part("last.pt", b"x", "last.pt")), 413),
        (form(part("epoch", b"9" * 5000), *FIELDS[1:], part("last.pt", b"x", "last.pt")), 400),
        (form(*FIELDS, b"--" + BOUNDARY + b"\r\nX-Nothing: 1\r\n\r\nx\r\n"), 400),
        (b"no form at all", 400),
        (b"", 400),
    ],
)
def test_a_form_is_taken_whole_or_not_at_all(
    served: RunningServer, door: str, key: dict[str, str], model_id: str, body: bytes, status: int
) -> None:
    url = f"{door}/v1/models/{model_id}/upload"
    reply = httpx.post(url, content=body, headers={**key, **TYPE})
    assert (reply.status_code, reply.json()["success"]) == (status, status == 200)
    assert len(kept(served)) == (status == 200)
    if status == 200:
        assert reply.headers["x-amz-checksum-crc32c"]


def test_another_type_of_body_is_refused(door: str, key: dict[str, str], model_id: str) -> None:
    for kind in (
        "application/json",
        "multipart/form-data",
        "multipart/mixed; boundary=x",
        "multipart/form-data; boundary=" + "x" * 300,
    ):
        reply = httpx.post(f"{door}/v1/models/{model_id}/upload", content=b"{}", headers={**key, "content-type": kind})
        assert reply.status_code == 400


def test_a_model_that_is_not_there_is_told_before_its_bytes_come(door: str, key: dict[str, str]) -> None:
    """The answer comes while 1 GiB is announced and next to nothing of it was sent."""
    head = form(*FIELDS, part("last.pt", b"x", "last.pt"))[:-24]
    with begin(door, f"/v1/models/{'f' * 24}/upload", key, head, 1024 * MiB) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 404 ")


def begin(door: str, path: str, key: Mapping[str, str], data: bytes, length: int) -> socket.socket:
    """Send the head of a request and the first bytes of its body."""
    url = httpx.URL(door)
    assert url.port is not None
    connection = socket.create_connection((url.host, url.port), timeout=20)
    lines = [
        f"POST {url.path.rstrip(chr(47))}{path} HTTP/1.1",
        f"host: {url.host}:{url.port}",
        f"content-length: {length}",
    ]
    lines += [f"{name}: {value}" for name, value in {**key, **TYPE}.items()]
    connection.sendall("\r\n".join([*lines, "", ""]).encode() + data)
    return connection


@pytest.mark.parametrize("how", ["close", "reset"])
def test_nothing_stays_of_a_client_that_dies(
    served: RunningServer, door: str, key: dict[str, str], model_id: str, how: str
) -> None:
    data = form(*FIELDS, part("last.pt", os.urandom(8 * MiB), "last.pt"))[: 6 * MiB]
    with begin(door, f"/v1/models/{model_id}/upload", key, data, 9 * MiB) as connection:
        until(lambda: any(name.endswith(".tmp") for name in kept(served)))
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    until(lambda: kept(served) == [])
    reply = httpx.get(f"{door}/v1/models/{model_id}", headers=key)
    assert reply.json()["data"]["has_last_weights"] is False


def until(holds: Any) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_bytes_of_a_refused_image_are_removed(served: RunningServer, door: str, key: dict[str, str]) -> None:
    project = httpx.post(f"{door}/v1/projects", json={"meta": {"name": "P"}}, headers=key).json()["data"]["id"]
    url = f"{door}/v1/projects/{project}/upload"
    for data, status in ((b"text", 400), (b"\x89PNG\r\n\x1a\n" + b"0" * 33 * MiB, 413)):
        body = form(part("file", data, "a.png"))
        assert httpx.post(url, content=body, headers={**key, **TYPE}).status_code == status
        assert kept(served) == []


@pytest.mark.parametrize("name", ["..", "a/..", "a\nb.png", " a.png", "x" * 256, "ü" * 128])
@pytest.mark.parametrize("kind", ["projects", "datasets"])
def test_a_name_under_which_no_file_can_come_back_is_refused(
    served: RunningServer, door: str, key: dict[str, str], kind: str, name: str
) -> None:
    """Before its bytes come: 1 GiB is announced, and next to nothing of it was sent."""
    made = httpx.post(f"{door}/v1/{kind}", json={"meta": {"name": "P"}}, headers=key).json()["data"]["id"]
    with begin(door, f"/v1/{kind}/{made}/upload", key, part("file", b"x", name), 1024 * MiB) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")
    assert kept(served) == []


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "wrong"}, {"authorization": "Bearer wrong"}])
def test_nothing_is_taken_from_strangers(
    served: RunningServer, door: str, model_id: str, headers: dict[str, str]
) -> None:
    data = form(*FIELDS, part("last.pt", b"x" * 3 * MiB, "last.pt"))[: 2 * MiB]
    with begin(door, f"/v1/models/{model_id}/upload", headers, data, 1024 * MiB) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 401 ")
    assert kept(served) == []


def test_who_may_only_read_sends_nothing(served: RunningServer, door: str, model_id: str) -> None:
    viewer = served.backend.create_user("viewer", "viewer")
    headers = {"x-api-key": served.backend.create_token(viewer.user_id, "t")}
    data = b"".join(FIELDS) + part("last.pt", b"x" * 3 * MiB, "last.pt")
    with begin(door, f"/v1/models/{model_id}/upload", headers, data, 1024 * MiB) as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 403 ")
    assert kept(served) == []


# --- memory ---


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[psutil.Process, str, str]]:
    """`asyncsdk serve --doors` as a process; it, the root of the door, and the key."""
    folder = tmp_path / "data"
    command = [sys.executable, "-m", "asyncsdk", "serve", "--data", str(folder), "--port", "0"]
    command += ["--door-port", "ultralytics=0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None

            told = json.loads(running.stdout.readline())
            yield psutil.Process(running.pid), told["doors"]["ultralytics"], (folder / "token").read_text().strip()
        finally:
            running.terminate()


def test_a_large_file_goes_through_in_constant_memory(process: tuple[psutil.Process, str, str]) -> None:
    """256 MiB; what the server grows by is measured while they come."""
    server, door, token = process
    key = {"x-api-key": token}
    model = httpx.post(f"{door}/v1/models", json={"meta": {"name": "M"}}, headers=key).json()["data"]["id"]
    piece = os.urandom(MiB)
    before, after = b"".join(FIELDS) + part("last.pt", b"", "last.pt")[:-2], b"\r\n" + form()

    def send(pieces: int, path: str) -> int:
        peak = 0
        length = len(before) + pieces * len(piece) + len(after)
        with begin(door, path, key, before, length) as connection:
            for number in range(pieces):
                connection.sendall(piece)
                if number % 8 == 0:
                    peak = max(peak, server.memory_info().rss)
            connection.sendall(after)
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
        return peak

    path = f"/v1/models/{model}/upload"
    warm = send(32, path)
    assert send(256, path) - warm < 8 * MiB


# --- the reader alone ---


class Kept:
    def __init__(self) -> None:
        self.data = b""

    async def write(self, data: bytes) -> None:
        self.data += data


def read(body: bytes, cuts: list[int]) -> tuple[dict[str, str], bytes]:
    """Read *body* as it comes in pieces cut at these places."""
    edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    pieces = [body[start:stop] for start, stop in pairwise(edges)] or [b""]
    taken = Kept()

    async def receive() -> Any:
        data = pieces.pop(0)
        return {"type": "http.request", "body": data, "more_body": bool(pieces)}

    async def take(head: FileHead, fields: Mapping[str, str]) -> Kept:
        return taken

    scope: Any = {"headers": [(b"content-type", TYPE["content-type"].encode())]}
    return asyncio.run(read_form(scope, receive, take)), taken.data


near_boundary = st.lists(
    st.sampled_from(
        [b"\r", b"\n", b"-", b"--", b"\r\n", b"\r\n--", BOUNDARY[:5], b"\r\n--" + BOUNDARY[:-1], b"\0", b"x"]
    )
).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(near_boundary | st.binary(max_size=300), st.lists(st.integers(0, 2**16), max_size=12))
def test_the_file_comes_out_as_it_went_in(data: bytes, cuts: list[int]) -> None:
    """Bytes that look like a boundary, cut anywhere."""
    fields, found = read(form(part("a", b"1"), part("f", data, "f"), part("b", "ü".encode())), cuts)
    assert (fields, found) == ({"a": "1", "b": "ü"}, data)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400), st.lists(st.integers(0, 2**16), max_size=5))
def test_a_form_cut_short_is_refused(data: bytes, missing: int, cuts: list[int]) -> None:
    whole = form(part("a", b"1"), part("f", data, "f"))
    cut = whole[: max(0, len(whole) - 5 - missing)]
    with pytest.raises(BadRequest):
        read(cut, cuts)


# --- where a door cannot be opened ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--doors", "nobody"], "there is no door 'nobody'; there is: ultralytics"),
        (["--door-port", "nobody=0"], "there is no door"),
        (["--door-port", "ultralytics"], "NAME=PORT"),
        (["--door-port", "ultralytics=99999"], "NAME=PORT"),
    ],
)
def test_options_that_open_nothing(options: list[str], message: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "asyncsdk", "serve", "--data", str(tmp_path / "data"), "--port", "0", *options]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode != 0
    assert message in done.stderr
