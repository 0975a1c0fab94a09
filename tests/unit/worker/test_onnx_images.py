"""Image bytes nobody vouches for: decoded, upright, or refused with the reason."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from asyncsdk.errors import InvalidImage
from asyncsdk.worker.onnx.images import decode_image
from tests.support.onnx_models import png


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM"])
def test_formats_come_back_as_they_were(kind: str) -> None:
    """Every lossless format gives the very pixels."""
    pixels = np.zeros((5, 7, 3), dtype=np.uint8)
    pixels[1:3, 2:6] = (255, 0, 0)
    data = saved(Image.fromarray(pixels), kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert (np.asarray(decode_image(data, channels=3)) == pixels).all()


def test_a_file_is_read_like_bytes(tmp_path: Path) -> None:
    """A path gives what its bytes give."""
    path = tmp_path / "a.png"
    path.write_bytes(png(np.full((3, 4), 9, dtype=np.uint8)))
    assert (np.asarray(decode_image(path, channels=1)) == 9).all()


def test_grey_and_colour_as_the_model_wants() -> None:
    """One channel or three, whatever the file has; transparency is dropped."""
    colour = png(np.full((2, 2, 3), (10, 10, 10), dtype=np.uint8))
    assert decode_image(colour, channels=1).mode == "L"
    assert decode_image(png(np.full((2, 2), 7, dtype=np.uint8)), channels=3).getpixel((0, 0)) == (7, 7, 7)
    seen_through = saved(Image.new("RGBA", (2, 2), (1, 2, 3, 0)), "PNG")
    assert decode_image(seen_through, channels=3).getpixel((0, 0)) == (1, 2, 3)


def test_sixteen_bits_are_scaled_not_cut_off() -> None:
    """Grey of 16 bits keeps its shades."""
    deep = np.array([[0, 32768, 65535]], dtype=np.uint16)
    found = np.asarray(decode_image(saved(Image.fromarray(deep), "PNG"), channels=1))
    assert found.tolist() == [[0, 128, 255]]


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (3, 1)), (6, (1, 0)), (8, (0, 3))])
def test_images_are_turned_upright(orientation: int, corner: tuple[int, int]) -> None:
    """EXIF orientation is applied: the marked corner is where a viewer shows it."""
    pixels = np.zeros((2, 4, 3), dtype=np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = decode_image(saved(Image.fromarray(pixels), "PNG", exif=exif), channels=3)
    assert upright.size == ((4, 2) if orientation in {1, 3} else (2, 4))
    assert upright.getpixel(corner) == (255, 255, 255)


def claiming(width: int, height: int) -> bytes:
    """Return a PNG of a few bytes that says it is that large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8193, 10_000, 30_000, 60_000])
def test_bombs_are_refused_before_they_are_decoded(side: int) -> None:
    """The size that a header claims decides; also where Pillow itself warns or raises."""
    with pytest.raises(InvalidImage, match="are allowed"):
        decode_image(claiming(side, side), channels=3, name="bomb.png")


def test_the_limit_can_be_lower() -> None:
    """A caller may allow less."""
    data = png(np.zeros((10, 10), dtype=np.uint8))
    decode_image(data, channels=1, max_pixels=100)
    with pytest.raises(InvalidImage, match=r"10 x 10 pixels; 99 are allowed"):
        decode_image(data, channels=1, max_pixels=99)


@pytest.mark.parametrize(
    "data",
    [b"", b"no image", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", png(np.zeros((9, 9), np.uint8))[:40]],
)
def test_what_is_no_image_is_refused(data: bytes) -> None:
    """Text, PostScript (which would start another program) and half a file are told by name."""
    with pytest.raises(InvalidImage, match=r"^x\.png "):
        decode_image(data, channels=3, name="x.png")


def test_damaged_bytes_never_raise_anything_else() -> None:
    """Flipping bytes of real files gives an image or `InvalidImage`."""
    generator = np.random.default_rng(0)
    image = Image.fromarray(generator.integers(0, 255, (40, 40, 3), dtype=np.uint8))
    refused = 0
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP"):
        whole = saved(image, kind)
        for _ in range(60):
            data = bytearray(whole)
            for place in generator.integers(0, len(data), 4):
                data[place] = generator.integers(0, 256)
            try:
                decode_image(bytes(data), channels=3, max_pixels=10**6)
            except InvalidImage:
                refused += 1
    assert refused > 60
