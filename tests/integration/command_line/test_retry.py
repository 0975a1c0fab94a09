"""Reports of the command line, and going on with what failed."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.reports import read_failed
from tests.integration.command_line.conftest import Served, files_in
from tests.support.commands import Caller, command, lines, run


def test_retry_sends_only_what_failed(call: Caller, photos: Path, tmp_path: Path) -> None:
    """A link that pointed to nothing is mended; the retry moves it and nothing else, into the same report."""
    (photos / "later.jpg").symlink_to(tmp_path / "later")
    report = tmp_path / "report.jsonl"
    said = call("upload", photos, "d", "--create", "--report", report)
    assert said.status == ExitCode.SOME_FAILED
    assert "[source_not_found]" in said.err
    *lines, end = [json.loads(line) for line in report.read_text().splitlines()]
    assert end == {"operation": "upload", "name": "", "status": "complete"}
    assert sorted(line["name"] for line in lines) == sorted([*files_in(photos), "later.jpg"])
    assert [line["name"] for line in lines if line["status"] == "failed"] == ["later.jpg"]
    (photos / "new.jpg").write_bytes(b"not in the report")
    said = call("upload", photos, "d", "--retry", report, "--report", report)
    assert said.status == ExitCode.SOME_FAILED
    before = report.read_bytes()
    assert call("upload", photos, "d", "--retry", report, "--report", report, "--dry-run").status == ExitCode.USAGE
    assert report.read_bytes() == before
    (tmp_path / "later").write_bytes(b"here now")
    said = call("upload", photos, "d", "--retry", report, "--report", report, "--json")
    assert said.status == 0
    assert [record.get("name") for record in said.records] == ["later.jpg", None]
    assert [json.loads(line)["status"] for line in report.read_text().splitlines()] == ["done", "complete"]
    said = call("upload", photos, "d", "--retry", report)
    assert (said.status, said.out) == (0, "")
    assert not call("items", "get", "d", "later.jpg").status
    assert call("items", "get", "d", "new.jpg").status == ExitCode.NOT_FOUND


def test_download_is_retried_by_path(call: Caller, photos: Path, tmp_path: Path) -> None:
    """A folder in the way makes an item fail; the retry fetches it alone, and tells what was deleted meanwhile."""
    call("upload", photos, "d", "--create")
    copy, report = tmp_path / "copy", tmp_path / "report.jsonl"
    for name in ("a.jpg", "b.png"):
        (copy / name).mkdir(parents=True)
    said = call("download", "d", copy, "--report", report)
    assert said.status == ExitCode.SOME_FAILED
    assert "2 destination_unwritable" in said.err
    for name in ("a.jpg", "b.png"):
        (copy / name).rmdir()
    (copy / ".hidden").unlink()
    assert call("items", "delete", "d", "b.png", "--yes").status == 0
    said = call("download", "d", copy, "--retry", report, "--json")
    assert said.status == ExitCode.SOME_FAILED
    assert {record["name"]: record["code"] for record in said.records[:-1]} == {"a.jpg": None, "b.png": "not_found"}
    assert (copy / "a.jpg").read_bytes() == (photos / "a.jpg").read_bytes()
    assert not (copy / ".hidden").exists()


def test_folder_that_could_not_be_listed_is_walked_again(call: Caller, photos: Path, tmp_path: Path) -> None:
    """A failure that stands for a folder becomes the files in it; patterns count from the top as before."""
    call("datasets", "create", "d")
    report = tmp_path / "report.jsonl"
    entry = {"operation": "upload", "name": "train/", "source": str(photos / "train"), "status": "failed"}
    report.write_text(lines(entry, {"operation": "upload", "name": "", "status": "complete"}))
    said = call("upload", photos, "d", "--retry", report, "--report", report, "--exclude", "/train/c.*", "--json")
    assert said.status == 0
    assert [record.get("name") for record in said.records] == ["train/grün ü#?.jpg", None]
    assert [json.loads(line)["status"] for line in report.read_text().splitlines()] == ["done", "complete"]


def test_retry_keeps_the_name_that_was_refused(call: Caller, photos: Path, tmp_path: Path) -> None:
    """A name that is no Unicode is refused again, not replaced by the text that stands for it in the report."""
    (photos / os.fsdecode(b"bad\xff.jpg")).write_bytes(b"x")
    report = tmp_path / "report.jsonl"
    arguments = ["upload", photos, "d", "--create", "--report", report, "--json"]
    refused = [entry for entry in call(*arguments).records if entry.get("status") == "failed"]
    assert [entry["code"] for entry in refused] == ["invalid_name"]
    said = call(*arguments, "--retry", report)
    assert said.status == ExitCode.SOME_FAILED
    assert said.records[:-1] == refused
    assert len(call("items", "list", "d", "--json").records) == 6


def test_folder_that_stays_unreadable_stays_a_failure(
    call: Caller, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry passes it by, tries the rest, and leaves it in the report for the next one."""
    list_folder = os.scandir

    def closed(folder: Any = ".") -> Any:
        if not isinstance(folder, int) and os.fspath(folder) == str(photos / "train"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fspath(folder))
        return list_folder(folder)

    (photos / "zlater").symlink_to(tmp_path / "later")
    report = tmp_path / "report.jsonl"
    arguments = ["upload", photos, "d", "--create", "--report", report, "--json"]
    monkeypatch.setattr(os, "scandir", closed)
    assert call(*arguments).summary["failures_by_code"] == {"source_unreadable": 1, "source_not_found": 1}
    (tmp_path / "later").write_bytes(b"here now")
    said = call(*arguments, "--retry", report)
    assert said.status == ExitCode.SOME_FAILED
    assert {entry["name"]: entry["status"] for entry in said.records[:-1]} == {"train": "failed", "zlater": "done"}
    assert [entry["name"] for entry in read_failed(report, "upload")] == ["train"]
    monkeypatch.setattr(os, "scandir", list_folder)
    said = call(*arguments, "--retry", report)
    assert (said.status, said.summary["done"]) == (0, 2)
    assert list(read_failed(report, "upload")) == []


@pytest.mark.parametrize(
    "command_line",
    ["upload {} d --create", "checkpoint upload {} m --create", "transfer {}",
     "predictions upload {} d --task t --create --kind classification --category c"],
)  # fmt: skip
def test_report_does_not_overwrite_the_input(call: Caller, tmp_path: Path, command_line: str) -> None:
    """Neither by name nor through a link; nothing is made on the platform either."""
    source, link = tmp_path / "input.jsonl", tmp_path / "link"
    source.write_bytes(b"precious\n")
    link.symlink_to(source)
    for report in (source, link):
        said = call(*command_line.format(source).split(), "--report", report)
        assert said.status == ExitCode.USAGE
        assert f"--report would overwrite {source}; name another file" in said.err
        assert source.read_bytes() == b"precious\n"
    assert call("datasets", "list", "--json").out + call("models", "list", "--json").out == ""


def test_report_does_not_overwrite_the_manifest_on_standard_input(tmp_path: Path) -> None:
    """A redirected file is known although its name is not."""
    manifest = tmp_path / "m.jsonl"
    manifest.write_bytes(b"precious\n")
    with manifest.open() as file:
        done = subprocess.run(
            command("transfer", "-", "--report", manifest), stdin=file, capture_output=True, text=True
        )
    assert done.returncode == ExitCode.USAGE
    assert "--report would overwrite standard input" in done.stderr
    assert manifest.read_bytes() == b"precious\n"


def test_report_inside_the_folder_is_not_uploaded(call: Caller, photos: Path) -> None:
    """A report that grows while its folder is uploaded is left out."""
    said = call("upload", photos, "d", "--create", "--report", photos / "re[p]ort.jsonl", "--json")
    assert said.status == 0
    assert "re[p]ort.jsonl" not in {record.get("name") for record in said.records}


def test_reports_hold_no_secret(served: Served, photos: Path, tmp_path: Path) -> None:
    """Neither the token nor a signed query stands in the report or on any stream."""
    report = tmp_path / "r.jsonl"
    said = run("upload", photos, "secrets", "--create", "--report", report, "--json", "--debug",
               ASYNCSDK_URL=served.url, ASYNCSDK_TOKEN=served.token)  # fmt: skip
    assert said.status == 0
    for text in (report.read_text(), said.out, said.err):
        assert served.token not in text
        assert "signature" not in text
