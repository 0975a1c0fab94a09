"""Images from bytes nobody vouches for: decoded, upright, with the channels a model wants."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from asyncsdk.errors import InvalidImage

__all__ = ["FORMATS", "MAX_PIXELS", "PixelRoom", "decode_image", "decoded_image"]

MAX_PIXELS = 64 * 1024 * 1024
"""Pixels of one image at most (8192 x 8192): 256 MiB once decoded, twice that while it is turned or its colours are
changed. A file of a few KiB can claim any number."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""What is decoded. Named, because Pillow also knows formats that start other programs."""


class PixelRoom:
    """Bounds the pixels that are decoded at once, over all threads; who comes first gets room first.

    Args:
        pixels: How many; an image that has more waits until it is alone.
    """

    def __init__(self, pixels: int) -> None:
        self._all = self._free = pixels
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        """Hold room for an image; blocking, until there is some."""
        mine = min(pixels, self._all)
        with self._turn, self._changed:  # who waits here keeps those behind from taking what it waits for
            self._changed.wait_for(lambda: self._free >= mine)
            self._free -= mine
        try:
            yield
        finally:
            with self._changed:
                self._free += mine
                self._changed.notify_all()


_room = PixelRoom(MAX_PIXELS)


@contextmanager
def decoded_image(source: bytes | Path, *, channels: int, name: str = "") -> Iterator[Image.Image]:
    """Hold an image as `decode_image` returns it. Held at once, by all threads: 64 Mi pixels, so that many large images
    take no more memory than one.

    Raises:
        InvalidImage: As `decode_image`.
    """
    with ExitStack() as held:
        yield decode_image(
            source, channels=channels, name=name, on_size=lambda pixels: held.enter_context(_room.taken(pixels))
        )


def decode_image(
    source: bytes | Path,
    *,
    channels: int,
    name: str = "",
    max_pixels: int = MAX_PIXELS,
    on_size: Callable[[int], None] | None = None,
) -> Image.Image:
    """Return the image upright, as RGB (3 channels) or grey (1 channel).

    Its size is looked at before a pixel is decoded. Of an animation, the first frame is taken; transparency is ignored.

    Args:
        source: The bytes of an image file, or the file.
        channels: 3 or 1.
        name: What to call it in errors.
        max_pixels: Images with more are refused.
        on_size: Told how many it has, before they are decoded.

    Raises:
        InvalidImage: It is no image, is damaged, or is too large.
    """
    shown = name or (source.name if isinstance(source, Path) else "the image")
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise InvalidImage(shown, f"has {width} x {height} pixels; {max_pixels:,} are allowed")
            if on_size is not None:
                on_size(width * height)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)  # a copy only of what lies on its side
            return _converted(image, "RGB" if channels == 3 else "L")
    except (InvalidImage, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InvalidImage(shown, f"has more pixels than the {max_pixels:,} that are allowed") from error
    except UnidentifiedImageError as error:
        raise InvalidImage(shown, f"is no image of a known format ({', '.join(FORMATS)})") from error
    except Exception as error:  # the decoders raise whatever they stumble over in damaged bytes
        raise InvalidImage(shown, f"cannot be decoded: {str(error) or type(error).__name__}") from error


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits: Pillow would cut them off at 255
        deep = np.asarray(image).astype(np.float32)
        deep /= 257  # in place, as what follows: large images would take four times the room
        np.clip(np.rint(deep, out=deep), 0, 255, out=deep)
        image = Image.fromarray(deep.astype(np.uint8))
    return image if image.mode == mode else image.convert(mode)
