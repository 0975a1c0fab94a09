"""Runs that can be gone on with: when a journal is kept, when it is forgotten, on every platform."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from asyncsdk import AsyncClient
from asyncsdk.engine import Event, Outcome, Resuming
from asyncsdk.engine.journal import RunSummary, journal_folder
from asyncsdk.engine.journal.catalogue import summaries
from asyncsdk.entities import examining
from asyncsdk.entities.item_uploads import ItemUpload
from asyncsdk.errors import ConfigError


def runs(home: Path) -> list[RunSummary]:
    return list(summaries(journal_folder(home)))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten photos and a name that leads nowhere."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(10):
        (folder / f"{number}.jpg").write_bytes(b"photo %d" % number)
    for path in folder.iterdir():
        os.utime(path, (1_700_000_000, 1_700_000_000))
    (folder / "zz.jpg").symlink_to(tmp_path / "not-yet")
    return folder


async def test_a_run_with_failures_is_kept_and_a_complete_one_forgotten(
    client: AsyncClient, photos: Path, tmp_path: Path, home: Path
) -> None:
    dataset = await client.datasets.create("d")
    report = await dataset.upload(photos)
    assert (report.done, report.failed) == (10, 1)
    (run,) = runs(home)
    assert (run.verb, run.state, run.objects, run.is_rebuildable) == ("upload", "failed", 10, True)
    (tmp_path / "not-yet").write_bytes(b"now")
    report = await dataset.upload(photos)
    assert (report.done, report.skipped, report.failed) == (1, 10, 0)
    assert runs(home) == []


async def test_files_that_are_known_are_not_read_again(
    client: AsyncClient, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Size, time and inode stand for the bytes: the first run's checksums are taken."""
    dataset = await client.datasets.create("d")
    await dataset.upload(photos)
    looked: list[Any] = []
    examine = examining._examine_source
    monkeypatch.setattr(
        examining, "_examine_source", lambda known, source: (looked.append(known.path), examine(known, source))
    )
    (photos / "new.jpg").write_bytes(b"new")
    report = await dataset.upload(photos)
    assert (report.done, report.skipped, report.failed) == (1, 10, 1)
    assert looked == ["new.jpg"]


async def test_items_that_were_there_before_are_known_too(
    client: AsyncClient, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = await client.datasets.create("d")
    await dataset.upload(photos, resume=False)
    await dataset.upload(photos)
    looked: list[Any] = []
    examine = examining._examine_source
    monkeypatch.setattr(
        examining, "_examine_source", lambda known, source: (looked.append(known.path), examine(known, source))
    )
    (photos / "new.jpg").write_bytes(b"new")
    assert (await dataset.upload(photos)).skipped == 10
    assert looked == ["new.jpg"]


async def test_fail_refuses_what_others_made_and_not_what_the_run_itself_made(
    client: AsyncClient, photos: Path
) -> None:
    dataset = await client.datasets.create("d")
    await dataset.upload([ItemUpload(b"somebody's", "3.jpg")])
    outcomes: list[Outcome] = []
    report = await dataset.upload(photos, on_existing="fail")
    assert (report.done, report.failed) == (9, 2)
    report = await dataset.upload(photos, on_existing="fail", on_outcome=outcomes.append)
    assert (report.skipped, report.failed) == (9, 2)
    assert {outcome.name for outcome in outcomes if not outcome.ok} == {"3.jpg", "zz.jpg"}


@pytest.mark.parametrize(("resume", "count"), [(True, 0), (False, 0), ("nightly", 1)])
async def test_an_iterable_has_a_journal_when_the_run_has_a_name(
    client: AsyncClient, photos: Path, home: Path, resume: bool | str, count: int
) -> None:
    dataset = await client.datasets.create("d")
    await dataset.upload([photos / "1.jpg", photos / "zz.jpg"], resume=resume)
    found = runs(home)
    assert [run.is_rebuildable for run in found] == [False] * count
    if count:
        report = await dataset.upload([photos / "1.jpg", photos / "2.jpg"], resume=resume)
        assert (report.done, report.skipped) == (1, 1)
        assert runs(home) == []


async def test_no_journal_is_kept_of_what_is_only_looked_at(client: AsyncClient, photos: Path, home: Path) -> None:
    dataset = await client.datasets.create("d")
    await dataset.upload(photos, dry_run=True)
    await dataset.upload(photos, resume=False)
    assert not journal_folder(home).exists()


@pytest.mark.parametrize("resume", ["", 1, None])
async def test_resume_is_a_choice_or_a_name(client: AsyncClient, photos: Path, resume: Any) -> None:
    dataset = await client.datasets.create("d")
    model = await client.models.create("m")
    for call in (
        dataset.upload(photos, resume=resume),
        dataset.download(photos, resume=resume),
        model.upload_checkpoint(photos / "1.jpg", resume=resume),
    ):
        with pytest.raises(ConfigError, match="resume"):
            await call


async def test_going_on_is_told_before_anything_else(client: AsyncClient, photos: Path, home: Path) -> None:
    """With what there is to put in order, once. What a listener raises ends the call; the journal is still there."""
    dataset = await client.datasets.create("d")
    assert (await dataset.upload(photos)).failed == 1

    def refuse(event: Event) -> None:
        raise KeyError(event.kind)

    with pytest.raises(KeyError, match="resuming"):
        await dataset.upload(photos, on_event=refuse)
    (run,) = runs(home)
    assert (run.state, run.objects) == ("stopped", 10)
    (photos / "0.jpg").write_bytes(b"another")
    os.utime(photos / "0.jpg", (1_700_000_001, 1_700_000_001))
    assert (await dataset.upload(photos)).done == 1
    for expected in (1, None):
        seen: list[Event] = []
        await dataset.upload(photos, on_event=seen.append)
        told = [event for event in seen if isinstance(event, Resuming)]
        assert [(event.journal, event.objects) for event in told] == ([(run.run_id, expected)] if expected else [])
        assert seen[0] in told or not told


async def test_a_download_leaves_alone_what_it_wrote_and_fetches_what_was_changed(
    client: AsyncClient, photos: Path, tmp_path: Path, home: Path
) -> None:
    """With ``overwrite`` everything is fetched, but once in a run."""
    dataset = await client.datasets.create("d")
    await dataset.upload(photos, resume=False)
    copy = tmp_path / "copy"
    (copy / "9.jpg").mkdir(parents=True)  # in the way: this one fails
    report = await dataset.download(copy, on_existing="overwrite")
    assert (report.done, report.failed) == (9, 1)
    (run,) = runs(home)
    assert (run.verb, run.objects) == ("download", 9)
    (copy / "4.jpg").write_bytes(b"photo X")
    (copy / "5.jpg").unlink()
    (copy / "9.jpg").rmdir()
    report = await dataset.download(copy, on_existing="overwrite")
    assert (report.done, report.skipped) == (3, 7)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
        f"{number}.jpg": b"photo %d" % number for number in range(10)
    }
    assert runs(home) == []
