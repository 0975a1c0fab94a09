"""``asyncsdk archive upload|unpack|download`` as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from asyncsdk import Client
from asyncsdk.cli import main
from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.journals import command_of
from asyncsdk.cli.parser import parse
from asyncsdk.engine.journal import RunSummary
from tests.support.zips import make_zip, yolo_files

BOX = "0 .5 .5 .1 .1\n"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A small dataset, packed."""
    images = {"train/a": b"a", "train/b": b"b", "val/c": b"c"}
    path = tmp_path / "pets.zip"
    path.write_bytes(make_zip(yolo_files(images, {"train/a": BOX, "val/c": BOX}, ["cat"])))
    return path


def run(tmp_path: Path, *arguments: object) -> int:
    return main(["archive", *map(str, arguments), "--data", str(tmp_path / "data")])


def records(capfd: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]


def test_a_zip_is_uploaded_unpacked_and_downloaded(
    tmp_path: Path, archive: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The dataset is made; the same command again ends the same; the file comes back."""
    for _ in range(2):
        assert run(tmp_path, "upload", archive, "zoo/pets", "--create") == ExitCode.OK
        out, err = capfd.readouterr()
        assert out == "dataset pets: 3 items, 2 annotations\n"
        assert "job " in err
    assert run(tmp_path, "unpack", "zoo/pets", "--json") == ExitCode.OK
    (record,) = records(capfd)
    assert (record["items"], record["annotations"], record["refused"], record["problems"]) == (3, 2, 0, [])
    assert run(tmp_path, "download", "zoo/pets", tmp_path / "copy.zip") == ExitCode.OK
    assert (tmp_path / "copy.zip").read_bytes() == archive.read_bytes()
    assert run(tmp_path, "download", "zoo/pets", tmp_path / "data", "--json", "--no-resume") == ExitCode.OK
    capfd.readouterr()
    with Client(data=tmp_path / "data") as client:
        assert len(list(client.datasets.list())) == 1


def test_an_archive_can_be_kept_and_its_job_left_alone(
    tmp_path: Path, archive: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without unpacking no job is made; without waiting it is there for whoever works next."""
    assert run(tmp_path, "upload", archive, "pets", "--create", "--no-unpack") == ExitCode.OK
    assert capfd.readouterr().out == "dataset pets has the archive pets.zip\n"
    with Client(data=tmp_path / "data") as client:
        assert list(client.jobs.list()) == []
    assert run(tmp_path, "upload", archive, "pets", "--no-unpack", "--json") == ExitCode.OK
    assert records(capfd)[-1]["archive_filename"] == "pets.zip"
    assert run(tmp_path, "unpack", "pets", "--no-wait", "--json") == ExitCode.OK
    (job,) = records(capfd)
    assert (job["kind"], job["payload"]["size_bytes"]) == ("unpack_archive", None)
    assert main(["jobs", "wait", job["id"], "--data", str(tmp_path / "data")]) == ExitCode.OK
    with Client(data=tmp_path / "data") as client:
        assert client.datasets.get(name="pets").item_count == 3


def test_what_is_refused_is_told_and_has_its_status(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The rest is done all the same; five of them are shown."""
    path = tmp_path / "odd.zip"
    path.write_bytes(make_zip({"good": b"x", **{f"../{number}": b"x" for number in range(7)}}))
    assert run(tmp_path, "upload", path, "odd", "--create") == ExitCode.SOME_FAILED
    out, err = capfd.readouterr()
    assert out == "dataset odd: 1 items, 0 annotations\n"
    assert "7 entries or lines of the archive were refused" in err
    assert "[invalid_name] '../4': holds the segment" in err
    assert "and 2 more; see: asyncsdk jobs get " in err


def test_mistakes_have_their_exit_status(tmp_path: Path, archive: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """No dataset, no file, no zip, no archive; no dataset is made for a file that is not there."""
    assert run(tmp_path, "upload", archive, "absent") == ExitCode.NOT_FOUND
    assert run(tmp_path, "upload", tmp_path / "absent.zip", "pets", "--create") == ExitCode.NOT_FOUND
    (tmp_path / "no.zip").write_bytes(b"no zip")
    assert run(tmp_path, "upload", tmp_path / "no.zip", "pets", "--create") == ExitCode.REFUSED
    with Client(data=tmp_path / "data") as client:
        assert list(client.datasets.list()) == []
        client.datasets.create("pets")
    assert run(tmp_path, "download", "pets", tmp_path / "x.zip") == ExitCode.NOT_FOUND
    assert "no archive" in capfd.readouterr().err


def test_a_run_that_was_stopped_can_be_gone_on_with() -> None:
    """Its journal tells the command."""
    facts = {"place": "/p/pets.zip", "dataset": "1" * 24, "url": "http://127.0.0.1:1", "source_changed": "retry"}
    for verb, name, source in (("archive_upload", "path", "upload"), ("archive_download", "destination", "download")):
        summary = RunSummary("r", verb, facts, "stopped", "", 0, 0, 0, 0, 0, 0, is_rebuildable=True)
        command = command_of(summary)
        assert command[:2] == ["archive", source]
        given = parse(command)
        assert (str(getattr(given, name)), given.dataset, given.url) == (facts["place"], facts["dataset"], facts["url"])
        assert given.source_changed == ("retry" if source == "upload" else "fail")


def test_an_archive_has_a_report_a_retry_events_and_a_summary(
    tmp_path: Path, archive: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As every command that moves files; what was there already is skipped, and what the dataset became comes last."""
    report, events = tmp_path / "r.jsonl", tmp_path / "e.jsonl"
    told = ["--report", report, "--events", events, "--json", "--outage", "5s", "--bandwidth", "100MB"]
    for status, kinds in (("done", {"object_finished", "run_ended"}), ("skipped", {"object_finished", "run_ended"})):
        assert run(tmp_path, "upload", archive, "pets", "--create", *told) == ExitCode.OK
        entry, summary, result = records(capfd)
        assert (entry["operation"], entry["name"], entry["status"]) == ("archive_upload", "pets.zip", status)
        assert (entry["source"], entry["size_bytes"]) == (str(archive), archive.stat().st_size)
        assert entry["attempts"] == (1 if status == "done" else 0)
        assert (summary["summary"][status], summary["summary"]["is_complete"], result["items"]) == (1, True, 3)
        assert [json.loads(line)["status"] for line in report.read_text().splitlines()] == [status, "complete"]
        assert kinds <= {json.loads(line)["event"] for line in events.read_text().splitlines()}
    copy = tmp_path / "copy.zip"
    assert run(tmp_path, "download", "pets", copy, *told) == ExitCode.OK
    entry, summary, result = records(capfd)
    assert (entry["operation"], entry["destination"], entry["attempts"]) == ("archive_download", str(copy), 1)
    assert (entry["name"], entry["verified"], summary["summary"]["bytes_done"]) == (
        "pets.zip",
        True,
        archive.stat().st_size,
    )
    assert result["file"] == str(copy)
    copy.unlink()
    assert run(tmp_path, "download", "pets", copy, "--retry", report) == ExitCode.OK
    assert "nothing failed" in capfd.readouterr().err
    assert not copy.exists()


def test_an_archive_that_failed_is_retried(tmp_path: Path, archive: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The report says what failed, and its retry sends it; one that would overwrite the zip is refused."""
    report = tmp_path / "r.jsonl"
    late = tmp_path / "late.zip"
    assert run(tmp_path, "upload", late, "pets", "--create", "--report", report) == ExitCode.NOT_FOUND
    failure, end = map(json.loads, report.read_text().splitlines())
    assert (failure["code"], failure["attempts"], end["status"]) == ("source_not_found", None, "complete")
    archive.rename(late)
    again = ["upload", late, "pets", "--create", "--retry", report, "--report", report]
    assert run(tmp_path, *again) == ExitCode.OK
    assert "archive upload: 1 archive done" in capfd.readouterr().err
    assert run(tmp_path, *again) == ExitCode.OK
    out, err = capfd.readouterr()
    assert (out, "nothing failed" in err) == ("", True)
    held = late.read_bytes()
    assert run(tmp_path, "upload", late, "pets", "--report", late) == ExitCode.USAGE
    assert late.read_bytes() == held


def test_a_dry_run_moves_no_archive(tmp_path: Path, archive: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Nor does it make a dataset, a file or a job; a mistake is told all the same."""
    assert run(tmp_path, "upload", archive, "pets", "--create", "--dry-run", "--json") == ExitCode.OK
    entry, summary = records(capfd)
    assert (entry["message"], entry["size_bytes"]) == ("would_send", archive.stat().st_size)
    assert summary["summary"]["skipped"] == 1
    assert run(tmp_path, "upload", archive, "pets", "--dry-run") == ExitCode.NOT_FOUND
    assert run(tmp_path, "upload", archive, "pets", "--create", "--no-unpack") == ExitCode.OK
    assert run(tmp_path, "download", "pets", tmp_path / "copy.zip", "--dry-run", "--json") == ExitCode.OK
    entry, summary = records(capfd)
    assert (entry["name"], entry["message"]) == ("pets.zip", "would_fetch")
    assert not (tmp_path / "copy.zip").exists()
    with Client(data=tmp_path / "data") as client:
        (dataset,) = client.datasets.list()
        assert (dataset.item_count, list(client.jobs.list())) == (0, [])
