"""A served platform, folders to upload, and commands in this process."""

from __future__ import annotations

import filecmp
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.support.commands import WAIT_SECONDS, Caller, command


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str]) -> Caller:
    return Caller(capfd)


class Served(NamedTuple):
    url: str
    token: str
    folder: Path


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """``asyncsdk serve`` on a free port."""
    folder = tmp_path_factory.mktemp("served") / "data"
    process = subprocess.Popen(
        command("serve", "--no-worker", "--port", 0, "--data", folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first.startswith("asyncsdk serves http://127.0.0.1:"), process.communicate()[1]
    yield Served(first.split()[-1], (folder / "token").read_text().strip(), folder)
    process.terminate()
    _, err = process.communicate(timeout=WAIT_SECONDS)
    assert (process.returncode, err) == (0, "")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with two folders, a hidden file, an empty one and names that need care."""
    folder = tmp_path / "photos"
    (folder / "train").mkdir(parents=True)
    for name in ("a.jpg", "b.png", ".hidden", "train/c.jpg", "train/grün ü#?.jpg"):
        (folder / name).write_bytes(os.urandom(100))
    (folder / "empty").touch()
    return folder


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def assert_same(one: Path, other: Path) -> None:
    assert files_in(one) == files_in(other)
    assert filecmp.cmpfiles(one, other, files_in(one), shallow=False) == (files_in(one), [], [])


def wait_until_sending(process: subprocess.Popen[str], folder: Path, least_bytes: int = 100 * 1024**2) -> None:
    """Wait until an upload has read *least_bytes* and something of it lies in the platform's *folder*."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        has_arrived = any(path.is_file() for path in (folder / "objects").rglob("*"))
        if has_arrived and psutil.Process(process.pid).io_counters().read_chars > least_bytes:
            return
        time.sleep(0.02)
