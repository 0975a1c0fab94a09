"""Downloads are held against whatever digest of the object a reply states, before anything appears."""

from __future__ import annotations

import base64
import hashlib
import os
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.checksums import crc32c, crc32c_base64, crc32c_hex
from asyncsdk.engine import Download, Engine, Outcome, StreamSink, UrlOrigin, download_digests
from asyncsdk.engine.config import MiB
from asyncsdk.engine.crc64 import crc64nvme
from asyncsdk.engine.download_digests import stated_besides
from asyncsdk.engine.received import Received as Book
from asyncsdk.engine.received import Unfinished
from asyncsdk.engine.waits import WaitReason
from asyncsdk.errors import ChecksumMismatch
from asyncsdk.transport.base import Headers
from tests.support.http_server import Action, Connection, HttpServer, Received
from tests.unit.engine.conftest import config

SMALL = 1001
LARGE = 3 * MiB + 17

Says = Callable[[bytes], dict[str, str]]
"""Headers for an object."""


def b64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def md5(data: bytes) -> str:
    return b64(hashlib.md5(data).digest())


OF_OBJECT: dict[str, Says] = {
    "x-goog-hash": lambda data: {"x-goog-hash": f"md5={md5(data)}"},
    "x-ms-blob-content-md5": lambda data: {"x-ms-blob-content-md5": md5(data), "x-ms-blob-type": "BlockBlob"},
    "crc32": lambda data: {"x-amz-checksum-crc32": b64(zlib.crc32(data).to_bytes(4, "big"))},
    "crc64nvme": lambda data: {"x-amz-checksum-crc64nvme": b64(crc64nvme(data).to_bytes(8, "big"))},
    "sha1": lambda data: {"x-amz-checksum-sha1": b64(hashlib.sha1(data).digest())},
    "sha256": lambda data: {"x-amz-checksum-sha256": b64(hashlib.sha256(data).digest())},
}
IN_FULL: dict[str, Says] = {
    **OF_OBJECT,
    "content-md5": lambda data: {"Content-MD5": md5(data)},
    "x-ms-content-crc64": lambda data: {"x-ms-content-crc64": b64(crc64nvme(data).to_bytes(8, "little"))},
}


def answers(says: Says, *, flip_at: int | None = None, flips: int = 1000) -> Action:
    """Answer as a store that knows digests, with one bit wrong so many times: a range where one is asked for."""

    async def action(connection: Connection, request: Received) -> bool:
        whole = connection.server.objects[request.path]
        asked = request.header("range")
        start, _, last = (asked or f"bytes=0-{len(whole) - 1}").removeprefix("bytes=").partition("-")
        first, stop = int(start), min(int(last) + 1, len(whole))
        part = bytearray(whole[first:stop])
        nonlocal flips
        if flips and flip_at is not None and first <= flip_at < stop:
            flips -= 1
            part[flip_at - first] ^= 1
        headers = {"x-amz-checksum-type": "FULL_OBJECT", "ETag": '"v"'} | says(whole)
        if asked:
            headers["Content-Range"] = f"bytes {first}-{stop - 1}/{len(whole)}"
        await connection.reply(206 if asked else 200, bytes(part), headers)
        return True

    return action


class Fetching:
    """Downloads one object in every way there is."""

    def __init__(self, engine: Engine, server: HttpServer, folder: Path) -> None:
        self.engine = engine
        self.server = server
        self.folder = folder
        self.taken: list[bytes] = []

    async def fetch(self, kind: str, *, size_bytes: int | None = None, crc: str | None = None) -> Outcome:
        origin = UrlOrigin(self.server.url("/o"), size_bytes=size_bytes, crc32c=crc)
        if kind == "file":
            return await self.engine.download(origin, self.folder / "o")
        if kind == "run":
            async with self.engine.run([Download(origin, self.folder / "o")]) as running:
                (outcome,) = [one async for one in running]
            if outcome.error is not None:
                raise outcome.error
            return outcome
        if kind == "memory":
            return await self.engine.download(origin)

        async def send(data: bytes) -> None:
            self.taken.append(data)

        return await self.engine.download(origin, StreamSink(send))

    def got(self, outcome: Outcome) -> bytes:
        if outcome.data is not None:
            return outcome.data
        return b"".join(self.taken) if self.taken else (self.folder / "o").read_bytes()

    @property
    def left(self) -> list[Path]:
        return list(self.folder.iterdir())


@pytest.fixture
async def fetching(engine: Engine, server: HttpServer, tmp_path: Path) -> Fetching:
    return Fetching(engine, server, tmp_path)


KINDS = ["file", "run", "memory", "stream"]


@pytest.mark.parametrize("knows_size", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", sorted(IN_FULL))
async def test_small_objects_are_what_the_reply_states(
    fetching: Fetching, server: HttpServer, name: str, kind: str, knows_size: bool
) -> None:
    """By one request, or by one that asks for the first range of what turns out to be no larger."""
    server.objects["/o"] = data = os.urandom(SMALL)
    size = SMALL if knows_size else None
    server.script("/o", *[answers(IN_FULL[name], flip_at=5)] * 4)
    with pytest.raises(ChecksumMismatch):
        await fetching.fetch(kind, size_bytes=size)
    assert fetching.left == []
    assert fetching.taken == []
    server.script("/o", answers(IN_FULL[name], flip_at=5), answers(IN_FULL[name]))
    outcome = await fetching.fetch(kind, size_bytes=size)
    assert outcome.verified
    assert fetching.got(outcome) == data


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["content-md5", "crc64nvme"])
async def test_large_objects_by_one_request_are_what_the_reply_states(
    fetching: Fetching, server: HttpServer, name: str, kind: str
) -> None:
    """Of a server that ignores ranges; the digest is taken while the bytes come."""
    server.objects["/o"] = data = os.urandom(LARGE)

    def whole(*, flip_at: int | None = None) -> Action:
        inner = answers(IN_FULL[name], flip_at=flip_at)

        async def action(connection: Connection, request: Received) -> object:
            request.seen.headers.pop("range", None)
            return await inner(connection, request)

        return action  # type: ignore[return-value]

    server.script("/o", *[whole(flip_at=2 * MiB)] * 8)
    with pytest.raises(ChecksumMismatch):
        await fetching.fetch(kind)
    assert fetching.left == []
    assert fetching.taken == []
    server._scripts.clear()
    server.script("/o", *[whole()] * 2)
    outcome = await fetching.fetch(kind)
    assert outcome.verified
    assert fetching.got(outcome) == data


@pytest.mark.parametrize("knows_size", [False, True])
@pytest.mark.parametrize("kind", ["file", "memory", "stream"])
@pytest.mark.parametrize("name", ["x-goog-hash", "x-ms-blob-content-md5", "crc64nvme", "sha256"])
async def test_objects_in_ranges_are_what_the_replies_state(
    fetching: Fetching, server: HttpServer, name: str, kind: str, knows_size: bool
) -> None:
    """Fetched once more, but into a stream; then that is an error, and nothing appears."""
    server.objects["/o"] = data = os.urandom(LARGE)
    size = LARGE if knows_size else None
    server.script("/o", *[answers(OF_OBJECT[name], flip_at=2 * MiB + 5)] * 20)
    with pytest.raises(ChecksumMismatch):
        await fetching.fetch(kind, size_bytes=size)
    assert fetching.left == []
    server._scripts.clear()
    fetching.taken.clear()
    flips = 0 if kind == "stream" else 1
    server.script("/o", *[answers(OF_OBJECT[name], flip_at=2 * MiB + 5, flips=flips)] * 20)
    outcome = await fetching.fetch(kind, size_bytes=size)
    assert outcome.verified
    assert fetching.got(outcome) == data
    if kind == "file":
        assert WaitReason.DISK in outcome.waits


@pytest.mark.parametrize("name", ["content-md5", "x-ms-content-crc64"])
async def test_digests_of_bodies_say_nothing_of_objects_in_ranges(
    fetching: Fetching, server: HttpServer, name: str
) -> None:
    """They are those of the range there."""
    server.objects["/o"] = os.urandom(LARGE)
    server.script("/o", *[answers(lambda data: IN_FULL[name](data[:MiB]))] * 5)
    assert not (await fetching.fetch("file", size_bytes=LARGE)).verified


async def test_iterations_raise_instead_of_ending(engine: Engine, server: HttpServer) -> None:
    """All bytes may have been handed out by then."""
    server.objects["/o"] = os.urandom(LARGE)
    server.script("/o", *[answers(OF_OBJECT["sha256"], flip_at=LARGE - 1)] * 8)
    came = 0
    async with engine.stream(UrlOrigin(server.url("/o"), size_bytes=LARGE)) as pieces:
        with pytest.raises(ChecksumMismatch):
            async for piece in pieces:
                came += len(piece)
        assert pieces.outcome is None
    assert came == LARGE


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_what_crc32c_settles_is_not_taken_again(
    fetching: Fetching, server: HttpServer, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Announced, or stated: no other digest is taken, whatever it says."""
    monkeypatch.setattr("asyncsdk.engine.download_digests.running", None)
    server.objects["/o"] = data = os.urandom(size)

    def wrong_but(data: bytes) -> dict[str, str]:
        return {"x-amz-checksum-crc32c": crc32c_base64(crc32c(data)), "x-ms-blob-content-md5": md5(b"")}

    server.script("/o", *[answers(wrong_but)] * 4)
    assert (await fetching.fetch("file", size_bytes=size)).verified
    server._scripts.clear()
    server.script("/o", *[answers(lambda _: {"x-ms-blob-content-md5": md5(b"")})] * 4)
    assert (await fetching.fetch("file", size_bytes=size, crc=crc32c_hex(crc32c(data)))).verified


@pytest.mark.parametrize("size", [SMALL, LARGE])
async def test_replies_that_contradict_each_other_or_say_nothing(
    fetching: Fetching, server: HttpServer, size: int
) -> None:
    """An object that is replaced between two ranges by one of its size is no mixture; an ETag alone is nothing."""
    server.objects["/o"] = os.urandom(size)
    server.script("/o", *[answers(lambda _: {"ETag": f'"{"0" * 32}"', "x-amz-request-id": "r"})] * 5)
    assert not (await fetching.fetch("file", size_bytes=size)).verified
    if size == LARGE:
        server._scripts.clear()
        says = OF_OBJECT["sha256"]
        server.script("/o", *[answers(says)] * 3, *[answers(lambda data: says(data + b"x"))] * 10)
        with pytest.raises(ChecksumMismatch):
            await fetching.fetch("file", size_bytes=size)


class Kept:
    """Remembers ranges, as a journal would."""

    def __init__(self) -> None:
        self.unfinished: Unfinished | None = None
        self.ranges: dict[int, tuple[int, int]] = {}

    def book(self) -> Book:
        return Book(self.unfinished, dict(self.ranges), self._begin, self._range, self._end)

    def _begin(self, unfinished: Unfinished) -> None:
        self.unfinished = unfinished

    def _range(self, number: int, size_bytes: int, checksum: int) -> None:
        self.ranges[number] = size_bytes, checksum

    def _end(self) -> None:
        self.unfinished, self.ranges = None, {}


@pytest.mark.parametrize("there", [1, 4])
@pytest.mark.parametrize("is_right", [True, False])
async def test_half_received_files_are_what_the_replies_state(
    engine: Engine, server: HttpServer, tmp_path: Path, there: int, is_right: bool
) -> None:
    """Though nothing but a range of it is asked for: one at least, even where all were there."""
    server.objects["/o"] = data = os.urandom(LARGE)
    was = data if is_right else b"?" + data[1:]
    folder = tmp_path / "to"
    folder.mkdir()
    (folder / "half").write_bytes(was)
    kept = Kept()
    kept.unfinished = Unfinished(str(folder / "half"), LARGE, MiB, '"v"', None)
    pieces = [was[start : start + MiB] for start in range(0, LARGE, MiB)]
    kept.ranges = {number: (len(piece), crc32c(piece)) for number, piece in enumerate(pieces[:there], 1)}
    server.script("/o", *[answers(OF_OBJECT["sha256"])] * 8)
    origin = UrlOrigin(server.url("/o"), size_bytes=LARGE, etag='"v"')
    async with engine.run([Download(origin, folder / "o", received=kept.book())]) as running:
        (outcome,) = [one async for one in running]
    assert outcome.verified
    assert (folder / "o").read_bytes() == data
    assert [path.name for path in folder.iterdir()] == ["o"]
    # What was wrong before it was summed is found, and fetched once more with everything else.
    assert len(server.requests) == (max(1, 4 - there) if is_right else max(1, 4 - there) + 4)


@pytest.fixture
async def crew(tmp_path: Path) -> AsyncIterator[Engine]:
    """Two processes that move what it is given."""
    async with Engine(config(processes=2)) as engine:
        yield engine


async def test_processes_compare_too(crew: Engine, server: HttpServer, tmp_path: Path) -> None:
    server.objects["/o"] = server.objects["/wrong"] = os.urandom(SMALL)
    server.script("/o", answers(OF_OBJECT["sha256"]))
    server.script("/wrong", *[answers(OF_OBJECT["sha256"], flip_at=1)] * 4)
    downloads = [
        Download(UrlOrigin(server.url(path), size_bytes=SMALL), tmp_path / path[1:]) for path in ("/o", "/wrong")
    ]
    async with crew.run(downloads) as running:
        outcomes = {outcome.transfer.name: outcome async for outcome in running}
    right, wrong = (outcomes[download.name] for download in downloads)
    assert right.verified
    assert isinstance(wrong.error, ChecksumMismatch)
    assert [path.name for path in tmp_path.iterdir()] == ["o"]


MD5 = md5(b"x")
SHA = b64(hashlib.sha256(b"x").digest())


@pytest.mark.parametrize(
    ("headers", "in_full", "in_range"),
    [
        ({}, None, None),
        ({"etag": f'"{hashlib.md5(b"x").hexdigest()}"', "x-amz-request-id": "r"}, None, None),
        ({"content-md5": MD5}, "md5", None),
        ({"content-md5": MD5, "x-ms-blob-content-md5": MD5}, "md5", "md5"),
        ({"x-ms-blob-content-md5": MD5, "x-ms-blob-type": "PageBlob"}, None, None),
        ({"x-ms-blob-content-md5": "bm90IG9uZQ=="}, None, None),
        ({"content-md5": "ü"}, None, None),
        ({"x-goog-hash": f"md5={MD5}"}, "md5", "md5"),
        ({"x-goog-hash": f"crc32c=AAAAAA==,md5={MD5}"}, None, None),
        ({"x-goog-hash": f"md5={MD5}", "x-goog-stored-content-encoding": "gzip"}, None, None),
        ({"x-amz-checksum-sha256": SHA}, "sha256", None),
        ({"x-amz-checksum-sha256": SHA, "x-amz-checksum-type": "FULL_OBJECT"}, "sha256", "sha256"),
        ({"x-amz-checksum-sha256": SHA, "x-amz-checksum-type": "COMPOSITE"}, None, None),
        ({"x-amz-checksum-sha256": f"{SHA}-3"}, None, None),
        ({"x-amz-checksum-sha256": SHA, "content-range": "bytes 0-0/1"}, None, None),
        ({"content-md5": MD5, "content-range": "bytes 0-0/1"}, "md5", None),
        ({"x-amz-checksum-sha256": SHA, "x-amz-checksum-crc32": "AAAAAA==", "content-md5": MD5}, "crc32", None),
    ],
)
def test_the_cheapest_that_is_of_the_object_is_chosen(
    headers: dict[str, str], in_full: str | None, in_range: str | None
) -> None:
    """What cannot be read, is of digests, of a range or of other bytes is not stated; crc32c is read elsewhere."""
    for is_range, expected in ((False, in_full), (True, in_range)):
        found = stated_besides(Headers.of(headers), is_range=is_range)
        assert (None if found is None else found.name) == expected


@pytest.fixture
def without_md5(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a Python that was built for FIPS may be."""
    new = hashlib.new

    def limited(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "md5":
            raise ValueError("unsupported hash type md5")
        return new(name, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(hashlib, "new", limited)
        download_digests._is_offered.cache_clear()
        yield
    download_digests._is_offered.cache_clear()


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("kind", KINDS)
async def test_what_this_python_cannot_take_is_not_compared(
    fetching: Fetching, server: HttpServer, kind: str, size: int, without_md5: None
) -> None:
    """The object comes as it did from a server that states nothing."""
    server.objects["/o"] = data = os.urandom(size)
    server.script("/o", *[answers(OF_OBJECT["x-ms-blob-content-md5"])] * 5)
    outcome = await fetching.fetch(kind, size_bytes=size)
    assert not outcome.verified
    assert fetching.got(outcome) == data


def test_another_digest_is_chosen_where_one_cannot_be_taken(without_md5: None) -> None:
    crc64 = b64(crc64nvme(b"x").to_bytes(8, "little"))
    found = stated_besides(Headers.of({"content-md5": md5(b"x"), "x-ms-content-crc64": crc64}))
    assert found is not None
    assert found.name == "crc64"
