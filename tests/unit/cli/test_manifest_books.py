"""What the journal of a manifest knows of objects in parts: of which file, of which upload."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from asyncsdk.checksums import crc32c
from asyncsdk.cli import manifest_books
from asyncsdk.cli.manifest_books import ManifestBooks
from asyncsdk.cli.manifest_lines import parse_line
from asyncsdk.engine import Download, Outcome, Resume, SentPart, Skipped, Transfer, Upload
from asyncsdk.engine.journal import Journal, RunRecord

RUN = RunRecord("transfer", {"place": "/m.jsonl"})
PART = SentPart(1, 100, "00000001", '"e"')


def session(upload_id: str = "a") -> dict[str, Any]:
    return {"resumable": {"url": f"https://g.example/b/o.bin?upload_id={upload_id}"}}


def parts(upload_id: str = "a") -> dict[str, Any]:
    urls = [f"https://b.example/o.bin?uploadId={upload_id}&partNumber={number}&X-Amz-Date=1" for number in (1, 2, 3)]
    return {"multipart": {"part_urls": urls, "part_size": 100, "complete_url": urls[0]}}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    made = tmp_path / "o.bin"
    made.write_bytes(bytes(250))
    return made


async def taken(home: Path, source: Path, values: dict[str, Any], *, is_begun: bool = False) -> Transfer:
    """Return what a run gives the engine for a line; with *is_begun* it is killed when a part has arrived."""
    journal = await Journal.open(home, RUN)
    try:
        line = json.dumps({"source": str(source)} | values).encode()
        (found,) = await ManifestBooks(journal).go_on([parse_line(line, 1, "m")])
        if is_begun:
            assert isinstance(found, Upload)
            resume = resume_of(found)
            assert resume.on_begin is not None
            assert resume.on_part is not None
            resume.on_begin(found.target.upload_id, found.target.part_size)  # type: ignore[union-attr]
            resume.on_part(PART)
            await journal.flush()
        return found
    finally:
        await journal.end(is_complete=False)


def resume_of(transfer: Transfer) -> Resume:
    assert isinstance(transfer, Upload)
    assert transfer.resume is not None
    return transfer.resume


@pytest.mark.parametrize("values", [session, parts])
async def test_parts_are_known_to_the_next_run(home: Path, source: Path, values: Any) -> None:
    """Of the same upload, whose file is the same."""
    begun = await taken(home, source, values(), is_begun=True)
    resume = resume_of(await taken(home, source, values()))
    assert (resume.upload_id, resume.parts) == (begun.target.upload_id, (PART,))  # type: ignore[union-attr]
    facts = source.stat()
    assert resume.identity == (facts.st_size, facts.st_mtime_ns, facts.st_ino)


@pytest.mark.parametrize("values", [session, parts])
async def test_parts_of_another_upload_are_told_apart_by_its_id(home: Path, source: Path, values: Any) -> None:
    """The engine finds another id in the target, and begins anew."""
    await taken(home, source, values(), is_begun=True)
    other = await taken(home, source, values("b"))
    assert resume_of(other).upload_id != other.target.upload_id  # type: ignore[union-attr]


async def test_parts_of_a_file_that_was_changed_are_not_taken(home: Path, source: Path) -> None:
    """The new ones are told under what the file is now."""
    await taken(home, source, parts(), is_begun=True)
    os.utime(source, (1, 1))
    resume = resume_of(await taken(home, source, parts()))
    assert (resume.upload_id, resume.parts) == ("", ())
    assert resume.identity is not None
    assert resume.identity[1] == 1_000_000_000


async def test_a_session_that_has_bytes_of_another_file_is_told_so(home: Path, source: Path) -> None:
    """What it has cannot be replaced: whoever sends ends it. A fresh session takes the new file."""
    await taken(home, source, session(), is_begun=True)
    os.utime(source, (1, 1))
    spoilt = resume_of(await taken(home, source, session()))
    assert spoilt.identity is not None
    assert spoilt.identity[1] != 1_000_000_000
    fresh = resume_of(await taken(home, source, session("b")))
    assert fresh.identity is not None
    assert (fresh.upload_id, fresh.identity[1]) == ("", 1_000_000_000)


async def test_what_arrived_is_skipped_and_its_parts_are_forgotten(home: Path, source: Path) -> None:
    upload = await taken(home, source, parts(), is_begun=True)
    journal = await Journal.open(home, RUN)
    books = ManifestBooks(journal)
    checksum = f"{crc32c(source.read_bytes()):08x}"
    outcome = Outcome(upload, "done", size_bytes=250, checksum=f"crc32c:{checksum}")
    books.arrived(outcome)
    await books.settle([outcome])
    await journal.end(is_complete=False)
    journal = await Journal.open(home, RUN)
    assert await journal.begun([upload.key.name]) == []
    await journal.end(is_complete=False)
    assert isinstance(await taken(home, source, parts()), Skipped)


@pytest.mark.parametrize("keeps_changing", [True, False])
async def test_a_file_that_was_changed_this_moment_is_looked_at_when_that_is_over(
    home: Path, source: Path, monkeypatch: pytest.MonkeyPatch, keeps_changing: bool
) -> None:
    """Changed once more within one tick of the clock it has the same time, and was taken for moved already."""
    clock = [source.stat().st_mtime_ns + 1_000_000]

    def sleep(seconds: float) -> None:
        clock[0] += round(seconds * 1e9) + 1
        if keeps_changing:
            os.utime(source, ns=(clock[0], clock[0]))

    monkeypatch.setattr(manifest_books, "time", SimpleNamespace(time_ns=lambda: clock[0], sleep=sleep))
    upload = await taken(home, source, parts(), is_begun=True)
    assert resume_of(upload).identity == ((-1, -1, -1) if keeps_changing else upload.key.file)
    clock[0] += 10**9
    assert bool(resume_of(await taken(home, source, parts())).parts) is not keeps_changing
    journal = await Journal.open(home, RUN)
    ManifestBooks(journal).arrived(Outcome(upload, "done", size_bytes=250, checksum="crc32c:00000000"))
    await journal.end(is_complete=False)
    assert isinstance(await taken(home, source, parts()), Skipped) is not keeps_changing


async def test_a_download_that_stands_there_twice_has_one_half_received_file(home: Path, tmp_path: Path) -> None:
    """The second began a file of its own, and with that the journal removed the one of the first."""
    journal = await Journal.open(home, RUN)
    try:
        books = ManifestBooks(journal)
        line = json.dumps({"url": "https://b.example/o", "destination": str(tmp_path / "o")}).encode()
        found = [one for number in (1, 2) for one in await books.go_on([parse_line(line, number, "m")])]
        first, second = (one for one in found if isinstance(one, Download))
        assert (first.received is not None, second.received, second.wants_identity) == (True, None, True)
        await books.settle([Outcome(second, "done")])
        (third,) = await books.go_on([parse_line(line, 3, "m")])
        assert isinstance(third, Download)
        assert third.received is None
        await books.settle([Outcome(first, "failed")])
        (fourth,) = await books.go_on([parse_line(line, 4, "m")])
        assert isinstance(fourth, Download)
        assert fourth.received is not None
    finally:
        await journal.end(is_complete=True)


async def test_a_file_that_cannot_be_looked_at_is_nobodys(home: Path, tmp_path: Path) -> None:
    found = await taken(home, tmp_path / "none", parts())
    assert isinstance(found, Upload)
    assert found.resume is None
