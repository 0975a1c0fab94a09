"""What goes wrong on the command line, and how it is told."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from asyncsdk.cli.exits import ExitCode
from tests.integration.command_line.conftest import Served, files_in, wait_until_sending
from tests.support.commands import WAIT_SECONDS, Caller, Said, command


def test_dry_run_changes_nothing(call: Caller, photos: Path, tmp_path: Path) -> None:
    """Neither the platform nor the destination; what would be done is told."""
    said = call("upload", photos, "d", "--create", "--dry-run", "--json")
    assert said.status == 0
    assert {record["message"] for record in said.records[:-1]} == {"would_send"}
    assert sorted(record["name"] for record in said.records[:-1]) == files_in(photos)
    assert call("datasets", "list", "--json").out == ""
    call("upload", photos, "d", "--create", "--include", "a.jpg")
    assert call("upload", photos, "d", "--dry-run", "--json").summary["skipped"] == 6
    assert len(call("items", "list", "d", "--json").records) == 1
    said = call("download", "d", tmp_path / "copy", "--dry-run", "--json")
    assert said.records[0]["message"] == "would_fetch"
    assert not (tmp_path / "copy").exists()
    assert call("checkpoint", "upload", photos / "a.jpg", "m", "--create", "--dry-run").status == 0
    assert call("models", "list", "--json").out == ""
    assert call("datasets", "create", "e", "--dry-run").status == 0
    assert len(call("datasets", "list", "--json").records) == 1


def test_dry_run_chooses_a_single_file_as_the_upload_does(call: Caller, photos: Path) -> None:
    """Patterns count for a file that is named itself, whether the dataset is there or not."""
    arguments = ["upload", photos / "a.jpg", "d", "--create", "--json"]
    for _ in range(2):
        assert call(*arguments, "--dry-run", "--include", "*.jpg").records[0]["name"] == "a.jpg"
        for options in (["--exclude", "a.*"], ["--include", "*.png"]):
            dry, wet = (call(*arguments, *options, *dry_run) for dry_run in (["--dry-run"], []))
            assert (dry.status, dry.records[-1]) == (ExitCode.NOT_FOUND, wet.records[-1])
            assert "summary" in dry.records[0]


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["upload", ".", "nobody"], ExitCode.NOT_FOUND, "not_found"),
        (["upload", "nowhere", "d", "--create"], ExitCode.NOT_FOUND, "source_not_found"),
        (["download", "nobody", "x"], ExitCode.NOT_FOUND, "not_found"),
        (["download", "no/body", "x"], ExitCode.NOT_FOUND, "not_found"),
        (["datasets", "get", "0" * 24], ExitCode.NOT_FOUND, "not_found"),
        (["transfer", "nowhere.jsonl"], ExitCode.NOT_FOUND, "source_not_found"),
        (["upload", ".", "d", "--retry", "nowhere.jsonl", "--create"], ExitCode.NOT_FOUND, "source_not_found"),
        (["projects", "create", "a/b"], ExitCode.REFUSED, "invalid_name"),
        (["projects", "create", "x" * 300], ExitCode.REFUSED, "invalid_name"),
        (["upload", "."], ExitCode.USAGE, "config"),
        (["whoami", "--concurrency", "0"], ExitCode.USAGE, "config"),
        (["whoami", "--url", "nonsense"], ExitCode.USAGE, "config"),
        (["whoami", "--url", "http://h", "--data", "x"], ExitCode.USAGE, "config"),
        (["login"], ExitCode.USAGE, "config"),
        (["datasets", "list", "--filter", "x"], ExitCode.USAGE, "config"),
        (["whoami", "--data", "/dev/null"], ExitCode.LOCAL, "store"),
        (["transfer", "/"], ExitCode.LOCAL, "source_unreadable"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_errors_are_told_twice_with_json(
    call: Caller, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    arguments: Sequence[str], status: ExitCode, code: str,
) -> None:  # fmt: skip
    """Exit status, the error object as the last line of standard output, a sentence without traceback beside it."""
    monkeypatch.chdir(tmp_path)
    said = call(*arguments, "--json")
    assert said.status == status
    error = said.records[-1]["error"]
    assert (error["code"], error["exit_status"]) == (code, status)
    assert said.err.startswith("asyncsdk: error: ")
    assert "Traceback" not in said.err
    assert call(*arguments).out == ""


def test_missing_dataset_is_told_with_a_way_out(call: Caller, photos: Path) -> None:
    """The message says how to make it."""
    assert "--create" in call("upload", photos, "nobody").err


def test_wrong_token_is_told_and_not_kept(served: Served, call: Caller, home: Path) -> None:
    """A token that the server does not know is neither stored nor repeated."""
    said = call("login", served.url, "--token", "wr0ng")
    assert said.status == ExitCode.AUTHENTICATION
    assert "wr0ng" not in said.err
    assert "asyncsdk login" in said.err
    assert not (home / "profile.json").exists()
    assert call("projects", "list", "--url", served.url).status == ExitCode.AUTHENTICATION


def test_absent_server_is_told(call: Caller, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens: an exit status of its own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        port = server.server_address[1]
    said = call("upload", photos, "d", "--url", f"http://127.0.0.1:{port}", "--token", "t")
    assert said.status == ExitCode.SERVER
    assert "asyncsdk serve" in said.err


def test_server_gone_half_way_is_told(tmp_path: Path) -> None:
    """What was not moved is a failure of its own kind, in the report too."""
    folder, source, report = tmp_path / "data", tmp_path / "big", tmp_path / "r.jsonl"
    with source.open("wb") as file:
        file.truncate(2 * 1024**3)
    server = subprocess.Popen(
        command("serve", "--no-worker", "--port", 0, "--data", folder, "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with server:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        token = (folder / "token").read_text().strip()
        with subprocess.Popen(
            command("upload", source, "d", "--create", "--report", report, "--json", "--outage", 1),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "ASYNCSDK_URL": url, "ASYNCSDK_TOKEN": token},
        ) as process:  # fmt: skip
            wait_until_sending(process, folder)
            server.kill()
            out, err = process.communicate(timeout=WAIT_SECONDS)
    shutil.rmtree(folder)  # a killed server leaves what it had received until the next one sweeps it
    said = Said(process.returncode, out, err)
    assert said.status == ExitCode.SOME_FAILED
    assert said.summary["failures_by_code"] == {"circuit_open": 1}
    assert [json.loads(line).get("code") for line in report.read_text().splitlines()] == ["circuit_open", None]
    assert "out for too long (" in said.err
    assert "Traceback" not in err


def test_debug_shows_the_traceback(call: Caller) -> None:
    assert "Traceback" in call("datasets", "get", "nobody", "--debug").err


def test_quiet_leaves_errors_only(call: Caller, photos: Path, tmp_path: Path) -> None:
    """No summary of a good run; failures are told all the same."""
    said = call("upload", photos, "d", "--create", "--quiet")
    assert (said.status, said.out, said.err) == (0, "", "")
    (photos / "link").symlink_to(tmp_path / "nothing")
    assert "[source_not_found]" in call("upload", photos, "d", "-q").err


def test_reader_that_goes_away_is_no_error(call: Caller, photos: Path) -> None:
    """``asyncsdk items list ... | head -1`` prints no traceback."""
    assert call("upload", photos, "d", "--create").status == 0
    reading, writing = os.pipe()
    os.close(reading)
    with subprocess.Popen(command("items", "list", "d"), stdout=writing, stderr=subprocess.PIPE, text=True) as process:
        os.close(writing)
        _, err = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, err) == (ExitCode.BROKEN_PIPE, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, the disk that is always full")
@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_full_disk_behind_standard_output_is_told(call: Caller, options: list[str]) -> None:
    """One sentence, no traceback, the exit status of a full disk."""
    assert call("projects", "create", "p").status == 0
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command("projects", "list", *options), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == ExitCode.LOCAL
    assert done.stderr.startswith("asyncsdk: error: ")
    assert done.stderr.count("\n") == 1
