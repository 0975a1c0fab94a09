"""Progress: a bar for people, plain lines for logs, nothing when quiet."""

from __future__ import annotations

import io
import sys

import pytest

from asyncsdk.cli.output import Output
from asyncsdk.cli.progress import ProgressDisplay
from asyncsdk.engine import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_come_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    """Not every event is a line, only one in five seconds of the run."""
    display = ProgressDisplay(Output(), "upload")
    for tenth in range(121):
        display.show(Progress(done=tenth, failed=1, bytes_done=tenth * 1024, objects_total=500, seconds=tenth / 10))
    display.close()
    assert capsys.readouterr().err.splitlines() == [
        "asyncsdk: upload: 51 of 500 objects, 50.0 KiB, 10.0 KiB/s, 1 failed",
        "asyncsdk: upload: 101 of 500 objects, 100.0 KiB, 10.0 KiB/s, 1 failed",
    ]


def test_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is drawn over itself and gone at the end."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    display = ProgressDisplay(Output(), "download")
    display.show(Progress(done=1, bytes_done=10, bytes_total=100, seconds=0.1))
    display.show(Progress(done=1, bytes_done=50, bytes_total=100, seconds=0.2))
    display.close()
    text = stream.getvalue()
    assert "download" in text
    assert "50%" in text
    assert "\n" not in text


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    display = ProgressDisplay(Output(is_quiet=True), "upload")
    display.show(Progress(done=1, seconds=100))
    display.close()
    assert capsys.readouterr().err == ""
