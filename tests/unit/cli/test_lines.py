"""Files of lines: one run at a time writes one, and nobody empties a file that another is writing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from asyncsdk.cli.events import EventWriter
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.lines import claim, open_alone
from asyncsdk.cli.options import Arguments
from asyncsdk.cli.output import Output
from asyncsdk.cli.reports import ReportWriter, make_end, make_entry
from asyncsdk.cli.runs import Run
from asyncsdk.engine.temporaries import is_temporary
from asyncsdk.errors import ConfigError, DestinationUnwritable

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="locks of files are POSIX's")


def entry(name: str) -> dict[str, object]:
    return make_entry("upload", name, "failed", source=f"/s/{name}", destination=None)


def names_in(path: Path) -> list[str]:
    return [json.loads(line)["name"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("is_retried", [False, True])
def test_a_report_that_another_run_writes_is_left_alone(tmp_path: Path, is_retried: bool) -> None:
    """Refused before anything of it is gone; and the run that writes it goes on as if nobody had come."""
    report = tmp_path / "r.jsonl"
    ReportWriter(report).close()
    first = ReportWriter(report, retried=report if is_retried else None)
    first.write(entry("a"))
    for retried in (None, report):
        with pytest.raises(ConfigError, match="another run writes it"):
            ReportWriter(report, retried=retried)
    first.write(entry("b"))
    first.close(last=make_end("upload", is_complete=True))
    assert names_in(report) == ["a", "b", ""]
    ReportWriter(report, retried=report).close()
    ReportWriter(report).close()
    assert report.read_bytes() == b""
    assert [path.name for path in tmp_path.iterdir()] == ["r.jsonl"]


def test_what_a_kill_leaves_of_a_retry_is_never_taken_for_data(tmp_path: Path) -> None:
    report = tmp_path / "r.jsonl"
    ReportWriter(report).close()
    writer = ReportWriter(report, retried=report)
    assert [is_temporary(path.name) for path in tmp_path.iterdir() if path != report] == [True]
    writer.close()


def test_another_process_is_refused_too(tmp_path: Path) -> None:
    report = tmp_path / "r.jsonl"
    first = ReportWriter(report)
    first.write(entry("a"))
    first._lines.wait()
    script = (
        "import sys; from pathlib import Path; from asyncsdk.cli.lines import open_alone\n"
        "from asyncsdk.errors import ConfigError\n"
        "try:\n    open_alone(Path(sys.argv[1]))\nexcept ConfigError as error:\n    print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", script, report], check=True, capture_output=True, text=True)
    assert "another run writes it" in said.stdout
    assert names_in(report) == ["a"]
    first.close()


def test_events_are_written_by_one_run(tmp_path: Path) -> None:
    first = EventWriter(tmp_path / "e.jsonl", Output())
    with pytest.raises(ConfigError, match="another run writes it"):
        EventWriter(tmp_path / "e.jsonl", Output())
    first.close()
    EventWriter(tmp_path / "e.jsonl", Output()).close()


def test_a_file_that_was_put_in_its_place_is_the_one_that_is_claimed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking, whoever held it renamed another onto it: that one is opened then."""
    report, other = tmp_path / "r.jsonl", tmp_path / "other"
    report.write_text("old\n")
    other.write_text("new\n")
    real = os.open

    def slow(path: object, *arguments: int) -> int:
        descriptor = real(path, *arguments)  # type: ignore[arg-type]
        if other.exists():
            other.replace(report)
        return descriptor

    monkeypatch.setattr(os, "open", slow)
    descriptor = claim(report)
    assert os.path.samestat(os.fstat(descriptor), report.stat())
    os.close(descriptor)
    assert report.read_text() == "new\n"


def test_devices_may_be_shared(tmp_path: Path) -> None:
    first, second = open_alone(Path(os.devnull)), open_alone(Path(os.devnull))
    first.close()
    second.close()


def test_events_that_cannot_be_opened_leave_nothing_behind(tmp_path: Path) -> None:
    """Neither the retry's temporary file nor a thread; the same the other way round."""
    report = tmp_path / "r.jsonl"
    ReportWriter(report).close(last=make_end("upload", is_complete=True))
    before, threads = report.read_bytes(), threading.active_count()
    missing = tmp_path / "none" / "x.jsonl"
    for arguments in (
        Arguments(report=report, retry=report, events=missing),
        Arguments(report=missing, retry=report, events=tmp_path / "e.jsonl"),
    ):
        with pytest.raises(DestinationUnwritable), Run(Invocation(arguments, Output()), "upload", source=None):
            pass
    (tmp_path / "e.jsonl").unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["r.jsonl"]
    assert (report.read_bytes(), threading.active_count()) == (before, threads)
