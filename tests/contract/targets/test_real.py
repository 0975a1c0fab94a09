"""The same promises before servers that nobody here wrote; each is skipped, with the reason, where it cannot be had."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asyncsdk.checksums import crc32c, crc32c_hex
from asyncsdk.engine import Engine, RetryPolicy, Upload
from asyncsdk.errors import AsyncSDKError, ChecksumMismatch
from tests.contract.targets.conftest import config
from tests.contract.targets.test_arriving import pieces
from tests.contract.targets.test_resuming import Memory
from tests.support.clouds.kinds import Kind, real_kinds

_KINDS = real_kinds()


@pytest.fixture(params=sorted(_KINDS))
def real(request: pytest.FixtureRequest) -> Kind:
    """Each kind of each real server."""
    server = request.getfixturevalue(request.param.partition(" ")[0])
    return _KINDS[request.param](server)


@pytest.fixture
async def patient() -> AsyncIterator[Engine]:
    """An engine that gives a busy machine time."""
    async with Engine(config(retry=RetryPolicy(wait_initial_seconds=0.05))) as running:
        yield running


def part_size_of(kind: Kind) -> int:
    """Return the size of the parts of its targets; that of a whole object counts as two."""
    return getattr(kind.target(uuid.uuid4().hex), "part_size", 1 << 20)


@pytest.mark.parametrize("size", ["nothing", "one", "a part", "more"])
@pytest.mark.parametrize("source", ["path", "stream"])
async def test_it_arrives(patient: Engine, real: Kind, tmp_path: Path, size: str, source: str) -> None:
    """All bytes, and verified where the server states what the engine knows."""
    part = part_size_of(real)
    count = {"nothing": 0, "one": 1, "a part": part, "more": 2 * part + 17}[size]
    key = uuid.uuid4().hex
    (tmp_path / "file").write_bytes(data := os.urandom(count))
    given = tmp_path / "file" if source == "path" else pieces(data)
    outcome = await patient.upload(given, real.target(key))
    assert real.stored(key) == data
    assert outcome.crc32c == crc32c_hex(crc32c(data))
    if real.verifies:
        assert outcome.verified


async def test_an_upload_is_gone_on_with(real: Kind, tmp_path: Path) -> None:
    """Cancelled after some parts, another engine goes on with it, and sends no remembered part again."""
    if not real.is_parted:
        pytest.skip("one request has no parts to go on with")
    part = part_size_of(real)
    key, memory = uuid.uuid4().hex, Memory()
    (tmp_path / "file").write_bytes(data := os.urandom(4 * part - 5))
    target = real.target(key)
    two_are_there = asyncio.Event()
    resume = memory.resume()
    remember = resume.on_part
    assert remember is not None

    def on_part(sent: object) -> None:
        remember(sent)  # type: ignore[arg-type]
        if len(memory.parts) == 2:
            two_are_there.set()

    resume.on_part = on_part
    async with Engine(config(concurrency=1)) as engine:
        task = asyncio.create_task(engine.collect([Upload(tmp_path / "file", target, resume=resume)]))
        await asyncio.wait_for(two_are_there.wait(), 60)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    known = dict(memory.parts)
    assert 2 <= len(known) < 4
    told: list[int] = []
    again = memory.resume()
    again.on_part = lambda sent: told.append(sent.number)
    async with Engine(config()) as engine:
        (await engine.collect([Upload(tmp_path / "file", target, resume=again)])).raise_for_failures()
    assert real.stored(key) == data
    assert not set(told) & set(known)


async def test_a_wrong_announced_checksum_never_appears(patient: Engine, real: Kind, tmp_path: Path) -> None:
    """What is put together from parts is not put together then."""
    if not real.is_parted:
        pytest.skip("one request is judged when it has arrived")
    key = uuid.uuid4().hex
    (tmp_path / "file").write_bytes(os.urandom(part_size_of(real) + 1))
    with pytest.raises(ChecksumMismatch):
        await patient.upload(tmp_path / "file", real.target(key), crc32c="00000001")
    assert real.stored(key) is None


async def test_a_forged_signature_is_refused_at_once(patient: Engine, real: Kind) -> None:
    """One request, the server's reason, and nothing of what was signed."""
    if real.name == "gcs session":
        pytest.skip("the emulator asks nobody who they are")
    from dataclasses import replace

    target = real.target(uuid.uuid4().hex)
    changes = {}
    for name in ("url", "part_urls", "complete_url"):
        value = getattr(target, name, None)
        if isinstance(value, str):
            changes[name] = _forged(value)
        elif value is not None:
            changes[name] = tuple(map(_forged, value))
    with pytest.raises(AsyncSDKError) as caught:
        await patient.upload(b"x", replace(target, **changes))  # type: ignore[type-var]
    assert getattr(caught.value, "status", 0) in {400, 403}
    assert "Signature=" not in str(caught.value)
    assert "sig=" not in str(caught.value)


def _forged(url: str) -> str:
    for name in ("X-Amz-Signature=", "sig="):
        before, found, after = url.partition(name)
        if found:
            return f"{before}{name}{'A' if after[0] != 'A' else 'B'}{after[1:]}"
    return url
