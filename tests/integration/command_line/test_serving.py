"""The command that serves: where, and for whom."""

from __future__ import annotations

import signal
import stat
import subprocess
from pathlib import Path

from asyncsdk.cli.exits import ExitCode
from tests.integration.command_line.conftest import Served
from tests.support.commands import WAIT_SECONDS, Caller, command, run


def test_serve_tells_where_and_keeps_its_token_to_itself(tmp_path: Path) -> None:
    """First line the URL, second where the token is; the token itself nowhere; Ctrl-C ends it with status 0."""
    folder = tmp_path / "data"
    with subprocess.Popen(
        command("serve", "--no-worker", "--port", 0, "--data", folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        first, second = process.stdout.readline(), process.stdout.readline()
        token = (folder / "token").read_text().strip()
        assert stat.S_IMODE((folder / "token").stat().st_mode) == 0o600
        url = first.split()[-1]
        assert run("projects", "list", ASYNCSDK_URL=url, ASYNCSDK_TOKEN=token).status == 0
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, err) == (0, "")
    assert str(folder / "token") in second
    assert token not in first + second + out + err


def test_serve_tells_a_taken_port(served: Served, call: Caller, tmp_path: Path) -> None:
    port = served.url.rpartition(":")[2]
    said = call("serve", "--port", port, "--data", tmp_path / "d")
    assert said.status == ExitCode.USAGE
    assert port in said.err
