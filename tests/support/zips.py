"""Zips for tests: ordinary ones, and ones that no ordinary program writes."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterable, Mapping

__all__ = ["lie_about_size", "make_zip", "make_zip_of", "yolo_files"]

_CENTRAL = b"PK\x01\x02"
_LOCAL = b"PK\x03\x04"


def make_zip(files: Mapping[str, bytes | str], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip of *files*, in their order."""
    return make_zip_of(files.items(), method=method)


def make_zip_of(
    entries: Iterable[tuple[str | zipfile.ZipInfo, bytes | str]], *, method: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """Return a zip of entries in their order, names twice where they are given twice."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data, method if isinstance(name, str) else None)
    return file.getvalue()


def lie_about_size(data: bytes, size_bytes: int) -> bytes:
    """Return a zip whose first entry announces *size_bytes*, at both places where a zip says it."""
    told = bytearray(data)
    size = struct.pack("<L", size_bytes)
    for start in (told.index(_LOCAL) + 22, told.index(_CENTRAL) + 24):
        told[start : start + 4] = size
    return bytes(told)


def yolo_files(images: Mapping[str, bytes], labels: Mapping[str, str], names: Iterable[str]) -> dict[str, bytes | str]:
    """Return the files of a dataset in the layout of YOLO; keys of both are like ``train/a``, images are PNG files."""
    listed = "".join(f"  - {name}\n" for name in names)
    return {
        "data.yaml": f"path: .\ntrain: images/train\nval: images/val\nnames:\n{listed}",
        **{f"images/{name}.png": data for name, data in images.items()},
        **{f"labels/{name}.txt": text for name, text in labels.items()},
    }
