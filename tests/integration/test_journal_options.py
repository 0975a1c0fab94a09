"""``asyncsdk journal resume`` means the command that was given: no option of it is lost, and none is taken wrongly."""

from __future__ import annotations

import json
import zipfile
from argparse import Action
from pathlib import Path
from typing import Any

import pytest

from asyncsdk.cli import main
from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.journals import GIVEN_ANEW, command_of
from asyncsdk.cli.options import Arguments, CommandParser
from asyncsdk.cli.parser import build_parser, parse
from asyncsdk.engine.journal import Journal, RunRecord, RunSummary, journal_folder
from asyncsdk.engine.journal.catalogue import summaries
from asyncsdk.errors import ConfigError

NAMED_ANEW = {"path", "dataset", "model", "destination", "project", "create", "manifest", "url", "data", "resume"}
"""What of a command becomes places and ids in the journal, or has done its work when there is one."""

KEPT = {
    ("upload",): {"include", "exclude", "on_existing"},
    ("download",): {"include", "exclude", "on_existing"},
    ("checkpoint", "upload"): {"epoch", "best", "final", "metric"},
    ("checkpoint", "download"): {"which"},
    ("archive", "upload"): {"unpack"},
    ("archive", "download"): set(),
    ("transfer",): set(),
}
"""Options by command that say what is done: the journal keeps them. ``source_changed`` too, which may be given anew."""


def options_of(*words: str) -> dict[str, Action]:
    parser = build_parser()
    for word in words:
        (commands,) = [action for action in parser._actions if action.nargs == "A..."]
        assert isinstance(commands.choices, dict)
        parser = commands.choices[word]
        assert isinstance(parser, CommandParser)
    return {action.dest: action for action in parser._actions if action.dest != "help"}


@pytest.mark.parametrize("words", KEPT, ids=" ".join)
def test_every_option_of_a_command_that_can_be_resumed_is_kept_or_can_be_given_anew(words: tuple[str, ...]) -> None:
    """An option that is added to one of them has to be put on one of the lists."""
    assert set(options_of(*words)) == KEPT[words] | (set(options_of(*words)) & (NAMED_ANEW | set(GIVEN_ANEW)))
    assert set(GIVEN_ANEW) <= set(options_of("journal", "resume"))
    assert all(hasattr(Arguments, name) for name in GIVEN_ANEW)


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> list[RunRecord]:
    """The records of runs that would begin; none does."""
    records: list[RunRecord] = []

    async def refuse(home: Path, record: RunRecord, **listeners: Any) -> Journal:
        records.append(record)
        raise ConfigError("this is as far as it goes")

    monkeypatch.setattr(Journal, "open", refuse)
    return records


@pytest.fixture
def things(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, a file, an archive, a manifest, and a platform that has them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"photo")
    (tmp_path / "weights").write_bytes(b"weights")
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.writestr("a.jpg", b"photo")
    (tmp_path / "m.jsonl").write_text("")
    assert main(["upload", "photos", "d", "--create", "--no-resume"]) == ExitCode.OK
    assert main(["archive", "upload", "d.zip", "d", "--no-unpack", "--no-resume"]) == ExitCode.OK
    assert main(["checkpoint", "upload", "weights", "m", "--create", "--best", "--no-resume"]) == ExitCode.OK
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        "upload photos d --on-existing fail --include *.jpg --include=-x --exclude b --source-changed accept",
        "upload photos d",
        "download d copy --on-existing overwrite --include *.jpg --exclude b",
        "checkpoint upload weights m --epoch 3 --best --final --metric loss=0.25 --metric=x=-1 --source-changed retry",
        "checkpoint upload weights m",
        "checkpoint download m copy --which best",
        "archive upload d.zip d --no-unpack",
        "archive upload d.zip d",
        "archive download d copy",
        "transfer m.jsonl --source-changed accept",
    ],
)
def test_what_is_kept_comes_back(things: Path, captured: list[RunRecord], command: str) -> None:
    """Each command begins, and what its journal would hold is made a command again."""
    given = parse(command.split())
    assert main(command.split()) == ExitCode.USAGE
    (record,) = captured
    run = RunSummary("x-1", record.verb, record.arguments, "killed", "", 0, 0, 0, 0, 0, 0, is_rebuildable=True)
    again = parse(command_of(run))
    words = next(words for words in KEPT if tuple(command.split()[: len(words)]) == words)
    names = KEPT[words] | {"source_changed"}
    expected = {name: getattr(given, name) for name in names}
    if "which" in expected:  # the checkpoint that was the best one
        assert record.arguments["checkpoint"] == again.which
        del expected["which"]
    assert {name: getattr(again, name) for name in expected} == expected


def test_paths_given_to_resume_count_from_where_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A manifest's own paths count from where its run was started; a report, a list of events, a home do not."""
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    monkeypatch.setenv("ASYNCSDK_HOME", "../home")
    for name in ("report", "events"):
        (there / name).write_bytes(b"precious")
    line = {"source": "late", "url": "http://127.0.0.1:9/late?signature=x"}
    (there / "m.jsonl").write_text(json.dumps(line) + "\n")
    monkeypatch.chdir(there)
    seen: list[str] = []
    end = Journal.end

    async def stopped(journal: Journal, **facts: Any) -> None:
        seen.append(journal.record.run_id)
        journal.begin_large("of a line that is gone", {"upload_id": "u"})  # one that knows nothing is removed
        await end(journal, is_complete=False)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "end", stopped)
        assert main(["transfer", "m.jsonl"]) == ExitCode.SOME_FAILED
    assert [run.run_id for run in summaries(journal_folder(tmp_path / "home"))] == seen
    monkeypatch.chdir(here)
    status = main(["journal", "resume", seen[0], "--report", "report", "--events", "events"])
    assert status == ExitCode.SOME_FAILED, capfd.readouterr().err
    assert Path.cwd() == here
    assert [(there / name).read_bytes() for name in ("report", "events")] == [b"precious"] * 2
    entry = json.loads((here / "report").read_text().splitlines()[0])
    assert (entry["source"], entry["code"]) == ("late", "source_not_found")
    assert str(there / "late") in json.dumps(entry)
    assert (here / "events").stat().st_size > 0
    assert list(journal_folder(tmp_path / "home").iterdir()) == []
    assert sorted(path.name for path in there.iterdir()) == ["events", "m.jsonl", "report"]
