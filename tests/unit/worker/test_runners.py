"""Which runners are installed, and what is said of those that do not work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from asyncsdk.errors import RunnerUnavailable
from asyncsdk.worker import runners
from asyncsdk.worker.runners import find_runners, load_runner, runner_kinds

_MODULE = """
class Good:
    kind = "good"
class Replaced:
    kind = "export"
class Broken:
    def __init__(self):
        raise OSError("libbroken.so is not there")
"""


@pytest.fixture
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distribution with runners: one that works, one that does not, one in place of ours, one that is gone."""
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (tmp_path / "their_runners.py").write_text(_MODULE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    names = {"good": "Good", "broken": "Broken", "export": "Replaced", "gone": "Gone"}
    lines = [f"{kind} = their_runners:{name}" for kind, name in names.items()]
    (info / "entry_points.txt").write_text("\n".join(["[asyncsdk.runners]", *lines, "away = no_such_module:X", ""]))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_runners", raising=False)


@pytest.mark.usefixtures("_installed")
def test_installed_runners_are_found() -> None:
    """By entry points; one of somebody's own takes the place of ours."""
    assert {"good", "broken", "export", "gone", "away"} <= set(runner_kinds())
    assert load_runner("good").kind == "good"
    assert type(load_runner("export")).__name__ == "Replaced"


@pytest.mark.usefixtures("_installed")
def test_what_is_broken_stops_nobody_else() -> None:
    found, missing = find_runners(["good", "broken", "gone", "away", "never_heard_of"])
    assert [runner.kind for runner in found] == ["good"]
    assert [error.kind for error in missing] == ["broken", "gone", "away", "never_heard_of"]
    reasons = [error.reason for error in missing]
    assert "libbroken.so" in reasons[0]
    assert "no_such_module" in reasons[2]
    assert "no runner is installed" in reasons[3]


def test_our_own_are_found_without_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """An editable installation knows the entry points of the day it was made; a module that is not there is none."""
    monkeypatch.setattr(runners, "entry_points", lambda *, group: [])
    places = {"here": "asyncsdk.worker.runners:find_runners", "missing": "asyncsdk.worker.no_such_module:X"}
    monkeypatch.setattr(runners, "BUILT_IN", places)
    assert runner_kinds() == ("here",)
    with pytest.raises(RunnerUnavailable):
        load_runner("missing")
