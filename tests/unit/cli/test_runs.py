"""Runs: a report says whether it is whole, and a retry does not make it look so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.options import Arguments
from asyncsdk.cli.output import Output
from asyncsdk.cli.reports import make_entry
from asyncsdk.cli.runs import Run
from asyncsdk.errors import ConnectionFailed, SourceNotFound

MARKER = {"operation": "upload", "name": "", "status": "incomplete"}
WHOLE = ("", "complete")


def begin(report: Path | None, retry: Path | None = None, *, is_single: bool = False) -> Run:
    arguments = Arguments(report=report, retry=retry)
    return Run(Invocation(arguments, Output()), "upload", source=None, is_single=is_single)


def entry(name: str, *, is_failed: bool = False) -> dict[str, object]:
    error = SourceNotFound(f"{name}: gone") if is_failed else None
    return make_entry("upload", name, "done", source=f"/s/{name}", destination=None, error=error)


def stop(run: Run, *entries: dict[str, object]) -> None:
    """Let *run* write *entries* and be ended by an error."""
    with pytest.raises(ConnectionFailed), run:
        for one in entries:
            run.write(one)
        raise ConnectionFailed("gone")


def lines_of(report: Path) -> list[tuple[str, str]]:
    return [(line["name"], line["status"]) for line in map(json.loads, report.read_text().splitlines())]


def test_report_of_a_run_that_was_stopped_says_so(tmp_path: Path) -> None:
    """Its last line is the marker; that of a whole run says that it is whole."""
    report = tmp_path / "r.jsonl"
    stop(begin(report), entry("a"))
    assert json.loads(report.read_text().splitlines()[-1]) == MARKER
    with begin(report) as run:
        run.write(entry("a"))
    assert lines_of(report) == [("a", "done"), WHOLE]


@pytest.mark.parametrize("kept_in", ["r.jsonl", "other.jsonl"])
def test_retry_of_a_stopped_run_is_not_the_whole(
    tmp_path: Path, kept_in: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What failed is done, what was never tried is told: sentence, exit status, and again in the next report."""
    report, kept = tmp_path / "r.jsonl", tmp_path / kept_in
    stop(begin(report), entry("a", is_failed=True))
    for retried in (report, kept):
        with begin(kept, retried) as run:
            run.write(entry("a"))
        assert run.exit_code == ExitCode.SOME_FAILED
        assert "was stopped; run the command again without --retry" in capsys.readouterr().err
        assert lines_of(kept) == [("a", "done"), ("", "incomplete")]


def test_retry_of_a_whole_run_is_the_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also when an earlier retry into the same report was stopped: it kept every failure it had not reached."""
    report = tmp_path / "r.jsonl"
    with begin(report) as run:
        run.write(entry("a", is_failed=True))
        run.write(entry("sub/", is_failed=True))
    retry = begin(report, report)
    with pytest.raises(ConnectionFailed), retry:
        retry.settle(entry("sub/", is_failed=True))
        raise ConnectionFailed("gone")
    assert lines_of(report) == [("a", "failed"), ("sub/", "failed"), WHOLE]
    with begin(report, report) as run:
        run.write(entry("a"))
        run.settle(entry("sub/", is_failed=True))
    assert run.exit_code == ExitCode.OK
    assert lines_of(report) == [("a", "done"), WHOLE]
    assert "was stopped" not in capsys.readouterr().err


def test_retry_that_is_stopped_with_a_report_of_its_own_says_so(tmp_path: Path) -> None:
    """The new report does not hold what was not reached."""
    report, other = tmp_path / "r.jsonl", tmp_path / "other.jsonl"
    with begin(report) as run:
        run.write(entry("a", is_failed=True))
    stop(begin(other, report))
    assert lines_of(other) == [("", "incomplete")]


def test_single_object_that_failed_is_the_whole(tmp_path: Path) -> None:
    """The failure of the only object says everything; one that was interrupted left nothing to say."""
    report = tmp_path / "r.jsonl"
    run = begin(report, is_single=True)
    with pytest.raises(ConnectionFailed), run:
        error = ConnectionFailed("gone")
        run.tally.add_failure("a", error)
        run.write(make_entry("upload", "a", "failed", source="/s/a", destination=None, error=error))
        raise error
    assert lines_of(report) == [("a", "failed"), WHOLE]
    with pytest.raises(KeyboardInterrupt), begin(report, is_single=True):
        raise KeyboardInterrupt
    assert lines_of(report) == [("", "incomplete")]


def test_a_name_with_a_line_end_stays_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever names files says nothing in the name of this program."""
    with begin(None) as run:
        for name in ("a\nasyncsdk: upload: all is well", "b"):
            run.tally.add_failure(name, SourceNotFound(f"{name}: gone"))
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == ["asyncsdk"] * 3
