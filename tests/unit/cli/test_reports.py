"""Reports: what is written can be read, whatever happened to the file meanwhile."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.cli.reports import (
    ReportWriter,
    entry_of,
    failed_lines,
    make_end,
    make_entry,
    read_failed,
    was_stopped,
)
from asyncsdk.engine import Outcome, PutTarget, Refused, Skipped, Upload
from asyncsdk.errors import ConfigError, DestinationFull, DestinationUnwritable, SourceNotFound


def failed(name: str, **facts: object) -> dict[str, object]:
    error = SourceNotFound(f"{name}: gone")
    return make_entry("upload", name, "failed", source=f"/s/{name}", destination=None, error=error, **facts)


def done(name: str) -> dict[str, object]:
    return make_entry("upload", name, "done", source=f"/s/{name}", destination=None, size_bytes=3)


def names_in(path: Path) -> list[str]:
    return [json.loads(line)["name"] for line in path.read_text().splitlines()]


def write(path: Path, entries: list[dict[str, object]], retried: Path | None = None) -> None:
    writer = ReportWriter(path, retried=retried)
    for entry in entries:
        writer.write(entry)
    writer.close()


def test_failed_lines_come_back(tmp_path: Path) -> None:
    """Reading gives what failed, in order, with everything that was written."""
    report = tmp_path / "r.jsonl"
    write(report, [done("a"), failed("b", metadata={"k": 1}), failed("c"), done("d")])
    assert names_in(report) == ["a", "b", "c", "d"]
    assert list(read_failed(report, "upload")) == [failed("b", metadata={"k": 1}), failed("c")]


def test_names_that_are_no_unicode_come_back(tmp_path: Path) -> None:
    """A path keeps its bytes through the report."""
    report = tmp_path / "r.jsonl"
    write(report, [failed("bad\udcff"), failed("grün")])
    assert [entry["name"] for entry in read_failed(report, "upload")] == ["bad\udcff", "grün"]


def test_last_line_cut_short_is_passed_over(tmp_path: Path) -> None:
    """The report of a killed process can be retried, wherever its last line ends."""
    report = tmp_path / "r.jsonl"
    write(report, [failed("a"), failed("b")])
    whole = report.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole) - 2):
        report.write_bytes(whole[:length])
        assert [entry["name"] for entry in read_failed(report, "upload")] == ["a"]


@pytest.mark.parametrize("content", [b"nonsense\n{}\n", b"[1]\n", b'{"name": "a"}\n'])
def test_what_is_no_report_is_refused(tmp_path: Path, content: bytes) -> None:
    """The line is named."""
    report = tmp_path / "r.jsonl"
    report.write_bytes(content)
    with pytest.raises(ConfigError, match="line 1: is no line of a report"):
        list(failed_lines(report))


def test_report_of_another_operation_is_refused(tmp_path: Path) -> None:
    report = tmp_path / "r.jsonl"
    write(report, [failed("a")])
    with pytest.raises(ConfigError, match="cannot be retried by 'download'"):
        list(read_failed(report, "download"))


def test_retry_into_the_same_file_keeps_what_was_not_reached(tmp_path: Path) -> None:
    """The old report stands until the new one is whole; failures that were not tried again stay in it."""
    report = tmp_path / "r.jsonl"
    write(report, [failed("a"), failed("b"), done("c")])
    writer = ReportWriter(report, retried=report)
    writer.write(done("a"))
    assert names_in(report) == ["a", "b", "c"]
    writer.close()
    assert [json.loads(line)["status"] for line in report.read_text().splitlines()] == ["done", "failed"]
    assert names_in(report) == ["a", "b"]
    assert [path.name for path in tmp_path.iterdir()] == ["r.jsonl"]


@pytest.mark.parametrize(("is_whole", "kept"), [(False, [2]), (True, [])])
def test_of_two_lines_of_a_manifest_for_one_place_each_is_reached_for_itself(
    tmp_path: Path, is_whole: bool, kept: list[int]
) -> None:
    """What tells them apart, the query, no report holds. A retry that was stopped in between lost the second."""
    report = tmp_path / "r.jsonl"
    where: dict[str, Any] = {"source": "a", "destination": "https://b.example/upload"}
    error = SourceNotFound("a: gone")
    write(report, [make_entry("transfer", "a", "failed", **where, error=error, line=number) for number in (1, 2)])
    writer = ReportWriter(report, retried=report)
    writer.write(make_entry("transfer", "a", "done", **where, line=1))
    writer.close(is_whole=is_whole)
    assert [entry["line"] for entry in read_failed(report, "transfer")] == kept


@pytest.mark.parametrize("is_whole", [False, True])
def test_a_bad_line_of_a_manifest_that_was_mended_has_failed_no_more(tmp_path: Path, is_whole: bool) -> None:
    """It stayed a failure, and each further retry moved what it is about once more."""
    report, error = tmp_path / "r.jsonl", ConfigError("no JSON")
    bad = [
        make_entry("transfer", f"m:{number}", "failed", source=None, destination=None, error=error, line=number)
        for number in (1, 2, 3)
    ]
    write(report, bad)
    writer = ReportWriter(report, retried=report)
    writer.write(make_entry("transfer", "a", "done", source="a", destination="https://b.example/a", line=1))
    writer.write(bad[1] | {"name": "/elsewhere/m:2"})
    writer.close(is_whole=is_whole)
    assert [entry["name"] for entry in read_failed(report, "transfer")] == ["/elsewhere/m:2", "m:3"]


def test_a_retry_into_the_same_file_that_is_killed_changes_nothing(tmp_path: Path) -> None:
    """The old report is there, byte for byte, whenever the process ends without closing the new one."""
    report = tmp_path / "r.jsonl"
    write(report, [failed(str(number)) for number in range(50)])
    before = report.read_bytes()
    script = (
        "import os, signal, sys; from pathlib import Path; from asyncsdk.cli.reports import ReportWriter, make_entry\n"
        "writer = ReportWriter(Path(sys.argv[1]), retried=Path(sys.argv[1]))\n"
        "for number in range(20):\n"
        "    writer.write(make_entry('upload', str(number), 'done', source=f'/s/{number}', destination=None))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, report], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert report.read_bytes() == before
    write(report, [done(str(number)) for number in range(20)], retried=report)
    assert [entry["name"] for entry in read_failed(report, "upload")] == [str(number) for number in range(20, 50)]


@pytest.mark.parametrize("why", ["unreadable", "full", "not durable", "not replaced"])
def test_a_retry_into_the_same_file_that_goes_wrong_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    """A line that is none, a disk that is full, a rename that is refused: told, and the old report stands as it was."""
    report = tmp_path / "r.jsonl"
    write(report, [failed("a"), failed("b")])
    writer = ReportWriter(report, retried=report)
    writer.write(done("a"))

    def refuse(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    if why == "unreadable":
        report.write_bytes(report.read_bytes() + b"nonsense\n" + json.dumps(failed("c")).encode() + b"\n")
    elif why == "full":
        monkeypatch.setattr(writer._lines._file, "write", refuse)
    elif why == "not durable":
        monkeypatch.setattr(os, "fsync", refuse)
    else:
        monkeypatch.setattr(Path, "replace", refuse)
    before = report.read_bytes()
    with pytest.raises(ConfigError if why == "unreadable" else DestinationFull):
        writer.close()
    assert report.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["r.jsonl"]


def test_entries_settled_by_others_are_not_kept(tmp_path: Path) -> None:
    """A folder that was walked again is not a failure any more."""
    report = tmp_path / "r.jsonl"
    write(report, [failed("sub/")])
    writer = ReportWriter(report, retried=report)
    writer.settle(failed("sub/"))
    writer.write(done("sub/a"))
    writer.close()
    assert names_in(report) == ["sub/a"]


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (b"", True),
        (b'{"operation": "upload", "name": "", "status": "complete"}\n', False),
        (b'{"operation": "upload", "name": "", "status": "complete"}\n\n', False),
        (b'{"operation": "upload", "name": "", "status": "complete"}', True),
        (b'{"operation": "upload", "name": "", "status": "incomplete"}\n', True),
        (b'{"operation": "upload", "name": "", "status": "incomplete"}\n\n', True),
        (b'{"operation": "upload", "name": "cut sh', True),
        (json.dumps({"operation": "upload", "name": "long", "status": "done", "metadata": "x" * 9000}).encode(), True),
        (json.dumps({"name": "long", "status": "done", "metadata": "x" * 9000}).encode() + b"\n", True),
        (b"nonsense\n", True),
        (b"[1]\n", True),
    ],
    ids=[
        "killed", "whole", "whole, blank line", "whole, cut", "marker", "blank line", "cut short", "long cut short",
        "long", "nonsense", "array",
    ],
)  # fmt: skip
def test_end_of_a_report_says_whether_its_run_was_stopped(tmp_path: Path, end: bytes, expected: bool) -> None:
    """Only the line that ends the report of a whole run says so; however many lines stand before it."""
    report = tmp_path / "r.jsonl"
    for entries in ([], [done(str(number)) for number in range(100)]):
        write(report, entries)
        with report.open("ab") as file:
            file.write(end)
        assert was_stopped(report, "upload") is expected


def test_end_of_a_report_that_cannot_be_looked_at(tmp_path: Path) -> None:
    """Another operation and a missing file are told; a pipe is left for whoever reads it."""
    report = tmp_path / "r.jsonl"
    with pytest.raises(SourceNotFound):
        was_stopped(report, "upload")
    write(report, [make_end("download", is_complete=True)])
    with pytest.raises(ConfigError, match="cannot be retried by 'upload'"):
        was_stopped(report, "upload")
    os.mkfifo(tmp_path / "pipe")
    assert not was_stopped(tmp_path / "pipe", "upload")


def test_last_line_stands_behind_what_was_kept(tmp_path: Path) -> None:
    """A report that is retried ends with its marker, which is no failure."""
    report = tmp_path / "r.jsonl"
    write(report, [failed("a"), failed("b")])
    writer = ReportWriter(report, retried=report)
    writer.write(done("a"))
    writer.close(last=make_end("upload", is_complete=False))
    assert names_in(report) == ["a", "b", ""]
    assert [entry["name"] for entry in read_failed(report, "upload")] == ["b"]


def test_lines_reach_the_file_before_it_is_closed(tmp_path: Path) -> None:
    """A process that dies loses no line that its writer thread has taken; threads end with `close`."""
    report = tmp_path / "r.jsonl"
    before = threading.active_count()
    writer = ReportWriter(report)
    for number in range(5_000):
        writer.write(done(str(number)))
    assert threading.active_count() == before + 1
    writer.close()
    writer.close()
    assert names_in(report) == [str(number) for number in range(5_000)]
    assert threading.active_count() == before


def test_folder_that_is_not_there_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(DestinationUnwritable):
        ReportWriter(tmp_path / "none" / "r.jsonl")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, the disk that is always full")
def test_full_disk_is_told_and_nobody_hangs() -> None:
    """A report that cannot be written is an error, also when far more lines come than fit the queue."""
    writer = ReportWriter(Path("/dev/full"))
    with pytest.raises(DestinationFull):
        for number in range(100_000):
            writer.write(done(str(number)))
    with pytest.raises(DestinationFull):
        writer.close()


def test_outcomes_become_lines_without_secrets() -> None:
    """Status, code and message are the outcome's; no URL stands in them."""
    upload = Upload(b"x", PutTarget("http://h/o?signature=s3cret"), name="a")
    line = entry_of("upload", Outcome(upload, "done", size_bytes=1, attempts=2, checksum="crc32c:00000001"),
                    source="<bytes>", destination=None)  # fmt: skip
    assert (line["status"], line["size_bytes"], line["attempts"], line["crc32c"]) == ("done", 1, 2, "00000001")
    assert "s3cret" not in json.dumps(line)
    refused = Outcome(Refused("b", SourceNotFound("b: gone")), "failed", error=SourceNotFound("b: gone"))
    line = entry_of("upload", refused, source=None, destination=None, metadata=None)
    assert (line["status"], line["code"], line["message"]) == ("failed", "source_not_found", "b: gone")
    assert "metadata" not in line
    skipped = Outcome(Skipped("c", 5, None, "would_send"), "skipped", size_bytes=5)
    assert entry_of("upload", skipped, source=None, destination=None)["message"] == "would_send"
