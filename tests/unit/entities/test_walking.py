"""Walking real folders: links, hidden files, things that are no files, order, pruning."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from asyncsdk.engine import Refused
from asyncsdk.entities import walking
from asyncsdk.entities.globs import PathFilter
from asyncsdk.entities.item_uploads import ItemUpload
from asyncsdk.entities.walking import walk_folder
from asyncsdk.errors import SourceNotFound, SourceUnreadable


def paths_of(folder: Path, **patterns: list[str]) -> list[str]:
    found = list(walk_folder(folder, PathFilter(**patterns)))
    return [one.item_path if isinstance(one, ItemUpload) else f"!{one.name}" for one in found]


def test_every_file_comes_once_in_order_of_name_hidden_ones_too(tmp_path: Path) -> None:
    for name in ("b.txt", "a/2", "a/1", "a/.hidden", "empty/x/y", ".top"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "nothing").mkdir()
    assert paths_of(tmp_path) == [".top", "a/.hidden", "a/1", "a/2", "b.txt", "empty/x/y"]


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path: Path) -> None:
    inside = tmp_path / "data"
    inside.mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_bytes(b"x")
    (inside / "link-to-file").symlink_to(tmp_path / "outside" / "file")
    (inside / "link-to-folder").symlink_to(tmp_path / "outside")
    (inside / "loop").symlink_to(inside)
    assert paths_of(inside) == ["link-to-file"]


def test_a_link_to_nothing_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "broken").symlink_to(tmp_path / "gone")
    (tmp_path / "good").write_bytes(b"")
    broken, good = walk_folder(tmp_path, PathFilter())
    assert isinstance(broken, Refused)
    assert isinstance(broken.error, SourceNotFound)
    assert broken.name == "broken"
    assert isinstance(good, ItemUpload)


def test_pipes_and_sockets_are_refused_and_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)  # a socket's path has about 100 bytes, pytest's folders can be longer
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        found = list(walk_folder(tmp_path, PathFilter()))
    assert [type(one.error) for one in found if isinstance(one, Refused)] == [SourceUnreadable, SourceUnreadable]
    assert "pipe" in str(found[0].error)  # type: ignore[union-attr]
    assert len(found) == 2


def test_names_that_are_no_utf8_are_given_on_and_their_refusals_can_be_written(tmp_path: Path) -> None:
    os.symlink(b"nowhere", os.fsencode(tmp_path) + b"/bad\xff")  # noqa: PTH211  # a path of bytes
    (refused,) = walk_folder(tmp_path, PathFilter())
    assert isinstance(refused, Refused)
    assert refused.name == r"bad\xff" or "\\udcff" in refused.name
    assert refused.name.encode()
    assert str(refused.error).encode()


def test_excluded_folders_are_not_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "skip" / "deep").mkdir(parents=True)
    (tmp_path / "skip" / "deep" / "file").write_bytes(b"")
    (tmp_path / "keep").write_bytes(b"")
    listed: list[str] = []
    original = walking._list
    monkeypatch.setattr(walking, "_list", lambda folder: listed.append(folder) or original(folder))
    assert paths_of(tmp_path, exclude=["skip"]) == ["keep"]
    assert listed == [str(tmp_path)]


def test_folders_larger_than_the_sorted_size_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "_SORTED_ENTRIES", 10)
    for number in range(35):
        (tmp_path / f"{number:03}").write_bytes(b"")
    assert sorted(paths_of(tmp_path)) == [f"{number:03}" for number in range(35)]


def test_a_folder_removed_while_it_is_walked_is_a_refusal_and_the_walk_goes_on(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1").write_bytes(b"")
    (tmp_path / "b").write_bytes(b"")
    walk = walk_folder(tmp_path, PathFilter())
    (tmp_path / "a" / "1").unlink()
    (tmp_path / "a").rmdir()
    assert [one.item_path for one in walk if isinstance(one, ItemUpload)] == ["b"]


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_what_is_no_folder_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    if kind == "file":
        (tmp_path / "x").write_bytes(b"")
    with pytest.raises((SourceNotFound, SourceUnreadable), match="folder"):
        next(iter(walk_folder(tmp_path / "x", PathFilter())))


def test_deep_folders_are_walked_to_the_end(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(200):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (deep / "f").write_bytes(b"")
    assert paths_of(tmp_path) == ["d/" * 200 + "f"]
