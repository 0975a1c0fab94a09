"""The engine against nginx, a server that nobody here wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.engine import Download, Engine, MiB, PutTarget, RetryPolicy, TransferConfig, Upload, UrlOrigin
from asyncsdk.errors import ChecksumMismatch, NotFound
from tests.support.nginx import Nginx


def some_bytes(size_bytes: int, seed: int = 0) -> bytes:
    """Bytes that repeat only after a long way, so that a part in the wrong place shows."""
    block = b"".join(((number * 2654435761 + seed) & 0xFFFFFFFF).to_bytes(4, "big") for number in range(65_536 + 1))
    return (block * (size_bytes // len(block) + 1))[:size_bytes]


async def test_many_files_up_and_down(nginx: Nginx, tmp_path: Path) -> None:
    """Every file arrives with its bytes, and comes back with them; each transfer has one outcome."""
    sources = {f"many/{number % 7}/{number:03}.bin": some_bytes(number * 37, number) for number in range(200)}
    async with Engine(TransferConfig(concurrency=8)) as engine:
        ups = [Upload(data, PutTarget(f"{nginx.url}/{name}"), key=name) for name, data in sources.items()]
        async with engine.run(ups) as outcomes:
            keys = [outcome.transfer.key async for outcome in outcomes if outcome.ok]
        assert sorted(keys) == sorted(sources)
        assert {name: (nginx.data / name).read_bytes() for name in sources} == sources

        downs = [Download(f"{nginx.url}/{name}", tmp_path / name, key=name) for name in sources]
        async with engine.run(downs) as outcomes:
            found = [outcome async for outcome in outcomes]
    assert [outcome.error for outcome in found if not outcome.ok] == []
    assert {name: (tmp_path / name).read_bytes() for name in sources} == sources


async def test_one_file_by_ranges(nginx: Nginx, tmp_path: Path) -> None:
    """A large object comes in several ranges at once, is verified, and leaves no temporary file."""
    data = some_bytes(9 * MiB + 12_345)
    (nginx.data / "large.bin").write_bytes(data)
    config = TransferConfig(concurrency=4, part_size=MiB, multipart_threshold=2 * MiB)
    async with Engine(config) as engine:
        origin = UrlOrigin(f"{nginx.url}/large.bin", size_bytes=len(data), crc32c=crc32c_hex(crc32c(data)))
        outcome = await engine.download(origin, tmp_path / "large.bin")
    assert outcome.verified
    assert (tmp_path / "large.bin").read_bytes() == data
    assert [path.name for path in tmp_path.iterdir()] == ["large.bin"]


async def test_wrong_checksum_leaves_nothing(nginx: Nginx, tmp_path: Path) -> None:
    """Bytes that are not those that were promised are an error, and no file."""
    (nginx.data / "wrong.bin").write_bytes(b"not what was promised")
    async with Engine(TransferConfig(retry=RetryPolicy(max_attempts=3, wait_initial_seconds=0.01))) as engine:
        with pytest.raises(ChecksumMismatch):
            await engine.download(UrlOrigin(f"{nginx.url}/wrong.bin", crc32c="00000000"), tmp_path / "wrong.bin")
    assert list(tmp_path.iterdir()) == []


async def test_missing_object_is_not_found(nginx: Nginx, tmp_path: Path) -> None:
    """A 404 is a typed error after one attempt, and no file."""
    downs = [Download(f"{nginx.url}/never-sent", tmp_path / "never")]
    async with Engine() as engine, engine.run(downs) as outcomes:
        (outcome,) = [outcome async for outcome in outcomes]
    assert isinstance(outcome.error, NotFound)
    assert outcome.attempts == 1
    assert list(tmp_path.iterdir()) == []
