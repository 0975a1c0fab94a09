"""Items whose names a disk does not tell apart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from asyncsdk import AsyncClient, ItemUpload
from asyncsdk.entities import clashes, downloading
from asyncsdk.entities.clashes import NameClashes, clashes_in
from asyncsdk.errors import Conflict


@pytest.mark.parametrize(
    ("is_caseless", "is_formless", "taken"),
    [
        (True, False, [True, False, True, True]),
        (False, True, [True, True, True, False]),
        (True, True, [True, False, True, False]),
    ],
)
def test_names_are_compared_as_the_disk_does(is_caseless: bool, is_formless: bool, taken: list[bool]) -> None:
    names = NameClashes(is_caseless=is_caseless, is_formless=is_formless)
    assert [names.take(name) for name in ("A/x", "a/X", "\u00e9", "e\u0301")] == taken


def test_some_disks_map_letter_by_letter() -> None:
    """On them two letters are not one."""
    names = NameClashes(is_caseless=True, is_formless=False, folds_fully=False)
    given = ("stra\u00dfe", "strasse", "STRASSE", "\u00e9", "\u00c9", "a.\u00e9", "A.\u00c9", "\u017f", "s")
    assert [names.take(name) for name in given] == [True, True, False, True, False, True, False, True, False]


def test_one_look_that_fails_is_no_answer_to_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes plain letters only may be caseless all the same."""
    lexists, opened = os.path.lexists, os.open

    def plain(path: Path, *rest: int) -> int:
        if not str(path).isascii():
            raise OSError(22, "Invalid argument")
        return opened(path, *rest)

    monkeypatch.setattr(clashes.os, "open", plain)
    monkeypatch.setattr(clashes.os.path, "lexists", lambda path: lexists(str(path).replace(".A.", ".a.")))
    found = clashes_in(tmp_path)
    assert found is not None
    assert [found.take(name) for name in ("A", "a", "b")] == [True, False, True]
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_tells_names_apart_needs_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stays of the look; a disk that does not is told by it."""
    if (tmp_path / "A").touch() is None and (tmp_path / "a").exists():
        pytest.skip("the disk of temporary files is caseless")
    assert clashes_in(tmp_path / "new") is None
    assert list((tmp_path / "new").iterdir()) == []
    lexists = os.path.lexists
    monkeypatch.setattr(clashes.os.path, "lexists", lambda path: lexists(str(path).replace(".A.", ".a.")))
    found = clashes_in(tmp_path / "new")
    assert found is not None
    assert [found.take(name) for name in ("A", "a")] == [True, False]
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_left_to_who_writes(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert clashes_in(tmp_path / "file") is None
    assert clashes_in(Path("\0")) is None


async def test_the_second_of_two_such_items_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It keeps neither the first one from arriving nor anything from saying so."""
    caseless = NameClashes(is_caseless=True, is_formless=True)
    monkeypatch.setattr(downloading, "clashes_in", lambda folder: caseless)
    async with AsyncClient(data=tmp_path / "data") as client:
        dataset = await client.datasets.create("d")
        await dataset.upload([ItemUpload(b"1", "Photo.jpg"), ItemUpload(b"2", "photo.jpg"), ItemUpload(b"3", "x")])
        report = await dataset.download(tmp_path / "copy")
    assert report.done == 2
    (failure,) = report.failures
    assert isinstance(failure.error, Conflict)
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == ["Photo.jpg", "x"]
