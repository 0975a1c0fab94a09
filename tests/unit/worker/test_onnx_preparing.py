"""Bringing images to a model's size, and its boxes back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from asyncsdk.worker.onnx.facts import ModelFacts, Resize
from asyncsdk.worker.onnx.preparing import place, to_tensor


@pytest.mark.parametrize("how", ["letterbox", "crop", "stretch"])
@pytest.mark.parametrize("size", [(64, 64), (32, 96), (33, 17), (1, 1)])
@pytest.mark.parametrize("image_size", [(64, 64), (100, 50), (50, 100), (1, 7), (1, 1)])
def test_every_way_gives_the_size_asked_for(how: Resize, size: tuple[int, int], image_size: tuple[int, int]) -> None:
    """Whatever the proportions, the input has the model's height and width."""
    placed, _ = place(Image.new("RGB", image_size), size, how)
    assert placed.size == (size[1], size[0])


@pytest.mark.parametrize("how", ["letterbox", "stretch"])
@pytest.mark.parametrize("image_size", [(100, 50), (50, 100), (97, 61), (640, 480)])
def test_boxes_come_back_to_the_image(how: Resize, image_size: tuple[int, int]) -> None:
    """The box of the whole input, taken back, is the whole image; corners of the image go there and back."""
    _, placement = place(Image.new("L", image_size), (64, 96), how)
    whole = np.array([[-5, -5, 200, 200]])
    assert placement.to_image(whole).tolist() == [[0, 0, *image_size]]
    there = np.array([10, 20, 40, 45]) * np.array([*placement.gain * 2]) + np.array([*placement.offset * 2])
    assert placement.to_image(there[None])[0].tolist() == pytest.approx([10, 20, 40, 45])


def test_letterbox_is_grey_around_all_of_the_image() -> None:
    """Nothing of the image is lost, and what surrounds it is the grey that YOLO models know."""
    placed, placement = place(Image.new("RGB", (20, 10), (255, 0, 0)), (20, 20), "letterbox")
    pixels = np.asarray(placed)
    assert (pixels[:5] == 114).all()
    assert (pixels[15:] == 114).all()
    assert (pixels[5:15] == (255, 0, 0)).all()
    assert placement.offset == (0.0, 5.0)


def test_crop_takes_the_middle() -> None:
    """The shorter side decides, and the ends of the longer one are cut off."""
    image = Image.new("L", (30, 10))
    image.paste(200, (10, 0, 20, 10))
    placed, _ = place(image, (10, 10), "crop")
    assert (np.asarray(placed) == 200).all()


FIRST = {"input_name": "images", "dtype": "float32", "channels": 3}


@pytest.mark.parametrize(
    ("facts", "shape", "dtype", "red"),
    [
        ({}, (1, 3, 2, 4), "float32", 1.0),
        ({"is_channels_last": True}, (1, 2, 4, 3), "float32", 1.0),
        ({"dtype": "float16"}, (1, 3, 2, 4), "float16", 1.0),
        ({"dtype": "uint8"}, (1, 3, 2, 4), "uint8", 255),
        ({"batch": 2}, (2, 3, 2, 4), "float32", 1.0),
        ({"scale": 1.0}, (1, 3, 2, 4), "float32", 255.0),
        ({"mean": (0.5, 0.0, 0.0), "std": (0.25, 1.0, 1.0)}, (1, 3, 2, 4), "float32", 2.0),
    ],
)
def test_tensors_are_what_the_model_takes(
    facts: dict[str, Any], shape: tuple[int, ...], dtype: str, red: float
) -> None:
    """Layout, type, batch, scale, mean and deviation."""
    tensor = to_tensor(Image.new("RGB", (4, 2), (255, 0, 0)), ModelFacts(**{**FIRST, **facts}))
    assert tensor.shape == shape
    assert tensor.dtype == np.dtype(dtype)
    assert tensor.flags.c_contiguous
    channel = tensor[..., 0] if facts.get("is_channels_last") else tensor[:, 0]
    assert (channel == red).all()


def test_grey_has_one_channel() -> None:
    """A grey image is a batch of one channel."""
    assert to_tensor(Image.new("L", (4, 2)), ModelFacts("images", "float32", 1)).shape == (1, 1, 2, 4)
