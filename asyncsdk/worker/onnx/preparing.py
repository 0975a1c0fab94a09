"""From an image to the numbers a model takes, and from its boxes back to the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from asyncsdk.worker.onnx.facts import ModelFacts, Resize

__all__ = ["Placement", "place", "to_tensor"]

_GREY = 114
"""What surrounds a letterboxed image: the value that YOLO models are trained with."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an image lies in a model's input: ``input = image * gain + offset`` (across, down).

    Attributes:
        gain: Factors across and down.
        offset: Pixels from the left and from the top; negative where the image is cut off.
        image_size: Width and height of the image.
    """

    gain: tuple[float, float]
    offset: tuple[float, float]
    image_size: tuple[int, int]

    def to_image(self, boxes: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return ``(x1, y1, x2, y2)`` rows of the input as rows of the image, cut off at its edges."""
        offset = np.array([*self.offset, *self.offset], dtype=np.float64)
        gain = np.array([*self.gain, *self.gain], dtype=np.float64)
        most = np.array([*self.image_size, *self.image_size], dtype=np.float64)
        moved: npt.NDArray[Any] = np.clip((boxes.astype(np.float64) - offset) / gain, 0, most)
        return moved


def place(image: Image.Image, size: tuple[int, int], how: Resize) -> tuple[Image.Image, Placement]:
    """Return *image* brought to *size* (height, width), and where in it the image lies."""
    height, width = size
    across, down = image.size
    if how == "stretch":
        return _resized(image, (width, height)), Placement((width / across, height / down), (0.0, 0.0), image.size)
    # Letterbox: the smaller factor, so that all of it is in; crop: the larger one, so that nothing else is.
    pick = min if how == "letterbox" else max
    gain = pick(width / across, height / down)
    inner = (max(1, round(across * gain)), max(1, round(down * gain)))
    if how == "crop":
        inner = (max(inner[0], width), max(inner[1], height))
    # 0.1 less before rounding: halves go to the right and the bottom, as where the models are trained.
    left, top = round((width - inner[0]) / 2 - 0.1), round((height - inner[1]) / 2 - 0.1)
    placement = Placement((inner[0] / across, inner[1] / down), (float(left), float(top)), image.size)
    if how == "crop":
        return _cut(image, (width, height), placement), placement
    resized = _resized(image, inner)
    if inner == (width, height):
        return resized, placement
    canvas = Image.new(image.mode, (width, height), (_GREY,) * len(image.getbands()) if image.mode != "L" else _GREY)
    canvas.paste(resized, (left, top))
    return canvas, placement


def _resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.BILINEAR)


def _cut(image: Image.Image, size: tuple[int, int], placement: Placement) -> Image.Image:
    """Return the part of the resized image that lies in the input.

    Resized from that part of the original alone: all of a line of a million pixels, brought to the width of a model,
    would fill the memory.
    """
    (across, down), (left, top) = placement.gain, placement.offset
    low = (max(0.0, -left / across), max(0.0, -top / down))
    high = (min(image.width, (size[0] - left) / across), min(image.height, (size[1] - top) / down))
    return image.resize(size, Image.Resampling.BILINEAR, box=(*low, *high))


def to_tensor(image: Image.Image, facts: ModelFacts) -> npt.NDArray[Any]:
    """Return the input of the model for one image: a batch of one, or of as many as the model insists on."""
    pixels: npt.NDArray[Any] = np.asarray(image)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if not facts.is_channels_last:
        pixels = pixels.transpose(2, 0, 1)
    if facts.dtype != "uint8":
        pixels = _normalised(pixels, facts).astype(facts.dtype)
    batch = np.ascontiguousarray(pixels[None])
    return batch if facts.batch in {None, 1} else np.repeat(batch, facts.batch, axis=0)


def _normalised(pixels: npt.NDArray[Any], facts: ModelFacts) -> npt.NDArray[Any]:
    numbers = pixels.astype(np.float32) * np.float32(1 / 255 if facts.scale is None else facts.scale)
    shape = (1, 1, -1) if facts.is_channels_last else (-1, 1, 1)
    if facts.mean:
        numbers -= np.array(facts.mean, dtype=np.float32).reshape(shape)
    if facts.std:
        numbers /= np.array(facts.std, dtype=np.float32).reshape(shape)
    return numbers
