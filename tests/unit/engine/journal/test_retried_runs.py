"""A retry is the run that it retries, with fewer objects: what its journal says, trusts and forgets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.engine.journal import Finished, Identity, Journal, RetriedReport, RunRecord, digest_of, journal_folder
from asyncsdk.engine.journal.catalogue import summaries
from asyncsdk.engine.received import Unfinished
from tests.unit.engine.journal.test_journal import fill_the_disk

UPLOAD = RunRecord("upload", {"place": "/photos"}, {"place": "/photos"})
TRANSFER = RunRecord("transfer", {"place": "/m"}, {"place": "/m"}, is_sole_witness=True)
BOTH = pytest.mark.parametrize("record", [UPLOAD, TRANSFER], ids=["upload", "transfer"])
REPORT = RetriedReport("/r.jsonl", "1-1")


def retry(record: RunRecord, report: RetriedReport = REPORT) -> RunRecord:
    return replace(record, retried=report)


def described(names: Sequence[Any]) -> Iterable[Finished]:
    return [(digest_of(name), Identity(5, 1_700_000_000_000_000_000, 42), 7, b"") for name in names]


async def opened(home: Path, record: RunRecord, *finished: str) -> Journal:
    """Return an open journal in which *finished* are noted, and kept."""
    journal = await Journal.open(home, record)
    journal.describe_by(described, notes_are_final=True)
    for name in finished:
        journal.note(name)
    await journal.flush()
    return journal


async def run(home: Path, record: RunRecord, *finished: str, state: str = "stopped", ok: bool = False) -> None:
    await (await opened(home, record, *finished)).end(is_complete=ok, state=state)


async def known(home: Path, record: RunRecord, *names: str) -> set[str]:
    """Return what a run of *record* goes on with of *names*, and leave it as one that was stopped."""
    journal = await Journal.open(home, record)
    try:
        return set(await journal.find(names))
    finally:
        await journal.end(is_complete=False)


def only_run(home: Path) -> Any:
    (found,) = summaries(journal_folder(home))
    return found


def begin_file(journal: Journal, name: str, folder: Path) -> Path:
    """Have a download of *name* half received; return its file."""
    half = folder / f".{name}.part"
    half.write_bytes(b"half")
    received = journal.new_large(name, {}).received()
    received.begin(Unfinished(str(half), 10, 5, '"e"', None))
    received.add(1, 5, 1)
    return half


@BOTH
async def test_a_retry_that_was_stopped_goes_on(home: Path, record: RunRecord) -> None:
    await run(home, retry(record), "a")
    assert only_run(home).arguments["retry"] == "/r.jsonl"
    assert await known(home, retry(record), "a", "b") == {"a"}
    assert only_run(home).arguments["retry"] == "/r.jsonl"
    await run(home, retry(record), "b", state="failed", ok=True)
    assert list(journal_folder(home).iterdir()) == []


@BOTH
async def test_a_retry_of_a_run_that_was_stopped_leaves_it_all_it_knows(home: Path, record: RunRecord) -> None:
    await run(home, record, "a")
    await run(home, retry(record), "b", state="failed", ok=True)
    assert (only_run(home).state, "retry" in only_run(home).arguments) == ("stopped", False)
    await run(home, retry(record), "c", state="failed")
    assert only_run(home).state == "stopped"
    assert await known(home, record, "a", "b", "c", "d") == {"a", "b", "c"}


async def test_what_an_upload_with_failures_left_half_sent_is_what_its_retry_goes_on_with(home: Path) -> None:
    journal = await opened(home, UPLOAD, "a")
    journal.begin_large("big", {"upload_id": "u"})
    journal.begin_large("another", {"upload_id": "v"})
    await journal.end(is_complete=False, state="failed")
    journal = await opened(home, retry(UPLOAD))
    assert await journal.begun(["big", "a"]) == ["big"]
    journal.end_large("big")
    await journal.end(is_complete=True, state="failed")
    assert (only_run(home).state, only_run(home).large) == ("failed", 1), "the report named not all that is half sent"
    assert await known(home, UPLOAD, "a") == {"a"}


async def test_only_the_same_retry_trusts_what_nobody_else_can_say(home: Path) -> None:
    await run(home, retry(TRANSFER), "a")
    assert await known(home, retry(TRANSFER, RetriedReport("/r.jsonl", "2-2")), "a") == set()
    assert await known(home, retry(TRANSFER), "a") == set()
    await run(home, retry(TRANSFER), "a")
    assert await known(home, TRANSFER, "a") == set()
    assert "retry" not in only_run(home).arguments


async def test_a_manifest_that_came_to_its_end_keeps_what_is_half_received(home: Path, tmp_path: Path) -> None:
    journal = await opened(home, TRANSFER, "a")
    half = begin_file(journal, "big", tmp_path)
    await journal.end(is_complete=False, state="failed")
    assert (only_run(home).state, only_run(home).objects, only_run(home).large) == ("failed", 0, 1)
    journal = await opened(home, retry(TRANSFER))
    assert await journal.begun(["big"]) == ["big"]
    received = (await journal.recall_large("big")).received()
    assert received.ranges == {1: (5, 1)}
    half.rename(tmp_path / "big")
    received.end()
    await journal.end(is_complete=True, state="failed")
    assert list(journal_folder(home).iterdir()) == []


@pytest.mark.parametrize("is_again", [False, True], ids=["for good", "for a while"])
@pytest.mark.parametrize("ok", [False, True], ids=["failed", "complete"])
async def test_a_manifest_whose_journal_was_lost_for_a_while_keeps_what_is_half_received(
    home: Path, tmp_path: Path, is_again: bool, ok: bool
) -> None:
    """Its file would otherwise stay, with nobody who knows of it. What is whole leaves neither."""
    journal = await opened(home, TRANSFER, "a")
    half = begin_file(journal, "big", tmp_path)
    await journal.flush()
    fill_the_disk(journal)
    for number in range(5000):
        journal.note(str(number))
    await journal.flush()
    assert not journal.is_kept
    if is_again:
        journal._try_again()
        await journal.flush()
        assert journal.is_kept
    await journal.end(is_complete=ok, state="failed")
    assert half.exists() is not ok
    assert [(run.state, run.objects, run.large) for run in summaries(journal_folder(home))] == [("failed", 0, 1)][ok:]


async def test_what_is_half_received_of_no_line_any_more_goes_with_the_next_whole_run(
    home: Path, tmp_path: Path
) -> None:
    journal = await opened(home, TRANSFER)
    gone, met = begin_file(journal, "gone", tmp_path), begin_file(journal, "met", tmp_path)
    await journal.end(is_complete=False, state="failed")
    await run(home, retry(TRANSFER), state="failed")
    assert only_run(home).large == 2, "a retry meets but some"
    journal = await opened(home, TRANSFER)
    await journal.begun(["met"])
    new = begin_file(journal, "new", tmp_path)
    await journal.end(is_complete=False, state="failed")
    assert (only_run(home).large, only_run(home).half_received) == (2, 2)
    assert [file.exists() for file in (gone, met, new)] == [False, True, True]
    await run(home, TRANSFER, state="failed", ok=True)
    assert not met.exists()


async def test_a_report_that_cannot_be_read_again_is_no_command(home: Path) -> None:
    await run(home, retry(UPLOAD, replace(REPORT, is_lasting=False)), "a")
    assert not only_run(home).is_rebuildable


def test_another_report_has_another_version(tmp_path: Path) -> None:
    report = tmp_path / "r.jsonl"
    report.write_text("one")
    first = RetriedReport.of(report)
    assert (first.path, first.is_lasting) == (str(report), True)
    assert RetriedReport.of(report) == first
    report.write_text("other")
    assert RetriedReport.of(report) != first
