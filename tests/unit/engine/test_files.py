"""Objects that are files of this machine."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.engine import Download, Engine, FileOrigin, FileTarget, StreamSink, Upload
from asyncsdk.engine.config import MiB
from asyncsdk.errors import (
    ChecksumMismatch,
    DestinationUnwritable,
    IncompleteTransfer,
    ObjectChanged,
    SourceChanged,
    SourceNotFound,
    SourceUnreadable,
)

SIZES = [0, 1, 65_537, 17 * MiB]


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 100_003):
        yield data[start : start + 100_003]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["path", "bytes", "open file", "buffered", "stream"])
async def test_every_source_becomes_a_file_named_by_its_checksum(
    engine: Engine, tmp_path: Path, kind: str, size: int
) -> None:
    data = os.urandom(size)
    (tmp_path / "source").write_bytes(data)
    checksum = crc32c_hex(crc32c(data))
    with (tmp_path / "source").open("rb") as file:
        source = {
            "path": tmp_path / "source",
            "bytes": data,
            "open file": file,
            "buffered": io.BytesIO(data),
            "stream": pieces(data),
        }[kind]
        outcome = await engine.upload(
            source, FileTarget(tmp_path / "new" / "folder", "name"), size_bytes=size, crc32c=checksum
        )
    assert (tmp_path / "new" / "folder" / f"name.{checksum}").read_bytes() == data
    assert len(list((tmp_path / "new" / "folder").iterdir())) == 1
    assert (outcome.size_bytes, outcome.crc32c, outcome.attempts) == (size, checksum, 1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["file", "memory", "stream"])
async def test_every_sink_gets_the_file_verified(engine: Engine, tmp_path: Path, kind: str, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "o").write_bytes(data)
    origin = FileOrigin(tmp_path / "o", size_bytes=size, crc32c=crc32c_hex(crc32c(data)), etag='"e"')
    got: list[bytes] = []

    async def send(piece: bytes) -> None:
        got.append(piece)

    sink = {"file": tmp_path / "new" / "copy", "memory": None, "stream": StreamSink(send)}[kind]
    outcome = await engine.download(origin, sink)
    if kind == "file":
        got = [(tmp_path / "new" / "copy").read_bytes()]
    elif kind == "memory":
        got = [outcome.data or b""]
    assert b"".join(got) == data
    assert (outcome.size_bytes, outcome.verified, outcome.etag) == (size, True, '"e"')


async def test_wrong_sources_leave_nothing(engine: Engine, tmp_path: Path) -> None:
    target = FileTarget(tmp_path / "out", "n")
    (tmp_path / "file").write_bytes(b"12345")
    with pytest.raises(SourceNotFound):
        await engine.upload(tmp_path / "missing", target)
    with pytest.raises(SourceUnreadable):
        await engine.upload(tmp_path, target)
    with pytest.raises(SourceChanged):
        await engine.upload(tmp_path / "file", target, size_bytes=4)
    with pytest.raises(ChecksumMismatch):
        await engine.upload(tmp_path / "file", target, crc32c="00000000")
    with pytest.raises(IncompleteTransfer):
        await engine.upload(pieces(b"12345"), target, size_bytes=4)
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


async def test_wrong_origins_and_destinations_leave_nothing(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "o").write_bytes(b"12345")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SourceNotFound):
        await engine.download(FileOrigin(tmp_path / "missing"), tmp_path / "c")
    with pytest.raises(ObjectChanged):
        await engine.download(FileOrigin(tmp_path / "o", size_bytes=4), tmp_path / "c")
    with pytest.raises(ChecksumMismatch):
        await engine.download(FileOrigin(tmp_path / "o", crc32c="00000000"), tmp_path / "c")
    with pytest.raises(DestinationUnwritable, match="folder"):
        await engine.download(FileOrigin(tmp_path / "o"), tmp_path / "folder")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["folder", "o"]


async def test_file_transfers_run_like_others(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "o").write_bytes(b"data")
    transfers = [Upload(bytes([n]), FileTarget(tmp_path / "in", str(n))) for n in range(100)]
    downloads = [Download(FileOrigin(tmp_path / "o"), tmp_path / "out" / str(n)) for n in range(100)]
    report = await engine.collect([*transfers, *downloads])
    assert (report.done, len(list((tmp_path / "in").iterdir())), len(list((tmp_path / "out").iterdir()))) == (
        200,
        100,
        100,
    )
