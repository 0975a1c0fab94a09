"""Names of unfinished files, and removing those of a process that was killed."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest

from asyncsdk.engine.crew.leftovers import remove_leftovers
from asyncsdk.engine.temporaries import (
    has_mark,
    is_temporary,
    process_mark,
    temporary_name,
    use_mark,
    worker_mark,
)
from asyncsdk.entities.globs import PathFilter
from asyncsdk.entities.walking import walk_folder


def test_names_tell_the_process_and_its_workers() -> None:
    mine = process_mark()
    workers = [worker_mark() for _ in range(20)]
    assert has_mark(temporary_name("a"), mine)
    names = []
    try:
        for mark in workers:
            use_mark(mark)
            names.append(temporary_name("b"))
    finally:
        use_mark(mine)
    for number, name in enumerate(names):
        assert is_temporary(name)
        assert has_mark(name, mine)
        assert [one for one in workers if has_mark(name, one)] == [workers[number]]


@pytest.mark.parametrize(
    "name",
    [
        "a.part",
        ".a.part",
        ".a.0123456789ab0.part",
        ".a.asyncsdk-0123456789ab.part",
        "a.asyncsdk-0123456789ab0.part",
        ".a.asyncsdk-0123456789ab0.parts",
        ".a.asyncsdk-0123456789abw0.part",
        ".a.asyncsdk-0123456789AB0.part",
    ],
)
def test_files_of_others_are_never_taken_for_ours(name: str) -> None:
    assert not is_temporary(name)


@pytest.mark.parametrize("name", [".a.asyncsdk-0123456789ab0.part", "..asyncsdk-0123456789abff.part"])
def test_ours_are_known(name: str) -> None:
    assert is_temporary(name)


def test_only_what_the_marks_name_is_removed(tmp_path: Path) -> None:
    keep, gone, kept = "0" * 12, "1" * 12, tmp_path / f".k.asyncsdk-{'1' * 12}5.part"
    names = [f".a.asyncsdk-{keep}0.part", f".a.asyncsdk-{gone}1.part", f".a.asyncsdk-{gone}w2w1.part", gone]
    for path in (kept, *(tmp_path / name for name in names)):
        path.touch()
    remove_leftovers([gone], [str(tmp_path), str(tmp_path / "nowhere")], {str(kept)})
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([kept.name, names[0], gone])


@pytest.mark.skipif(os.geteuid() == 0, reason="root removes anything")
def test_what_cannot_be_removed_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / f".a.asyncsdk-{'1' * 12}0.part").touch()
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    with caplog.at_level(logging.WARNING):
        remove_leftovers(["1" * 12], [str(tmp_path)], ())
    tmp_path.chmod(stat.S_IRWXU)
    assert len(caplog.records) == 1


def test_unfinished_files_are_no_data(tmp_path: Path) -> None:
    for name in ("a", ".b.part", temporary_name("a")):
        (tmp_path / name).touch()
    assert [one.name for one in tmp_path.iterdir() if is_temporary(one.name)] != []
    assert sorted(item.item_path for item in walk_folder(tmp_path, PathFilter())) == [".b.part", "a"]  # type: ignore[union-attr]
