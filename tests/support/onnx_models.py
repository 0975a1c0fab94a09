"""Models made for tests: a classifier trained for real, and detectors whose answers can be computed by hand."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

__all__ = ["Digits", "Scene", "digits", "endless_classifier", "light_detector", "make_scene", "onnx_model", "png"]

OPSET = 17


def onnx_model(
    nodes: list[Any],
    *,
    inputs: dict[str, tuple[Any, list[Any]]],
    outputs: dict[str, tuple[Any, list[Any]]],
    constants: dict[str, np.ndarray],
    metadata: dict[str, str] | None = None,
) -> bytes:
    """Return an ONNX file made of *nodes*; checked."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 8
    for key, value in (metadata or {}).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(model)
    return model.SerializeToString()


def png(pixels: np.ndarray) -> bytes:
    """Return an image file of *pixels* (height x width, or height x width x 3; bytes)."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@dataclass(frozen=True)
class Digits:
    """A classifier of handwritten digits, and digits it never saw.

    Attributes:
        weights: The classifier: input ``[1, 1, 8, 8]``, output ten logits; an ONNX file.
        images: Held-out digits, each 8 x 8 bytes.
        labels: What they are.
        expected: What scikit-learn says of them.
        accuracy: How often scikit-learn is right about them.
    """

    weights: bytes
    images: np.ndarray
    labels: np.ndarray
    expected: np.ndarray
    accuracy: float

    def file(self, index: int) -> bytes:
        """Return one held-out digit as an image file."""
        return png(self.images[index])


@cache
def digits() -> Digits:
    """Return a classifier trained now on scikit-learn's digits (1,347 of them; 450 are held out). About a second."""
    data = load_digits()
    # Pixel values 0 to 16 as bytes, which is what an image file holds; then 0 to 1, as the platform gives them.
    images = np.rint(data.images * 255 / 16).astype(np.uint8)
    train, test, train_labels, test_labels = train_test_split(
        images, data.target, test_size=0.25, random_state=0, stratify=data.target
    )
    network = MLPClassifier(hidden_layer_sizes=(64,), max_iter=300, tol=1e-3, random_state=0)
    network.fit(train.reshape(-1, 64) / 255, train_labels)
    (w1, w2), (b1, b2) = network.coefs_, network.intercepts_
    named = zip(("w1", "b1", "w2", "b2"), (w1, b1, w2, b2), strict=True)
    weights = onnx_model(
        [
            helper.make_node("Flatten", ["images"], ["flat"], axis=1),
            helper.make_node("Gemm", ["flat", "w1", "b1"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("Gemm", ["active", "w2", "b2"], ["logits"]),
        ],
        inputs={"images": (TensorProto.FLOAT, [1, 1, 8, 8])},
        outputs={"logits": (TensorProto.FLOAT, [1, 10])},
        constants={name: value.astype(np.float32) for name, value in named},
        metadata={"task": "classify", "names": str({number: f"digit {number}" for number in range(10)})},
    )
    expected = network.predict(test.reshape(-1, 64) / 255)
    return Digits(weights, test, test_labels, expected, float((expected == test_labels).mean()))


@dataclass(frozen=True)
class Scene:
    """Coloured squares on black.

    Attributes:
        file: The image as PNG.
        size: Width and height.
        boxes: ``(x1, y1, x2, y2)`` of each square, with its class (0 red, 1 green).
    """

    file: bytes
    size: tuple[int, int]
    boxes: list[tuple[tuple[int, int, int, int], int]]


def make_scene(width: int, height: int, squares: list[tuple[int, int, int, int]]) -> Scene:
    """Return an image with squares given as ``(left, top, side, class)``."""
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    boxes = []
    for left, top, side, kind in squares:
        pixels[top : top + side, left : left + side, kind] = 255
        boxes.append(((left, top, left + side, top + side), kind))
    return Scene(png(pixels), (width, height), boxes)


def light_detector(head: str, *, side: int = 8, size: int | None = 64) -> bytes:
    """Return a detector of red and green squares of *side* pixels, with a head as YOLO models have.

    One convolution per colour adds up the light within *side* x *side* pixels around each place, one kind of light
    against the other two; its score is the share of the square that is lit. Each place that is lit well enough is a
    candidate, so neighbours of a square's true place are doubles that only suppression removes.

    Args:
        head: ``yolov8``, ``yolov5`` or ``end2end``.
        side: Of the squares, even.
        size: Height and width of its input; None: any.
    """
    kernel = np.zeros((2, 3, side, side), dtype=np.float32)
    for kind in range(2):
        kernel[kind] = -1 / side**2
        kernel[kind, kind] = 1 / side**2
    edge = size if size is not None else 64
    places = edge - side + 1
    down, across = np.meshgrid(np.arange(places), np.arange(places), indexing="ij")
    centres = np.stack([across.ravel() + side / 2, down.ravel() + side / 2]).astype(np.float32)  # [2, N]
    sizes = np.full_like(centres, side)
    count = places * places
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["light"]),
        helper.make_node("Clip", ["light", "zero", "one"], ["scores_2d"]),
        helper.make_node("Reshape", ["scores_2d", "flat_shape"], ["scores"]),  # [1, 2, N]
    ]
    constants = {
        "kernel": kernel,
        "zero": np.float32(0).reshape(()),
        "one": np.float32(1).reshape(()),
        "flat_shape": np.array([1, 2, count], dtype=np.int64),
    }
    boxes = np.concatenate([centres, sizes])[None]  # [1, 4, N]
    if head == "yolov8":
        nodes.append(helper.make_node("Concat", ["boxes", "scores"], ["found"], axis=1))
        shape = [1, 6, count]
    elif head == "yolov5":
        constants["sure"] = np.full((1, 1, count), 0.9, dtype=np.float32)
        nodes += [
            helper.make_node("Concat", ["boxes", "sure", "scores"], ["upright"], axis=1),
            helper.make_node("Transpose", ["upright"], ["found"], perm=[0, 2, 1]),
        ]
        shape = [1, count, 7]
    else:  # the best place of each class, as corners, score and class
        boxes = np.concatenate([centres - side / 2, centres + side / 2])[None]
        constants["axis"] = np.array([1], dtype=np.int64)
        constants["classes"] = np.array([[[0.0], [1.0]]], dtype=np.float32)  # [1, 2, 1]
        constants["squeezed"] = np.array([1], dtype=np.int64)
        constants["corners"] = np.ascontiguousarray(boxes[0].T)  # [N, 4]
        constants["k"] = np.array([1], dtype=np.int64)
        nodes += [
            helper.make_node("TopK", ["scores", "k"], ["best", "where"], axis=2),  # [1, 2, 1]
            helper.make_node("Reshape", ["where", "two"], ["index"]),
            helper.make_node("Gather", ["corners", "index"], ["chosen"], axis=0),  # [2, 4]
            helper.make_node("Unsqueeze", ["chosen", "zero_axis"], ["batched"]),  # [1, 2, 4]
            helper.make_node("Concat", ["batched", "best", "classes"], ["found"], axis=2),
        ]
        constants["two"] = np.array([2], dtype=np.int64)
        constants["zero_axis"] = np.array([0], dtype=np.int64)
        for unused in ("axis", "squeezed"):
            del constants[unused]
        shape = [1, 2, 6]
    if head != "end2end":
        constants["boxes"] = boxes.astype(np.float32)
    return onnx_model(
        nodes,
        inputs={"images": (TensorProto.FLOAT, [1, 3, size or "height", size or "width"])},
        outputs={"found": (TensorProto.FLOAT, shape)},
        constants=constants,
        metadata={"task": "detect", "names": str({0: "red", 1: "green"}), "imgsz": str([edge, edge]), "stride": "1"},
    )


def endless_classifier() -> bytes:
    """Return a classifier with a loop of nearly 2**63 rounds."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["on_out"]),
            helper.make_node("Identity", ["kept"], ["kept_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("round", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("kept", TensorProto.FLOAT, [1, 3]),
        ],
        [
            helper.make_tensor_value_info("on_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("kept_out", TensorProto.FLOAT, [1, 3]),
        ],
    )
    return onnx_model(
        [
            helper.make_node("ReduceMean", ["images"], ["mean"], axes=[2, 3], keepdims=0),
            helper.make_node("Loop", ["rounds", "on", "mean"], ["out"], body=body),
        ],
        inputs={"images": (TensorProto.FLOAT, [1, 3, 8, 8])},
        outputs={"out": (TensorProto.FLOAT, [1, 3])},
        constants={"rounds": np.array(2**62, dtype=np.int64), "on": np.array(True)},
    )
