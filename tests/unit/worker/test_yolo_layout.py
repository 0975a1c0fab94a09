"""What the entries of an archive are taken for, and YAML files of strangers."""

from __future__ import annotations

from pathlib import Path

import pytest

from asyncsdk.errors import InvalidArchive
from asyncsdk.worker.yolo_layout import Plan, load_yaml, plan_of
from asyncsdk.worker.zip_reader import ZipReader
from tests.support.zips import make_zip, yolo_files

BOX = "0 .5 .5 .1 .1\n"


def plan(folder: Path, files: dict[str, bytes | str]) -> Plan:
    (folder / "a.zip").write_bytes(make_zip(files))
    with ZipReader(folder / "a.zip") as reader:
        return plan_of(reader)


def shown(plan: Plan) -> dict[str, tuple[str | None, str | None]]:
    return {file.path: (file.labels and file.labels.name, file.split) for file in plan.files}


@pytest.mark.parametrize("wrapping", ["", "coco8/"])
def test_labels_belong_to_images_and_nothing_of_yolo_is_an_item(tmp_path: Path, wrapping: str) -> None:
    """The same whether the folder was packed or what is in it; what is neither label nor YAML is an item."""
    files = yolo_files(
        {"train/a": b"a", "train/b": b"b", "val/c": b"c"}, {"train/a": BOX, "val/c": "", "train/x": BOX}, ["cat", "yes"]
    )
    files |= {"README.md": "hello", "other.yaml": "a: 1"}
    found = plan(tmp_path, {f"{wrapping}{name}": data for name, data in files.items()})
    assert found.is_yolo
    assert found.names == {0: "cat", 1: "yes"}
    assert found.lone_labels == 1
    assert shown(found) == {
        "images/train/a.png": (f"{wrapping}labels/train/a.txt", "train"),
        "images/train/b.png": (None, "train"),
        "images/val/c.png": (f"{wrapping}labels/val/c.txt", "val"),
        "labels/train/x.txt": (None, None),
        "README.md": (None, None),
        "other.yaml": (None, None),
    }


def test_splits_may_stand_before_images(tmp_path: Path) -> None:
    """As some services export them."""
    files: dict[str, bytes | str] = {
        "data.yaml": "names: {0: cat}",
        "train/images/a.jpg": b"a",
        "train/labels/a.txt": BOX,
        "valid/images/b.jpg": b"b",
    }
    assert shown(plan(tmp_path, files)) == {
        "train/images/a.jpg": ("train/labels/a.txt", "train"),
        "valid/images/b.jpg": (None, "valid"),
    }


def test_an_archive_of_something_else_is_files(tmp_path: Path) -> None:
    """Texts beside images are no labels, folders are no splits, a YAML without names is a file."""
    files: dict[str, bytes | str] = {
        "config.yaml": "a: 1",
        "images/holidays/a.jpg": b"a",
        "notes/a.txt": "x",
        "labels/readme.txt": "x",
        "b.yml": "[",
    }
    found = plan(tmp_path, files)
    assert not found.is_yolo
    assert shown(found) == dict.fromkeys(files, (None, None))


def test_labels_without_yaml_have_numbers(tmp_path: Path) -> None:
    """Nothing names them, and nothing pretends to."""
    found = plan(tmp_path, {"images/a.jpg": b"a", "labels/a.txt": BOX})
    assert found.is_yolo
    assert found.names is None


def test_the_usual_names_of_the_yaml_go_first(tmp_path: Path) -> None:
    """Before others that have names, too; deeper ones do not count."""
    files: dict[str, bytes | str] = {
        "a.yaml": "names: [wrong]",
        "dataset.yml": "names: [right]",
        "x/data.yaml": "names: [deep]",
        "images/a.jpg": b"a",
    }
    found = plan(tmp_path, files)
    assert found.names == {0: "right"}
    assert {"a.yaml", "x/data.yaml"} < shown(found).keys()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("names: [a", "no YAML"),
        ("names: [a]\nkpt_shape: 17", "kpt_shape"),
        ("names: cat", "names"),
        (b"names: [\xff]", "no YAML"),
        ("names: &a [x]\nother: *a", "references"),
        ("#" * 1_048_577, "1,048,576 are allowed"),
    ],
)
def test_a_yaml_that_should_name_classes_and_does_not_ends_it(tmp_path: Path, text: bytes | str, reason: str) -> None:
    """Labels under numbers would look as if they were meant; the message names the file."""
    files: dict[str, bytes | str] = {"images/a.jpg": b"a", "labels/a.txt": BOX, "data.yaml": text}
    with pytest.raises(InvalidArchive, match=reason) as caught:
        plan(tmp_path, files)
    assert "data.yaml" in str(caught.value)


def test_poses_are_told_by_the_yaml(tmp_path: Path) -> None:
    """Their numbers come as text."""
    found = plan(tmp_path, {"data.yaml": "names: [person]\nkpt_shape: [17, 3]", "images/a.jpg": b"a"})
    assert found.points == (17, 3)


def test_words_of_yaml_stay_as_they_are_written() -> None:
    """No truths, dates or numbers are made of names; tags of Python do nothing."""
    assert load_yaml(b"\xef\xbb\xbfnames: [yes, 1.50, 2020-01-02, ~, 'a b']") == {
        "names": ["yes", "1.50", "2020-01-02", "~", "a b"]
    }
    assert load_yaml(b"a: !!python/object/apply:os.system ['exit 1']") == {"a": ["exit 1"]}
    assert load_yaml(b"") is None or load_yaml(b"") == ""


@pytest.mark.parametrize(
    "data",
    [
        b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
        b"a: &a {x: 1}\nb: {<<: *a}",
        b"[" * 100_000,
        b"{a: " * 50_000,
        b"- " * 50_000,
        b"\xff\xfe",
        b"a: b: c",
        b"\x00",
    ],
    ids=["laughs", "merge", "deep-lists", "deep-maps", "deep-sequence", "no-utf8", "broken", "nul"],
)
def test_yaml_that_is_meant_to_harm_is_an_error(data: bytes) -> None:
    """References, nesting without end, no text at all."""
    with pytest.raises(ValueError, match=r"."):
        load_yaml(data)
