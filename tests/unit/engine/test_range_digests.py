"""Checksums that a server states with ranges: of the object they protect it, of the range alone they do no harm."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_base64
from asyncsdk.engine import Engine, StreamSink, UrlOrigin
from asyncsdk.engine.config import MiB
from asyncsdk.engine.range_digests import Stated, judge_stated
from asyncsdk.errors import ChecksumMismatch
from tests.support.http_server import Action, Connection, HttpServer, Received

SIZE = 4 * MiB + 17

Says = Callable[[bytes, bytes], dict[str, str]]
"""Headers for an object and one range of it."""


def of_object(whole: bytes, _part: bytes) -> dict[str, str]:
    return {"x-goog-hash": f"crc32c={crc32c_base64(crc32c(whole))},md5=AAAA"}


def of_object_s3(whole: bytes, _part: bytes) -> dict[str, str]:
    return {"x-amz-checksum-crc32c": crc32c_base64(crc32c(whole)), "x-amz-checksum-type": "FULL_OBJECT"}


def of_object_unsaid(whole: bytes, _part: bytes) -> dict[str, str]:
    return {"x-amz-checksum-crc32c": crc32c_base64(crc32c(whole))}


def of_range(_whole: bytes, part: bytes) -> dict[str, str]:
    return {"x-amz-checksum-crc32c": crc32c_base64(crc32c(part))}


def of_range_goog(_whole: bytes, part: bytes) -> dict[str, str]:
    return {"x-goog-hash": f"crc32c={crc32c_base64(crc32c(part))}"}


def of_checksums(_whole: bytes, part: bytes) -> dict[str, str]:
    return of_range(b"", part[:-1]) | {"x-amz-checksum-type": "COMPOSITE"}


def ranged(says: Says, *, flip_at: int | None = None) -> Action:
    """Answer ranges as the store does, with checksums, and one bit wrong."""

    async def action(connection: Connection, request: Received) -> bool:
        whole = connection.server.objects[request.path]
        start, _, last = (request.header("range") or "").removeprefix("bytes=").partition("-")
        first, stop = int(start), min(int(last) + 1, len(whole))
        part = bytearray(whole[first:stop])
        headers = says(whole, bytes(part)) | {"Content-Range": f"bytes {first}-{stop - 1}/{len(whole)}"}
        if flip_at is not None and first <= flip_at < stop:
            part[flip_at - first] ^= 1
        await connection.reply(206, bytes(part), headers | {"ETag": connection.server.etag(request.path)})
        return True

    return action


async def fetch(engine: Engine, origin: str | UrlOrigin, kind: str, folder: Path) -> bool:
    if kind == "file":
        return (await engine.download(origin, folder / "o")).verified
    if kind == "memory":
        return (await engine.download(origin)).verified

    async def send(data: bytes) -> None:
        """Nothing is kept of it."""

    return (await engine.download(origin, StreamSink(send))).verified


@pytest.mark.parametrize("kind", ["file", "memory", "stream"])
@pytest.mark.parametrize("known_size", [False, True])
@pytest.mark.parametrize("says", [of_object, of_object_s3, of_object_unsaid])
async def test_a_wrong_bit_in_a_range_is_found_by_the_checksum_of_the_object(
    engine: Engine, server: HttpServer, tmp_path: Path, says: Says, known_size: bool, kind: str
) -> None:
    """Once, it is fetched again (a stream cannot take anything back); every time, it fails and nothing is published."""
    server.objects["/o"] = data = os.urandom(SIZE)
    origin = UrlOrigin(server.url("/o"), size_bytes=SIZE if known_size else None)
    server.script("/o", *[ranged(says, flip_at=2 * MiB + 5)] * 20)
    with pytest.raises(ChecksumMismatch):
        await fetch(engine, origin, kind, tmp_path)
    assert list(tmp_path.iterdir()) == []
    if kind != "stream":
        server.script("/healed", *[ranged(says, flip_at=2 * MiB + 5)] * 5, *[ranged(says)] * 20)
        server.objects["/healed"] = data
        origin = UrlOrigin(server.url("/healed"), size_bytes=SIZE)
        assert await fetch(engine, origin, kind, tmp_path)


@pytest.mark.parametrize("says", [of_object, of_object_s3, of_object_unsaid, of_range, of_range_goog])
async def test_right_bytes_are_verified_by_whatever_the_server_states(
    engine: Engine, server: HttpServer, tmp_path: Path, says: Says
) -> None:
    server.objects["/o"] = data = os.urandom(SIZE)
    server.script("/o", *[ranged(says)] * 20)
    assert await fetch(engine, UrlOrigin(server.url("/o"), size_bytes=SIZE), "file", tmp_path)
    assert (tmp_path / "o").read_bytes() == data


@pytest.mark.parametrize("says", [of_range, of_range_goog])
async def test_equal_ranges_with_checksums_of_their_own_are_no_mismatch(
    engine: Engine, server: HttpServer, tmp_path: Path, says: Says
) -> None:
    """All ranges state the same value, which is not that of the object."""
    server.objects["/o"] = bytes(4 * MiB)
    server.script("/o", *[ranged(says)] * 20)
    assert await fetch(engine, UrlOrigin(server.url("/o"), size_bytes=4 * MiB), "file", tmp_path)


async def test_checksums_of_checksums_say_nothing(engine: Engine, server: HttpServer, tmp_path: Path) -> None:
    server.objects["/o"] = os.urandom(SIZE)
    server.script("/o", *[ranged(of_checksums)] * 20)
    assert not await fetch(engine, UrlOrigin(server.url("/o"), size_bytes=SIZE), "file", tmp_path)


CAME = {1: (11, 100), 2: (22, 100), 3: (33, 50)}
WHOLE = 99


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({}, (None, False)),
        ({1: Stated(11, False), 2: Stated(22, False), 3: Stated(33, False)}, (None, True)),
        ({1: Stated(11, False), 2: Stated(22, False)}, (None, False)),
        ({1: Stated(11, True), 2: Stated(23, True)}, (23, False)),
        ({1: Stated(99, True)}, (WHOLE, True)),
        ({1: Stated(98, True)}, (98, False)),
        ({1: Stated(99, True), 2: Stated(98, True)}, (98, False)),
        ({1: Stated(98, False)}, (None, False)),
        ({1: Stated(99, False)}, (None, True)),
        ({1: Stated(98, False), 2: Stated(98, False)}, (98, False)),
        ({1: Stated(98, False), 2: Stated(97, False)}, (None, False)),
        ({1: Stated(98, False), 2: Stated(22, False)}, (None, False)),
        ({1: Stated(98, False), 3: Stated(98, False), 2: Stated(22, False)}, (None, False)),
    ],
)
def test_what_is_stated_is_judged(stated: dict[int, Stated], expected: tuple[int | None, bool]) -> None:
    assert judge_stated(stated, CAME, WHOLE) == expected


def test_the_only_range_of_an_object_is_the_object() -> None:
    assert judge_stated({1: Stated(98, False)}, {1: (WHOLE, 100)}, WHOLE) == (98, False)
    assert judge_stated({1: Stated(99, False)}, {1: (WHOLE, 100)}, WHOLE) == (WHOLE, True)
