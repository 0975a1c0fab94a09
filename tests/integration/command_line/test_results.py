"""Checkpoints and predictions on the command line."""

from __future__ import annotations

import filecmp
import json
import os
from pathlib import Path

from asyncsdk.cli.exits import ExitCode
from asyncsdk.engine.waits import WaitReason
from tests.integration.command_line.conftest import Served
from tests.support.commands import Caller, Said, lines


def test_checkpoint_goes_and_comes_back(served: Served, tmp_path: Path, call: Caller) -> None:
    """By parts and ranges over HTTP; which one is chosen by --which; facts are kept."""
    weights = tmp_path / "last.pt"
    weights.write_bytes(os.urandom(20_000_000))
    common = ["--url", served.url, "--token", served.token, "--part-size", "2MiB", "--json"]
    facts = ["--epoch", 3, "--best", "--metric", "map=0.5"]
    said = call("checkpoint", "upload", weights, "m/detector", "--create", *facts, *common)
    assert said.status == 0
    assert said.records[0]["size_bytes"] == 20_000_000
    assert_known(said)
    copy = tmp_path / "copy.pt"
    said = call("checkpoint", "download", "m/detector", copy, "--which", 3, "--bandwidth", ":40MB", *common)
    assert said.status == 0
    assert_known(said)
    assert filecmp.cmp(weights, copy, shallow=False)
    assert call("checkpoint", "download", "m/detector", copy, "--which", 4, *common).status == ExitCode.NOT_FOUND
    assert call("checkpoint", "download", "m/detector", copy, "--which", "final", *common).status == ExitCode.NOT_FOUND


def assert_known(said: Said) -> None:
    """Whether report line and summary of one large object that moved say how: the engine knows it."""
    entry, summary = said.records[0], said.summary
    assert (entry["attempts"], entry["verified"]) == (1, True)
    assert entry["waits"]
    assert set(entry["waits"]) <= set(WaitReason)
    assert 0 < entry["seconds"] <= summary["seconds"]
    assert summary["waits"]
    assert summary["bottleneck"] in {*summary["waits"], "cpu"}
    assert summary["cpu_share"] > 0


def test_checkpoint_that_failed_says_what_was_tried(call: Caller, tmp_path: Path) -> None:
    """Its line has the attempts of the object, not those of nobody; what came before it has none."""
    weights, report, events = tmp_path / "w.pt", tmp_path / "r.jsonl", tmp_path / "e.jsonl"
    weights.write_bytes(b"weights")
    assert call("checkpoint", "upload", weights, "m", "--create").status == 0
    blocked = tmp_path / "no folder"
    blocked.write_bytes(b"")
    arguments = ["checkpoint", "download", "m", blocked / "w.pt", "--which", "last", "--report", report]
    said = call(*arguments, "--events", events, "--no-resume")
    assert said.status == ExitCode.LOCAL
    (failed,) = [
        event for event in map(json.loads, events.read_text().splitlines()) if event["event"] == "object_failed"
    ]
    failure = json.loads(report.read_text().splitlines()[0])
    assert (failure["status"], failure["attempts"]) == ("failed", failed["attempts"])
    assert failure["seconds"] == failed["seconds"]
    assert call("checkpoint", "download", "nobody", tmp_path / "x", "--report", report).status == ExitCode.NOT_FOUND
    failure = json.loads(report.read_text().splitlines()[0])
    assert (failure["code"], failure["attempts"], failure["seconds"]) == ("not_found", None, None)


def test_checkpoint_that_cannot_be_read_is_told(call: Caller, tmp_path: Path) -> None:
    """A missing file and a folder have their own exit status; the report says why, and its retry works."""
    report, weights = tmp_path / "r.jsonl", tmp_path / "w.pt"
    said = call("checkpoint", "upload", weights, "m", "--create", "--report", report)
    assert said.status == ExitCode.NOT_FOUND
    failure, end = map(json.loads, report.read_text().splitlines())
    assert (failure["code"], end["status"]) == ("source_not_found", "complete")
    assert call("checkpoint", "upload", tmp_path, "m", "--create").status == ExitCode.LOCAL
    assert call("models", "list", "--json").out == ""
    weights.write_bytes(b"weights")
    retry = ["checkpoint", "upload", weights, "m", "--create", "--retry", report, "--report", report]
    assert call(*retry).status == 0
    said = call(*retry)
    assert (said.status, said.out) == (0, "")
    assert "nothing failed" in said.err


def test_predictions_report_bad_rows_by_line(call: Caller, photos: Path, tmp_path: Path) -> None:
    """Bad rows fail with their line, the others are stored; the retry sends the mended lines only."""
    call("upload", photos, "d", "--create")
    rows, report = tmp_path / "rows.jsonl", tmp_path / "report.jsonl"
    good = json.dumps({"path": "a.jpg", "predictions": [{"category": "car", "score": 0.9}]})
    other = json.dumps({"path": "b.png", "predictions": [{"category": "car", "score": 0.1}]})
    rows.write_text(f"{good}\n\nnot json\n{other.replace('b.png', 'nobody.png')}\n")
    arguments = ["predictions", "upload", rows, "d", "--task", "detect"]
    assert call(*arguments).status == ExitCode.NOT_FOUND
    assert call(*arguments, "--create").status == ExitCode.USAGE
    said = call(*arguments, "--create", "--kind", "classification", "--category", "car", "--report", report)
    assert said.status == ExitCode.SOME_FAILED
    assert "line 3" in said.err
    *entries, _ = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(entry["line"], entry["status"]) for entry in entries] == [(1, "done"), (3, "failed"), (4, "failed")]
    rows.write_text(f"{good}\n\n{other}\n{other.replace('b.png', 'nobody.png')}\n")
    said = call(*arguments, "--retry", report, "--report", report, "--json")
    assert said.status == ExitCode.SOME_FAILED
    assert (said.summary["done"], said.summary["failed"]) == (1, 1)
    found = {record["line"]: (record["status"], record["message"]) for record in said.records[:-1]}
    assert found[3] == ("done", None)
    assert found[4][0] == "failed"
    assert "line 4" in (found[4][1] or "")
    assert call(*arguments, "--dry-run", "--json").summary["skipped"] == 3
    rows.write_text(f"{good}\n")  # the row that failed is in it no more
    said = call(*arguments, "--retry", report, "--json")
    assert (said.status, said.summary["done"], said.summary["failed"]) == (ExitCode.SOME_FAILED, 0, 1)
    assert "has no such row any more" in said.records[0]["message"]


def test_refused_rows_beyond_the_first_thousand_are_counted(call: Caller, photos: Path, tmp_path: Path) -> None:
    """The summary counts all; the report says that it is not whole, and is refused for a retry."""
    call("upload", photos, "d", "--create", "--include", "a.jpg")
    rows, report = tmp_path / "rows.jsonl", tmp_path / "report.jsonl"
    rows.write_text(
        lines({"path": "a.jpg", "predictions": []}, *({"path": str(n), "predictions": []} for n in range(1500)))
    )
    arguments = ["predictions", "upload", rows, "d", "--task", "t", "--create", "--kind", "classification",
                 "--category", "c", "--json"]  # fmt: skip
    said = call(*arguments, "--report", report)
    assert said.status == ExitCode.SOME_FAILED
    assert (said.summary["done"], said.summary["failed"]) == (1, 1500)
    assert "500 refused rows are not described" in said.err
    assert report.read_text().count("\n") == 1002
    assert call(*arguments, "--retry", report).status == ExitCode.USAGE
