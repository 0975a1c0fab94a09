"""What is sent of an image, whatever it was given as."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from asyncsdk.entities.image_sources import read_image
from asyncsdk.errors import ConfigError, InvalidImage, SourceNotFound, SourceUnreadable


def decoded(data: bytes | None) -> np.ndarray:
    assert data is not None
    return np.asarray(Image.open(io.BytesIO(data)))


@given(
    height=st.integers(1, 40), width=st.integers(1, 40), channels=st.sampled_from([0, 1, 3, 4]), seed=st.integers(0, 99)
)
def test_arrays_come_back_from_their_files(height: int, width: int, channels: int, seed: int) -> None:
    """Whoever decodes the file that was made of an array gets the array."""
    shape = (height, width, channels) if channels else (height, width)
    array = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    sent = read_image(array, "a", inline_bytes=0)
    assert (decoded(sent.data) == (array[:, :, 0] if channels == 1 else array)).all()
    assert (sent.name, sent.path, sent.size_bytes) == ("a", None, len(sent.data or b""))


def test_views_are_read_in_their_own_order() -> None:
    """Steps, turned axes and foreign order of memory make no other picture."""
    array = np.arange(24 * 3, dtype=np.uint8).reshape(4, 6, 3)
    for view in (array[::-1, ::2], array.transpose(1, 0, 2), np.asfortranarray(array), memoryview(array)):
        assert (decoded(read_image(view, "a", inline_bytes=0).data) == np.asarray(view)).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "F"])
def test_pillow_images_of_every_mode_are_sent(mode: str) -> None:
    """As a PNG, whatever they hold."""
    image = Image.new("RGB", (4, 3), (200, 10, 10)).convert("L" if mode == "F" else mode if mode != "LA" else "L")
    data = read_image(image.convert(mode), "a", inline_bytes=0).data
    assert decoded(data).shape[:2] == (3, 4)


def test_small_files_are_read_and_large_ones_stay(tmp_path: Path) -> None:
    """Up to the limit the bytes are in hand; above it the engine sends the file from where it is."""
    path = tmp_path / "a.png"
    path.write_bytes(bytes(100))
    small, large = read_image(path, "n", inline_bytes=100), read_image(str(path), "n", inline_bytes=99)
    assert (small.name, small.data, small.path, small.size_bytes) == ("a.png", bytes(100), None, 100)
    assert (large.name, large.data, large.path, large.size_bytes) == ("a.png", None, path, 100)


def test_names_that_are_no_text_are_mended(tmp_path: Path) -> None:
    """A file name of broken bytes goes into JSON all the same."""
    path = tmp_path / "a\udcff.png"
    try:
        path.write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes no such names")
    assert read_image(path, "n", inline_bytes=9).name == "a?.png"


def test_files_that_cannot_be_sent_are_told(tmp_path: Path) -> None:
    """A missing file, a folder."""
    with pytest.raises(SourceNotFound):
        read_image(tmp_path / "absent.png", "n", inline_bytes=9)
    with pytest.raises(SourceUnreadable, match="is a folder"):
        read_image(tmp_path, "n", inline_bytes=9)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (b"", "is empty"),
        (np.zeros((8, 8), dtype=np.float32), r"astype\('uint8'\)"),
        (np.zeros((8, 8), dtype=np.int8), "must hold bytes"),
        (np.zeros((3, 8, 8), dtype=np.uint8), "not 3 x 8 x 8"),
        (np.zeros((0, 8), dtype=np.uint8), "not 0 x 8"),
        (np.zeros((), dtype=np.uint8), "not a number"),
        (3, "not int"),
        (None, "not NoneType"),
    ],
)
def test_what_is_no_image_is_refused(image: Any, said: str) -> None:
    """The message says what an image is."""
    with pytest.raises(ConfigError, match=said):
        read_image(image, "the image", inline_bytes=9)


def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    """A pipe that nobody writes into would be waited for, and a device has no end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(SourceUnreadable, match="no regular file"):
            read_image(path, "a", inline_bytes=100)


@pytest.mark.parametrize("mode", ["I", "I;16", "I;16B"])
def test_sixteen_bits_of_a_pillow_image_stay(mode: str) -> None:
    """Shades beyond 255 do not all become white."""
    sent = read_image(Image.new(mode, (2, 1), 40_000), "a", inline_bytes=0)
    assert decoded(sent.data).tolist() == [[40_000, 40_000]]


def test_a_damaged_file_behind_a_pillow_image_is_told() -> None:
    """Pillow decodes when the image is used, which is here."""
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)).save(file, "PNG")
    with pytest.raises(InvalidImage, match="cannot be decoded"):
        read_image(Image.open(io.BytesIO(file.getvalue()[:2000])), "a", inline_bytes=0)
