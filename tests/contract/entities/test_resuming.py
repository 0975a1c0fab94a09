"""Runs that can be gone on with: when a journal is kept, when it is forgotten, on every platform."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from asyncsdk import AsyncClient
from asyncsdk.engine import Event, JournalChanged, Outcome, Resuming
from asyncsdk.engine.config import MiB
from asyncsdk.engine.journal import LargeState, RunRecord, RunSummary, boot_number, journal_folder
from asyncsdk.engine.journal.catalogue import summaries
from asyncsdk.engine.journal.store import Store
from asyncsdk.entities import checkpoint_transfers, download_books, examining
from asyncsdk.entities.datasets import AsyncDataset
from asyncsdk.entities.downloading import OnExistingFile
from asyncsdk.entities.item_uploads import ItemUpload
from asyncsdk.entities.single_books import SingleBooks
from asyncsdk.entities.upload_books import UploadBooks
from asyncsdk.errors import ConfigError, ConnectionFailed
from tests.support.server import RunningServer


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


@pytest.mark.parametrize("what", ["items", "checkpoint"])
async def test_a_file_rewritten_while_a_run_goes_on_is_never_mixed(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped half-way, run again, and rewritten at equal size after the look at it: the object has the new bytes."""
    folder = tmp_path / "weights"
    folder.mkdir()
    path = folder / "w.bin"
    path.write_bytes(os.urandom(40 * MiB))
    os.utime(path, (1_700_000_000, 1_700_000_000))
    has_part = asyncio.Event()
    add = LargeState._add
    monkeypatch.setattr(LargeState, "_add", lambda state, part: (add(state, part), has_part.set()))
    rewritten: list[bytes] = []

    def rewriting(recall: Any) -> Any:
        async def then_rewrite(*arguments: Any) -> Any:
            found = await recall(*arguments)
            if not rewritten:
                rewritten.append(os.urandom(40 * MiB))
                path.write_bytes(rewritten[0])
            return found

        return then_rewrite

    with RunningServer(tmp_path / "platform") as server:
        async with AsyncClient(server.url, token=server.token, concurrency=1) as client:
            dataset, model = await client.datasets.create("d"), await client.models.create("m")

            async def upload() -> Any:
                if what == "items":
                    return await dataset.upload(folder)
                return await model.upload_checkpoint(path, is_best=True)

            begun = asyncio.create_task(upload())
            await asyncio.wait_for(has_part.wait(), 60)
            begun.cancel()
            await asyncio.gather(begun, return_exceptions=True)
            for books in (UploadBooks, SingleBooks):
                monkeypatch.setattr(books, "recall", rewriting(books.recall))
            made = await upload()
            if what == "items":
                assert made.failed == 0
                await dataset.download(tmp_path / "back")
            else:
                await model.download_checkpoint(tmp_path / "back")
    (back,) = [found for found in (tmp_path / "back", *(tmp_path / "back").rglob("*")) if found.is_file()]
    assert back.read_bytes() == rewritten[0]


async def killed_download(client: AsyncClient, photos: Path, home: Path, copy: Path) -> AsyncDataset:
    """Leave what a kill leaves of a download of all photos but the last with ``fail``: files, of which nothing could
    be kept any more but that the run had begun."""
    dataset = await client.datasets.create("d")
    await dataset.upload(photos, resume=False)
    copy.mkdir()
    (copy / "9.jpg").mkdir()  # in the way, so that the run is kept
    assert (await dataset.download(copy, on_existing="fail")).failed == 1
    (copy / "9.jpg").rmdir()
    (path,) = journal_folder(home).glob("*.sqlite3")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT sum(count) FROM pages").fetchone()[0] == 9
        connection.execute("DELETE FROM pages")
        connection.commit()
    return dataset


async def test_fail_knows_the_files_of_its_own_run(
    client: AsyncClient, photos: Path, tmp_path: Path, home: Path
) -> None:
    """Those renamed into place in the moments before a kill; not those of others, nor such as were changed since."""
    copy = tmp_path / "copy"
    dataset = await killed_download(client, photos, home, copy)
    os.utime(copy / "3.jpg", (1_700_000_000, 1_700_000_000))  # from before the run
    (copy / "4.jpg").write_bytes(b"photo X")
    report = await dataset.download(copy, on_existing="fail")
    assert (report.done, report.skipped, report.failed) == (1, 7, 2)
    assert {failure.name: failure.code for failure in report.failures} == {"3.jpg": "conflict", "4.jpg": "conflict"}
    assert (copy / "4.jpg").read_bytes() == b"photo X"


async def test_a_download_that_brought_nothing_leaves_no_journal(
    client: AsyncClient, photos: Path, tmp_path: Path, home: Path
) -> None:
    """Neither when all of it failed nor when it was ended before its first file; one file is worth keeping."""
    dataset = await client.datasets.create("d")
    await dataset.upload([photos / f"{number}.jpg" for number in range(2)], resume=False)
    copy = tmp_path / "copy"
    for name in ("0.jpg", "1.jpg"):
        (copy / name).mkdir(parents=True)
    assert (await dataset.download(copy)).failed == 2
    assert runs(home) == []

    def end(event: Event) -> None:
        raise LookupError(event.kind)

    with pytest.raises(LookupError):
        await dataset.download(copy, on_event=end)
    assert runs(home) == []
    (copy / "0.jpg").rmdir()
    assert (await dataset.download(copy)).done == 1
    assert [run.objects for run in runs(home)] == [1]


async def test_fail_refuses_what_stood_there_before_the_run(client: AsyncClient, photos: Path, tmp_path: Path) -> None:
    dataset = await client.datasets.create("d")
    await dataset.upload(photos, resume=False)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "3.jpg").write_bytes(b"photo 3")
    os.utime(copy / "3.jpg", (1_700_000_000, 1_700_000_000))
    for _ in range(2):
        report = await dataset.download(copy, on_existing="fail")
        assert [failure.name for failure in report.failures] == ["3.jpg"]


@pytest.mark.parametrize("on_existing", ["skip_same", "overwrite", "fail"])
async def test_after_a_loss_of_power_files_are_read_and_those_without_their_bytes_fetched(
    client: AsyncClient, photos: Path, tmp_path: Path, on_existing: OnExistingFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file may have its size, time and inode and no bytes: entries of another start of the machine prove nothing."""
    dataset = await client.datasets.create("d")
    await dataset.upload(photos, resume=False)
    copy = tmp_path / "copy"
    (copy / "9.jpg").mkdir(parents=True)  # in the way: the run is kept
    assert (await dataset.download(copy, on_existing=on_existing)).done == 9
    (copy / "9.jpg").rmdir()
    lost = copy / "4.jpg"
    before = lost.stat()
    with lost.open("r+b") as file:
        file.write(bytes(before.st_size))
    os.utime(lost, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert lost.stat().st_mtime_ns == before.st_mtime_ns
    with monkeypatch.context() as patched:
        patched.setattr(download_books, "boot_number", lambda: boot_number() ^ 1)
        report = await dataset.download(copy, on_existing=on_existing)
    assert (report.done, report.skipped, report.failed) == (2, 8, 0)
    assert lost.read_bytes() == b"photo 4"


async def test_a_run_whose_journal_another_one_has_says_so(client: AsyncClient, photos: Path, home: Path) -> None:
    dataset = await client.datasets.create("d")
    assert (await dataset.upload(photos)).failed == 1
    (run,) = runs(home)
    path = journal_folder(home) / f"{run.run_id}.sqlite3"
    other = Store.open(path, RunRecord(run.verb, {}, run.arguments))
    seen: list[Event] = []
    report = await dataset.upload(photos, on_event=seen.append)
    other.release("stopped")
    assert (report.skipped, report.failed) == (10, 1)
    (told,) = [event for event in seen if isinstance(event, JournalChanged)]
    assert seen[0] is told
    assert (told.journal, told.is_kept) == (run.run_id, False)
    assert f"process {os.getpid()} on" in told.reason

    def refuse(event: Event) -> None:
        raise KeyError(event.kind)

    other = Store.open(path, RunRecord(run.verb, {}, run.arguments))
    with pytest.raises(KeyError, match="journal_changed"):
        await dataset.upload(photos, on_event=refuse)
    other.release("stopped")


async def test_an_upload_that_is_of_another_user_now_is_made_anew(
    client: AsyncClient, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All bytes had arrived, and then the token, or the secret of the server, became another: its key is refused."""
    model = await client.models.create("m")
    weights = tmp_path / "weights"
    weights.write_bytes(b"weights")
    os.utime(weights, (1_700_000_000, 1_700_000_000))

    async def refuse(feed: object, size_bytes: int, crc32c: str) -> None:
        raise ConnectionFailed("gone this moment")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint_transfers._UploadFeed, "_commit", refuse)
        with pytest.raises(ConnectionFailed):
            await model.upload_checkpoint(weights)
    (run,) = runs(home)
    store = Store.open(journal_folder(home) / f"{run.run_id}.sqlite3", RunRecord(run.verb, {}, run.arguments))
    known = store.large("object")
    assert known is not None
    key = known[0]["key"]
    assert known[0]["arrived"]
    store.begin_large("object", known[0] | {"key": f"{key[:-1]}{'0' if key[-1] != '0' else '1'}"})
    store.release("stopped")
    made = await model.upload_checkpoint(weights)
    assert made.size_bytes == 7
    assert [found.id async for found in model.checkpoints.list()] == [made.id]
    assert runs(home) == []


async def test_a_named_run_into_another_folder_is_another_run(
    client: AsyncClient, photos: Path, tmp_path: Path, home: Path
) -> None:
    """What was half received goes where it was begun, and nothing of it is believed of another folder."""
    dataset = await client.datasets.create("d")
    await dataset.upload(photos, resume=False)
    for name in ("one", "other"):
        (tmp_path / name / "9.jpg").mkdir(parents=True)  # in the way: the run is kept
        assert (await dataset.download(tmp_path / name, resume="nightly")).done == 9
    assert len({run.run_id for run in runs(home)}) == 2
    (tmp_path / "one" / "9.jpg").rmdir()
    assert (await dataset.download(tmp_path / "one", resume="nightly")).skipped == 9


async def test_other_metadata_is_sent_though_the_bytes_are_known(client: AsyncClient, photos: Path, home: Path) -> None:
    """``overwrite`` means it, in a run that is gone on with too; what is as it was is not sent again."""

    def items(camera: str) -> list[ItemUpload]:
        given = [ItemUpload(photos / f"{n}.jpg", f"{n}.jpg", metadata={"camera": camera, "n": n}) for n in range(3)]
        return [*given, ItemUpload(photos / "4.jpg", "4.jpg"), ItemUpload(photos / "zz.jpg", "zz.jpg")]

    dataset = await client.datasets.create("d")
    report = await dataset.upload(items("old"), on_existing="overwrite", resume="nightly")
    assert (report.done, report.failed) == (4, 1)
    report = await dataset.upload(items("old"), on_existing="overwrite", resume="nightly")
    assert (report.done, report.skipped, report.failed) == (0, 4, 1)
    report = await dataset.upload(items("new"), on_existing="overwrite", resume="nightly")
    assert (report.done, report.skipped, report.failed) == (3, 1, 1)
    found = {item.path: dict(item.metadata) async for item in dataset.items.list()}
    assert found == {f"{n}.jpg": {"camera": "new", "n": n} for n in range(3)} | {"4.jpg": {}}
