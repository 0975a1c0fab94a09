"""``asyncsdk model metrics`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asyncsdk import Client
from asyncsdk.cli import main
from asyncsdk.cli.exits import ExitCode


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with a model that has two series and a single value, and one that has none."""
    folder = tmp_path / "data"
    with Client(data=folder) as client:
        model = client.models.create("detector")
        for step in range(8):
            model.metrics.log({"loss": 1 - step / 8, "val/mAP": step}, step=step)
        model.metrics.log({"size": 25_000_000})
        client.models.create("empty")
    return folder


def test_series_are_shown_at_a_glance(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A line each: how many, the last, the least, the greatest, and a curve; as JSON a record each."""
    assert main(["model", "metrics", "detector", "--data", str(data)]) == ExitCode.OK
    lines = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert lines[0] == ["NAME", "VALUES", "STEP", "LAST", "LEAST", "GREATEST", "CURVE"]
    assert lines[1][:-1] == ["loss", "8", "7", "0.125", "0.125", "1"]
    assert len(lines[1][-1]) == 8
    assert lines[2] == ["size", "1", "-", "2.5e+07", "2.5e+07", "2.5e+07"]
    assert lines[3][0] == "val/mAP"
    assert main(["model", "metrics", "detector", "--name", "loss", "--json", "--data", str(data)]) == ExitCode.OK
    (record,) = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert (record["name"], record["count"], record["last_value"]) == ("loss", 8, 0.125)


def test_rows_are_shown_and_written(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    command = ["model", "metrics", "detector", "--data", str(data)]
    assert main([*command, "--rows", "--name", "loss"]) == ExitCode.OK
    lines = [line.split() for line in capfd.readouterr().out.splitlines()]
    assert lines[:3] == [["step", "loss"], ["0", "1"], ["1", "0.875"]]
    assert main([*command, "--rows", "--json"]) == ExitCode.OK
    rows = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert rows[0] == {"step": None, "loss": None, "size": 25e6, "val/mAP": None}
    assert len(rows) == 9
    assert main([*command, "--csv", str(tmp_path / "x.csv")]) == ExitCode.OK
    assert (tmp_path / "x.csv").read_text().splitlines()[2] == "0,1.0,,0.0"


def test_curves_are_drawn(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs matplotlib (extra plot)")
    command = ["model", "metrics", "detector", "--data", str(data)]
    assert main([*command, "--plot", str(tmp_path / "x.svg")]) == ExitCode.OK
    assert "</svg>" in (tmp_path / "x.svg").read_text()
    assert main([*command, "--plot", str(tmp_path / "x.pdf")]) == ExitCode.USAGE


def test_what_was_kept_is_sent(data: Path, home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Client(data=data) as client:
        model_id = client.models.get(name="empty").id
    assert main(["model", "metrics", "empty", "--data", str(data)]) == ExitCode.OK
    assert "no metrics" in capfd.readouterr().err
    folder = home / "metrics" / model_id
    folder.mkdir(parents=True)
    (folder / f"{'a' * 24}.jsonl").write_text('["loss",1,0.5,1000]\n')
    assert main(["model", "metrics", "empty", "--send-kept", "--rows", "--data", str(data)]) == ExitCode.OK
    out, err = capfd.readouterr()
    assert "sent 1 values from 1 files" in err
    assert out.split() == ["step", "loss", "1", "0.5"]
    assert list(folder.iterdir()) == []


def test_a_series_that_is_not_there_is_a_mistake(data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "metrics", "detector", "--name", "nobody", "--data", str(data)]) == ExitCode.USAGE
    assert "nobody" in capfd.readouterr().err
    assert main(["model", "metrics", "absent", "--data", str(data)]) == ExitCode.NOT_FOUND
