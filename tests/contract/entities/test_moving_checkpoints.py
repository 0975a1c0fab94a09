"""Weights go up and come back, and best, last and final mean what they say."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asyncsdk import AsyncClient, AsyncModel
from asyncsdk.errors import BadRequest, ConfigError, Conflict, LeftUndone, NotFound, SourceNotFound, SourceUnreadable

BIG = 20 * 1024 * 1024 + 12345


@pytest.fixture
async def model(client: AsyncClient) -> AsyncModel:
    return await client.models.create("detector")


async def test_weights_come_back_byte_for_byte(model: AsyncModel, tmp_path: Path) -> None:
    data = os.urandom(BIG)
    (tmp_path / "last.pt").write_bytes(data)
    up = await model.upload_checkpoint(tmp_path / "last.pt", epoch=3, is_best=True, metrics={"map": 0.61})
    assert (up.filename, up.epoch, up.is_best, up.metrics, up.size_bytes) == ("last.pt", 3, True, {"map": 0.61}, BIG)
    down = await model.download_checkpoint(tmp_path / "copy.pt", which="best")
    assert down == up
    assert (tmp_path / "copy.pt").read_bytes() == data
    (tmp_path / "folder").mkdir()
    await model.download_checkpoint(tmp_path / "folder", which=3)
    assert (tmp_path / "folder" / "last.pt").read_bytes() == data
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["copy.pt", "folder", "last.pt", "last.pt"]


async def test_best_last_final_and_epochs(model: AsyncModel) -> None:
    first = await model.upload_checkpoint(b"1", epoch=1, is_best=True)
    second = await model.upload_checkpoint(b"2", epoch=2, is_best=True)
    third = await model.upload_checkpoint(b"3", epoch=3, is_final=True)
    which: Any
    for which, expected in {"best": second, "last": third, "final": third, 1: first}.items():
        assert (await model.checkpoints.get(which=which)).id == expected.id
    assert [one.is_best async for one in model.checkpoints.list()] == [False, True, False]
    with pytest.raises(NotFound):
        await model.checkpoints.get(which=7)


async def test_a_checkpoint_of_the_same_epoch_replaces_it(model: AsyncModel, tmp_path: Path) -> None:
    await model.upload_checkpoint(b"1", epoch=1, is_best=True)
    await model.upload_checkpoint(b"22", epoch=1)
    (only,) = await model.checkpoints.list().to_list()
    await only.download(tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"22"


async def test_weights_from_a_stream(model: AsyncModel, tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 1_000_000

    assert (await model.upload_checkpoint(pieces())).size_bytes == 20_000_000
    await model.download_checkpoint(tmp_path / "x", which="last")
    assert (tmp_path / "x").stat().st_size == 20_000_000


async def test_no_checkpoint_of_that_sort_is_not_found_and_leaves_no_file(model: AsyncModel, tmp_path: Path) -> None:
    for which in ("best", "last", "final", 3):
        with pytest.raises(NotFound):
            await model.download_checkpoint(tmp_path / "x", which=which)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("facts", [{"epoch": -1}, {"metrics": {"map": float("nan")}}, {"metadata": {"x": object()}}])
async def test_bad_facts_are_refused_before_a_byte_moves(model: AsyncModel, facts: dict[str, Any]) -> None:
    async def untouched() -> AsyncIterator[bytes]:
        raise AssertionError("was read")
        yield b""

    with pytest.raises(BadRequest):
        await model.upload_checkpoint(untouched(), **facts)


async def test_missing_files_and_folders_are_refused(model: AsyncModel, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound):
        await model.upload_checkpoint(tmp_path / "gone.pt")
    with pytest.raises(SourceUnreadable):
        await model.upload_checkpoint(tmp_path)
    assert await model.checkpoints.list().to_list() == []


async def test_which_must_make_sense(model: AsyncModel) -> None:
    for which in ("newest", True):
        with pytest.raises(ConfigError, match="best"):
            await model.checkpoints.get(which=which)  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        await model.checkpoints.get(which=2**70)


async def test_what_gives_no_bytes_is_refused(model: AsyncModel) -> None:
    with pytest.raises(ConfigError, match="path"):
        await model.upload_checkpoint(None)  # type: ignore[arg-type]


async def test_model_names_may_repeat_and_getting_one_by_name_then_gives_the_ids(client: AsyncClient) -> None:
    first = await client.models.create("twin")
    assert (await client.models.get(name="twin")).id == first.id
    second = await client.models.create("twin")
    with pytest.raises(Conflict) as caught:
        await client.models.get(name="twin")
    assert sorted(caught.value.ids) == sorted([first.id, second.id])
    assert await client.models.exists("twin")
    with pytest.raises(Conflict):
        await client.models.create("twin", exist_ok=True)


async def test_deleting_a_model_takes_its_checkpoints(model: AsyncModel, client: AsyncClient) -> None:
    await model.upload_checkpoint(b"1")
    await model.delete()
    with pytest.raises(NotFound):
        await client.models.get(model.id)
    with pytest.raises(NotFound):
        await model.checkpoints.get(which="last")


async def test_a_drained_client_leaves_checkpoints_undone(
    model: AsyncModel, client: AsyncClient, tmp_path: Path
) -> None:
    """As every run that is drained: nobody gave a wrong argument."""
    await model.upload_checkpoint(b"1", is_best=True)
    client.engine.drain()
    with pytest.raises(LeftUndone):
        await model.upload_checkpoint(b"2")
    with pytest.raises(LeftUndone):
        await model.download_checkpoint(tmp_path / "copy")
    assert list(tmp_path.glob("copy*")) == []
