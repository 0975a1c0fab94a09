"""The folders of attempts: gone with the attempt, or with the next worker when a process was killed."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from asyncsdk.errors import DestinationUnwritable
from asyncsdk.worker.folders import AttemptFolder, remove_abandoned

_MAKE = """
import sys, tempfile
tempfile.tempdir = sys.argv[1]
from asyncsdk.worker.folders import AttemptFolder
folder = AttemptFolder.make("j")
(folder.work / "half").write_bytes(b"x")
print(folder.work.parent, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_folder_is_empty_and_goes_with_all_that_is_in_it(scratch: Path) -> None:
    folder = AttemptFolder.make("job")
    assert list(folder.work.iterdir()) == list(folder.inputs.iterdir()) == []
    (folder.work / "a").write_bytes(b"a")
    folder.remove()
    assert list(scratch.iterdir()) == []


def test_folders_of_killed_processes_are_removed(scratch: Path) -> None:
    """Those that somebody works in stay, in whatever process; so does what only has the name."""
    mine = AttemptFolder.make("job")
    process = subprocess.Popen(
        [sys.executable, "-c", _MAKE, str(scratch)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        other = Path(process.stdout.readline().strip())
        assert (other / "work" / "half").exists()
        assert remove_abandoned() == 0
        process.kill()
        process.wait()
    finally:
        process.kill()
        process.communicate()
    elsewhere = scratch / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lock").touch()
    (scratch / "asyncsdk-job-link").symlink_to(elsewhere)
    (scratch / "asyncsdk-job-being-made").mkdir()
    (scratch / "asyncsdk-job-file").touch()
    assert remove_abandoned() == 1
    assert not other.exists()
    assert mine.work.exists()
    assert (elsewhere / "lock").exists()
    mine.remove()
    names = {path.name for path in scratch.iterdir()}
    assert names == {"elsewhere", "asyncsdk-job-link", "asyncsdk-job-being-made", "asyncsdk-job-file"}


def test_a_machine_without_room_is_told(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(scratch / "missing"))
    with pytest.raises(DestinationUnwritable):
        AttemptFolder.make("job")
    assert remove_abandoned() == 0
