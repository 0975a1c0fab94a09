"""Archives as files: told by their first bytes, and which of the names in them may become paths of items."""

from __future__ import annotations

import re
from collections.abc import Iterable

from asyncsdk.domain.paths import check_item_path
from asyncsdk.errors import InvalidName

__all__ = ["check_entry_name", "dataset_root", "is_ignored", "is_zip"]

HEAD_BYTES = 4
"""What `is_zip` looks at."""

_ZIP_HEADS = frozenset({b"PK\x03\x04", b"PK\x05\x06"})
"""Of the first entry, and of an archive without any."""

_DRIVE = re.compile(r"[A-Za-z]:")

_LAYOUT_FOLDERS = frozenset({"images", "labels"})
_YAML_SUFFIXES = (".yaml", ".yml")


def is_zip(head: bytes) -> bool:
    """Whether a file that begins with *head* (4 bytes tell) says that it is a zip archive."""
    return head[:HEAD_BYTES] in _ZIP_HEADS


def check_entry_name(name: str) -> str:
    """Return *name* when the entry of that name may become an item: it means the same on every operating system.

    Raises:
        InvalidName: As `asyncsdk.domain.paths.check_item_path` (absolute, ``..``, too long...), or it has a
            backslash or begins with a drive letter.
    """
    if "\\" in name:
        raise InvalidName(name, "holds a backslash; names in archives are written with slashes")
    if _DRIVE.match(name):
        raise InvalidName(name, "begins with a drive letter; names in archives are relative")
    return check_item_path(name)


def is_ignored(name: str) -> bool:
    """Whether an entry is no data: what macOS keeps beside each file, and how its folders look."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2] == ".DS_Store"


def dataset_root(names: Iterable[str]) -> str:
    """Return the folder, with a slash at its end, that a dataset was packed with; empty: there is none.

    It is the one folder that all *names* lie in, when a folder ``images`` or ``labels``, or a YAML file, lies right in
    it: ``coco8/`` of ``coco8/data.yaml``, ``coco8/images/train/1.jpg``. Then a dataset is the same whether its folder
    was packed or what is in it. A common folder of another kind may mean something, and stays.
    """
    root: str | None = None
    has_layout = False
    for name in names:
        top, slash, rest = name.partition("/")
        if not slash or top in _LAYOUT_FOLDERS or (root is not None and top != root):
            return ""
        root = top
        first, deeper, _ = rest.partition("/")
        has_layout = has_layout or (first in _LAYOUT_FOLDERS if deeper else first.lower().endswith(_YAML_SUFFIXES))
    return f"{root}/" if root is not None and has_layout else ""
