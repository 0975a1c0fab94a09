"""The worker beside a server: what happens when it cannot be started, ends again and again, or need not be."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from asyncsdk.cli import served_worker
from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.output import Output
from asyncsdk.cli.served_worker import ServedWorker

pytestmark = pytest.mark.timeout(60)


class Beside(ServedWorker):
    """Begins what a script says: exit statuses of the workers, None for one that cannot be started.

    After the script, workers that stay until they are told to end.
    """

    def __init__(self, folder: Path, script: list[int | None]) -> None:
        super().__init__(folder, Output(), objects=None, objects_endpoint=None)
        self.script = script
        self.stays = threading.Event()

    def _begin(self, is_first: bool) -> subprocess.Popen[bytes]:
        ending = "sys.stdin.read()"
        if self.script:
            status = self.script.pop(0)
            if status is None:
                raise BlockingIOError(11, "Resource temporarily unavailable")
            ending = f"sys.exit({status})"
        else:
            self.stays.set()
        return subprocess.Popen([sys.executable, "-c", f"import sys; {ending}"], stdin=subprocess.PIPE)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_worker, "_BACKOFF_SECONDS", 0.01)


def test_it_is_started_again_whatever_ended_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also when there was no room for a process; each time after twice as long."""
    with Beside(tmp_path, [None, 1, 9, 0]) as worker:
        worker.start()
        assert worker.stays.wait(50)
    told = capsys.readouterr().err
    assert told.count("it is started again in") == 4
    assert "the worker cannot be started (Resource temporarily unavailable); it is started again in 0.01 s" in told
    assert "the worker ended with status 9; it is started again in 0.04 s" in told
    assert worker._process is not None
    assert worker._process.returncode == 0  # told to end, not killed
    assert worker._thread is not None
    assert not worker._thread.is_alive()


def test_what_would_be_the_same_again_is_not_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Beside(tmp_path, [ExitCode.REFUSED, 1]) as worker:
        worker.start()
        assert worker._thread is not None
        worker._thread.join(50)
        assert worker.script == [1]
    assert "no worker beside the server" in capsys.readouterr().err


def test_ending_while_it_waits_to_begin_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served_worker, "_BACKOFF_SECONDS", 3600.0)
    with Beside(tmp_path, [None]) as worker:
        worker.start()
        while worker.script:
            time.sleep(0.01)
    assert worker._thread is not None
    worker._thread.join(50)
    assert not worker._thread.is_alive()
    assert not worker.stays.is_set()
