"""Images as callers have them: files, bytes, arrays, Pillow images; and what is sent of them.

Arrays become PNG files here, without loss and without a library: whoever asks for a prediction needs none.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

from asyncsdk.errors import ConfigError, InvalidImage, SourceNotFound, SourceUnreadable
from asyncsdk.os_errors import os_errors

__all__ = ["ImageArray", "ImageSource", "SentImage", "read_image"]


class ImageArray(Protocol):
    """What numpy arrays and Pillow images have in common."""

    @property
    def __array_interface__(self) -> dict[str, Any]:
        """Where the numbers are."""


ImageSource = str | PathLike[str] | bytes | bytearray | memoryview | ImageArray
"""An image: path of a file, bytes of a file, a Pillow image, or an array of bytes 0 to 255, height x width for grey or
height x width x 3 for RGB."""

_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
"""PNG's numbers for grey, RGB and RGB with transparency, by channels."""


@dataclass(frozen=True, slots=True)
class SentImage:
    """An image on its way.

    Attributes:
        name: What it is called in the result.
        data: Its file, when it is small or was made in memory; None: it is in *path*.
        path: Its file.
        size_bytes: Size of the file.
    """

    name: str
    data: bytes | None
    path: Path | None
    size_bytes: int


def read_image(image: ImageSource, name: str, *, inline_bytes: int) -> SentImage:
    """Return what is to be sent of *image*. Blocking: for a thread.

    Args:
        image: The image.
        name: What to call it when it is no file.
        inline_bytes: Files up to this size are read now; larger ones are sent from where they are.

    Raises:
        SourceNotFound, SourceUnreadable: There is no such file, or it cannot be read.
        ConfigError: It is no image, as far as can be seen without decoding it.
        InvalidImage: A Pillow image whose file is damaged.
    """
    if isinstance(image, (str, PathLike)):
        return _from_file(Path(image), inline_bytes)
    if isinstance(image, (bytes, bytearray)) or (isinstance(image, memoryview) and image.ndim == 1):
        return _in_memory(name, bytes(image))
    if hasattr(image, "getexif") and hasattr(image, "save"):
        return _in_memory(name, _from_pillow(image, name))
    return _in_memory(name, _from_array(image))


def _from_file(path: Path, inline_bytes: int) -> SentImage:
    with os_errors("source", source=str(path)):
        if path.is_dir():
            raise SourceUnreadable(f"{path}: is a folder; predict_many takes its files", source=str(path))
        if not path.exists():
            raise SourceNotFound(f"{path}: there is no such file", source=str(path))
        if not path.is_file():  # a pipe would be waited for, a device read without end
            raise SourceUnreadable(f"{path}: is no regular file", source=str(path))
        size = path.stat().st_size
        data = path.read_bytes() if size <= inline_bytes else None
    name = path.name.encode("utf-8", "replace").decode()  # it goes into JSON
    return SentImage(name, data, None if data is not None else path, size if data is None else len(data))


def _in_memory(name: str, data: bytes) -> SentImage:
    if not data:
        raise ConfigError(f"{name} is empty")
    return SentImage(name, data, None, len(data))


def _from_pillow(image: Any, name: str) -> bytes:
    """Return a PNG with the image's own note of which way is up."""
    file = BytesIO()
    try:
        exif = image.getexif()
        if image.mode.startswith("I"):
            image = image.convert("I").convert("I;16")  # whatever the order of its bytes
        elif image.mode not in {"1", "L", "LA", "P", "RGB", "RGBA"}:
            image = image.convert("RGB")
        image.save(file, "PNG", exif=exif, compress_level=1)
    except Exception as error:  # Pillow decodes as late as now, and raises whatever it stumbles over
        raise InvalidImage(name, f"cannot be decoded: {str(error) or type(error).__name__}") from error
    return file.getvalue()


def _from_array(array: object) -> bytes:
    try:
        view = memoryview(array)  # type: ignore[arg-type]  # what has no buffer is refused
    except TypeError:
        raise ConfigError(
            f"an image is a path, bytes, a Pillow image or an array of bytes, not {type(array).__name__}"
        ) from None
    if view.format != "B":
        raise ConfigError(
            f"an array must hold bytes (uint8, 0 to 255), not {view.format!r}; "
            "for numbers from 0 to 1: (array * 255).astype('uint8')"
        )
    shape = view.shape or ()
    channels = shape[2] if len(shape) == 3 else 1
    if len(shape) not in {2, 3} or channels not in _COLOUR_TYPES or 0 in shape:
        raise ConfigError(
            f"an array is height x width, or height x width x 3, not {' x '.join(map(str, shape)) or 'a number'}"
        )
    return _png(view.tobytes(), width=shape[1], height=shape[0], channels=channels)


def _png(pixels: bytes, *, width: int, height: int, channels: int) -> bytes:
    stride = width * channels
    # Each row begins with the number of its filter: 0, none.
    rows = b"".join(b"\0" + pixels[start : start + stride] for start in range(0, height * stride, stride))
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
