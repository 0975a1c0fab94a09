"""Names in archives: which may become items, and which folder is only the wrapping."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsdk.domain.archives import check_entry_name, dataset_root, is_ignored, is_zip
from asyncsdk.errors import InvalidName


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../a", "a/../../b", "a/..", "./a", "a//b", "..\\a", "a\\b", "C:/a", "c:a", "\\\\host\\share",
     "a/", "a\nb", "a\0b", "x" * 256, "/".join(["x" * 200] * 6)],
)  # fmt: skip
def test_dangerous_names_are_refused(name: str) -> None:
    """Absolute, upwards, of another system's tongue, too long."""
    with pytest.raises(InvalidName):
        check_entry_name(name)


def test_harmless_names_pass() -> None:
    """Whatever a file system gives, kept as it is."""
    for name in ("a", "images/train/a b.jpg", "ä/ö.png", "a..b/c...d", ".hidden", "~/x", "$HOME", "con:1"):
        assert check_entry_name(name) == name


@given(st.text(alphabet=st.sampled_from("ab./\\:~ \0\n%") | st.characters(codec="utf-8"), max_size=40))
def test_no_name_that_passes_leads_outside(name: str) -> None:
    """Neither read as a path of POSIX nor as one of Windows."""
    try:
        check_entry_name(name)
    except InvalidName:
        return
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        assert not path.is_absolute()
        assert not path.drive
        assert not path.root
        assert ".." not in path.parts


@pytest.mark.parametrize(
    ("names", "root"),
    [
        (["coco8/data.yaml", "coco8/images/train/1.jpg"], "coco8/"),
        (["coco8/images/1.jpg"], "coco8/"),
        (["coco8/labels/1.txt", "coco8/notes/x"], "coco8/"),
        (["images/1.jpg", "labels/1.txt"], ""),
        (["images/1.jpg"], ""),
        (["images/images/1.jpg"], ""),
        (["cats/1.jpg", "cats/2.jpg"], ""),
        (["a/images/1.jpg", "b/images/1.jpg"], ""),
        (["a/images/1.jpg", "data.yaml"], ""),
        (["a/b/images/1.jpg"], ""),
        (["a/images"], ""),
        ([], ""),
    ],
)
def test_the_folder_that_a_dataset_was_packed_with_is_found(names: list[str], root: str) -> None:
    """Only when it holds a dataset: a folder that may be a class stays."""
    assert dataset_root(names) == root


def test_what_is_no_data_is_ignored() -> None:
    """What macOS adds, and nothing else that is hidden."""
    assert is_ignored("__MACOSX/images/._a.jpg")
    assert is_ignored("images/.DS_Store")
    assert not is_ignored("images/.hidden")
    assert not is_ignored("a/__MACOSX/x")


def test_zips_are_told_by_their_first_bytes() -> None:
    """With an entry, and empty."""
    assert is_zip(b"PK\x03\x04rest")
    assert is_zip(b"PK\x05\x06")
    assert not is_zip(b"PK")
    assert not is_zip(b"\x1f\x8b\x08\x00")
