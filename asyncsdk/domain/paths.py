"""Names of entities and paths of items: what is allowed, and how a path becomes a file below a folder.

Item paths are POSIX, relative, and kept byte for byte: NFC and NFD spellings are different items.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator

from asyncsdk.errors import InvalidName

__all__ = ["ItemPath", "Name", "check_item_path", "check_name", "path_below"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

MAX_NAME_CHARACTERS = 255
MAX_SEGMENT_BYTES = 255
"""What the file systems in use allow for one name: an item must be able to come back as a file."""
MAX_PATH_BYTES = 1024
"""As S3: the length of a key."""


def check_name(name: str) -> str:
    """Return *name* when it can name an entity.

    Raises:
        InvalidName: It is empty or blank at an end, longer than 255 characters, holds control characters or ``/``,
            or is not valid Unicode.
    """
    if not name:
        raise InvalidName(name, "is empty; give it at least one character")
    if len(name) > MAX_NAME_CHARACTERS:
        raise InvalidName(name, f"has {len(name)} characters; {MAX_NAME_CHARACTERS} are allowed")
    if name != name.strip():
        raise InvalidName(name, "starts or ends with white space; remove it")
    _check_characters(name)
    if "/" in name:
        raise InvalidName(name, "holds a slash; names of entities have none")
    return name


def check_item_path(path: str) -> str:
    """Return *path* when it can be the path of an item: POSIX, relative, inside the dataset.

    Raises:
        InvalidName: It is empty, absolute, holds an empty, ``.`` or ``..`` segment, a control character, a segment
            over 255 bytes, over 1,024 bytes in all, or text that is no valid Unicode.
    """
    if _is_plain(path):
        return path
    if not path:
        raise InvalidName(path, "is empty; an item needs a path")
    if path.startswith("/"):
        raise InvalidName(path, "is absolute; item paths are relative to the dataset")
    _check_characters(path)
    size = len(path.encode())
    if size > MAX_PATH_BYTES:
        raise InvalidName(path, f"has {size} bytes; {MAX_PATH_BYTES} are allowed")
    for segment in path.split("/"):
        if segment in {"", ".", ".."}:
            raise InvalidName(path, f"holds the segment {segment!r}; write the path without it")
        if len(segment) > MAX_SEGMENT_BYTES // 4 and len(segment.encode()) > MAX_SEGMENT_BYTES:
            raise InvalidName(path, f"has a name over {MAX_SEGMENT_BYTES} bytes in it; shorten it")
    return path


def _is_plain(path: str) -> bool:
    """Whether a glance shows that a path is good, as most are; a bulk message has a thousand of them."""
    return (
        len(path) <= MAX_SEGMENT_BYTES
        and path.isascii()
        and path.isprintable()
        and "/." not in path
        and "//" not in path
        and path[:1] not in "/."  # in an empty path, too: "" is in every text
        and path[-1] != "/"
    )


def _check_characters(text: str) -> None:
    if found := _CONTROL.search(text):
        raise InvalidName(text, f"holds the control character {found[0]!r}; remove it")
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidName(
            text.encode(errors="replace").decode(),
            "holds bytes that are not valid UTF-8; rename the file, or give the item a path of its own",
        ) from None


def path_below(folder: Path, item_path: str) -> Path:
    """Return the file for *item_path* below *folder*; it cannot lie outside.

    Checks the name only; links that stand in the folder are the caller's business.

    Raises:
        InvalidName: As `check_item_path`, or the name means something else on this operating system.
    """
    check_item_path(item_path)
    result = folder.joinpath(*item_path.split("/"))
    # Windows reads backslashes, drive letters and reserved names into what POSIX takes as plain text.
    if os.sep != "/" and result.relative_to(folder).parts != PurePosixPath(item_path).parts:
        raise InvalidName(item_path, "cannot be a file name on this operating system")
    return result


Name = Annotated[str, AfterValidator(check_name)]
"""Name of an entity: 1 to 255 characters, no slash, no control characters, no white space at its ends."""

ItemPath = Annotated[str, AfterValidator(check_item_path)]
"""Path of an item: POSIX, relative, at most 1,024 bytes of UTF-8."""
