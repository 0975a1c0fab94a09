"""Clients killed at moments that nobody chose, around each message that counts, and while they take up a journal."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from asyncsdk import AsyncClient
from asyncsdk.protocol.uploads import CommitUploads, PrepareUploads
from tests.integration.test_killed_runs import (
    FEW_KILLS,
    KILLS,
    MANY_KILLS,
    SMALL,
    Rounds,
    Watch,
    download_killed,
    make_files,
    make_watch,
    served_platform,
    upload_killed,
)
from tests.support.killing import Blow, random_seed

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return make_watch(monkeypatch)


async def undisturbed_seconds(tmp_path: Path, watch: Watch, verb: str, small: int) -> float:
    """Return how long a client that nobody kills is there after its first message."""
    source = tmp_path / "before"
    make_files(source, small, seed=0)
    with served_platform(tmp_path / "other platform") as served:
        async with AsyncClient(served.url, token=served.token) as client:
            dataset = await client.datasets.create("d")
            if verb == "download":
                (await dataset.upload(source, resume=False)).raise_for_failures()
        place = tmp_path / "before copy" if verb == "download" else source
        assert watch.run(served, verb, dataset.id, place, tmp_path / "log before", Blow())
    return watch.took_seconds


FEW_AND_MANY = pytest.mark.parametrize(
    ("kills", "small"),
    [
        pytest.param(FEW_KILLS, SMALL, id="few"),
        pytest.param(MANY_KILLS, 4 * SMALL, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(1200)]),
    ],
)


@FEW_AND_MANY
@pytest.mark.parametrize(
    "verb",
    ["upload", pytest.param("download", marks=pytest.mark.slow), pytest.param("overwrite", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
async def test_killed_at_any_time(
    tmp_path: Path, home: Path, watch: Watch, verb: str, processes: int, kills: int, small: int, record_property: Any
) -> None:
    """By the clock alone, anywhere in the time that a client takes: in its first message, in its last commit."""
    watch.processes = processes
    rng = random.Random(random_seed(record_property))
    whole = await undisturbed_seconds(tmp_path, watch, verb, small)
    blows = [Blow(seconds=rng.uniform(0, whole)) for _ in range(kills)]
    if verb == "download":
        await download_killed(tmp_path, home, watch, blows, small)
    else:
        await upload_killed(tmp_path, home, watch, verb, blows, small)
    record_property("kills survived", watch.kills)


@pytest.mark.parametrize(
    "verb", ["upload", pytest.param("overwrite", marks=pytest.mark.slow), pytest.param("fail", marks=pytest.mark.slow)]
)
async def test_killed_around_what_makes_items(
    tmp_path: Path, home: Path, watch: Watch, verb: str, record_property: Any
) -> None:
    """Before the platform has done what it was asked, and after it has and nobody heard: no item is lost or doubled."""
    blows = [
        Blow(messages=number, kinds=(kind,), moment=moment)
        for number, kind in ((1, PrepareUploads), (2, CommitUploads))
        for moment in ("before", "after")
    ]
    await upload_killed(tmp_path, home, watch, verb, blows)
    record_property("kills survived", watch.kills)


@pytest.mark.parametrize("verb", ["upload", pytest.param("download", marks=pytest.mark.slow)])
async def test_killed_while_it_takes_up(
    tmp_path: Path, home: Path, watch: Watch, verb: str, record_property: Any
) -> None:
    """Killed amid its work, and then again and again in the first things that it does: nothing of it is forgotten."""
    rng = random.Random(random_seed(record_property))
    work = [Blow(requests=SMALL // 3), Blow(parts=6)]
    early = [Blow(messages=1, moment="after"), Blow(requests=1), Blow(seconds=rng.uniform(0, 0.05))]
    blows = [work[0], *early[:2], work[1], early[2], Blow(messages=2)]
    if verb == "download":
        await download_killed(tmp_path, home, watch, blows)
    else:
        await upload_killed(tmp_path, home, watch, verb, blows)
    record_property("kills survived", watch.kills)


def test_blows_that_never_fall_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that end before they are killed prove nothing: that is a failure, not a pass."""
    rounds = Rounds(Watch(monkeypatch), [Blow(requests=10_000)] * KILLS)
    with pytest.raises(AssertionError, match="before they are killed"):
        for _ in rounds:
            for blow in rounds.blows():
                rounds.missed(blow)
                break
