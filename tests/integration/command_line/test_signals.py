"""Signals end a command as they should."""

from __future__ import annotations

import filecmp
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from asyncsdk.cli.exits import ExitCode
from tests.integration.command_line.conftest import Served, files_in, wait_until_sending
from tests.support.commands import WAIT_SECONDS, Caller, Said, command, run


@pytest.mark.parametrize("platform", ["embedded", "served"])
def test_signal_stops_an_upload_cleanly(served: Served, tmp_path: Path, home: Path, platform: str) -> None:
    """Exit status 128 + signal, a whole report, a summary, nothing half-sent left behind."""
    number = signal.SIGTERM  # Ctrl-C drains first: tests/integration/test_interrupts.py
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_bytes(b"small")
    with (source / "b").open("wb") as file:
        file.truncate(2 * 1024**3)  # no blocks behind it; sent in seconds, and stopped after the first tenth
    report = tmp_path / "r.jsonl"
    environment = dict(os.environ)
    folder = home / "data"
    if platform == "served":
        environment |= {"ASYNCSDK_URL": served.url, "ASYNCSDK_TOKEN": served.token}
        folder = served.folder
    with subprocess.Popen(
        command("upload", source, f"big-{number.name}", "--create", "--report", report, "--json"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        wait_until_sending(process, folder)
        process.send_signal(number)
        out, err = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode == 128 + number
    said = Said(process.returncode, out, err)
    assert [next(iter(record)) for record in said.records[-2:]] == ["summary", "error"]
    assert said.records[-2]["summary"]["is_complete"] is False
    assert "Traceback" not in err
    *whole, last = map(json.loads, report.read_text().splitlines())
    assert [line["name"] for line in whole] in ([], ["a"])
    assert last == {"operation": "upload", "name": "", "status": "incomplete"}
    unfinished = [path for path in (folder / "objects").rglob("*") if path.is_file() and len(path.name) != 33]
    assert len(unfinished) <= 1 or platform == "served"  # what is half-sent stays: the same command goes on with it
    retry = ["upload", source, f"big-{number.name}", "--create", "--retry", report, "--report", report]
    said = run(*retry, **environment)
    assert said.status == ExitCode.SOME_FAILED
    assert "run the command again without --retry" in said.err
    assert json.loads(report.read_text().splitlines()[-1]) == last
    if platform == "embedded":
        (begun,) = run("journal", "list", "--json", **environment).records
        assert run("journal", "forget", begun["run_id"], **environment).status == 0
        assert not any(path.exists() for path in unfinished)


def test_signal_during_a_download_leaves_no_half_file(call: Caller, tmp_path: Path) -> None:
    """The destination holds whole files only, beside a hidden one that the same command goes on with."""
    with (tmp_path / "big").open("wb") as file:
        file.truncate(256 * 1024**2)
    assert call("upload", tmp_path / "big", "d", "--create").status == 0
    for attempt in range(10):  # copied in 0.13 s, it may be whole before the signal is sent
        copy = tmp_path / f"copy{attempt}"
        with subprocess.Popen(command("download", "d", copy), stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + WAIT_SECONDS
            while not (copy.exists() and any(path.is_file() for path in copy.iterdir())):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.002)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=WAIT_SECONDS)
        if files_in(copy) != ["big"]:
            break
        assert filecmp.cmp(tmp_path / "big", copy / "big", shallow=False)
    assert process.returncode == ExitCode.TERMINATED
    assert [name for name in files_in(copy) if not (name.startswith(".") and name.endswith(".part"))] == []
    assert call("download", "d", copy).status == 0
    assert files_in(copy) == ["big"]


def test_waiting_for_a_manifest_can_be_interrupted() -> None:
    """Ctrl-C ends a command that waits for standard input, at once."""
    with subprocess.Popen(
        command("transfer", "-", "--debug"), stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        handled = 0
        deadline = time.monotonic() + WAIT_SECONDS
        while not handled:  # until the command has set its signal handlers
            assert time.monotonic() < deadline
            caught = Path(f"/proc/{process.pid}/status").read_text().partition("SigCgt:")[2].split()[0]
            handled = int(caught, 16) >> (signal.SIGTERM - 1) & 1
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_SECONDS) == ExitCode.INTERRUPTED
        process.communicate()
