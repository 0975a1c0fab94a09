"""Patterns as in pathlib, and what they leave out."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsdk.entities.globs import PathFilter
from asyncsdk.errors import ConfigError


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("*.jpg", "a.jpg", True),
        ("*.jpg", "deep/down/a.jpg", True),
        ("*.jpg", "a.jpg/b.png", False),
        ("train/*.jpg", "train/a.jpg", True),
        ("train/*.jpg", "x/train/a.jpg", True),
        ("train/*.jpg", "train/x/a.jpg", False),
        ("/train/*.jpg", "x/train/a.jpg", False),
        ("train/**/*.jpg", "train/a.jpg", True),
        ("train/**/*.jpg", "train/x/y/a.jpg", True),
        ("train/**", "train/x/y/a.jpg", True),
        ("train/**", "train", False),
        ("?.txt", "a.txt", True),
        ("?.txt", "ab.txt", False),
        ("[ab].txt", "b.txt", True),
        ("[!ab].txt", "b.txt", False),
        ("[a", "[a", True),
        ("*.JPG", "a.jpg", False),
        ("a.jpg", "aXjpg", False),
        ("*.txt", "line\nbreak.txt", True),
    ],
)
def test_include_means_what_pathlib_means(pattern: str, path: str, matches: bool) -> None:
    assert PathFilter([pattern]).keeps(path) is matches


@given(
    st.lists(
        st.text("ab.*?", min_size=1, max_size=4).filter(lambda s: "**" not in s and s != "."), min_size=1, max_size=3
    ),
    st.lists(st.text("ab.", min_size=1, max_size=4).filter(lambda s: s not in {".", ".."}), min_size=1, max_size=4),
)
def test_relative_patterns_agree_with_purepath_match(pattern: list[str], path: list[str]) -> None:
    """Without ``**`` (which `PurePath.match` reads as ``*`` before Python 3.13) both must say the same."""
    expected = PurePosixPath("/".join(path)).match("/".join(pattern))
    assert PathFilter(["/".join(pattern)]).keeps("/".join(path)) is expected


def test_exclude_takes_a_folder_with_everything_below_it() -> None:
    paths = PathFilter(exclude=[".git", "*.tmp"])
    assert not paths.enters(".git")
    assert not paths.keeps(".git/config")
    assert not paths.keeps("sub/.git/objects/aa")
    assert not paths.keeps("x.tmp")
    assert paths.keeps("x.txt")


def test_exclude_wins_over_include() -> None:
    paths = PathFilter(["*.jpg"], ["bad/*"])
    assert paths.keeps("good/a.jpg")
    assert not paths.keeps("bad/a.jpg")


def test_one_text_instead_of_a_list_is_refused_with_the_list_to_write() -> None:
    with pytest.raises(ConfigError, match=r"\['\*\.jpg'\]"):
        PathFilter("*.jpg")  # type: ignore[arg-type]


def test_empty_pattern_is_refused() -> None:
    with pytest.raises(ConfigError, match="no pattern"):
        PathFilter(["/"])
