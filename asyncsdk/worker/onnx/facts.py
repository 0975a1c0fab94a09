"""What a model wants and gives: read from the model itself, completed by what its record on the platform says.

From the ONNX file: shape, type and layout of its one input, and the metadata that training packages write (``task``,
``names``, ``imgsz``, ``end2end``). From the record: ``labels``, and in ``config`` the same keys. What only we know of
stands in either under ``predict``, as an object with ``head``, ``scale``, ``mean``, ``std``, ``resize``: at the top,
``scale`` and its like are settings of the training, and mean something else.
"""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

from asyncsdk.domain.results import VisionTask
from asyncsdk.errors import InvalidModel

__all__ = ["Head", "ModelFacts", "Resize", "read_facts"]

Head = Literal["classes", "yolov8", "yolov5", "end2end"]
"""How the numbers of a model are to be read; see `heads`."""

Resize = Literal["letterbox", "crop", "stretch"]
"""``letterbox``: all of the image, grey around it; ``crop``: the middle of it; ``stretch``: all of it, out of shape."""

_TASKS: Mapping[str, VisionTask] = {
    "detect": "detect",
    "object-detection": "detect",
    "segment": "detect",  # boxes of what has masks or key points are boxes all the same
    "pose": "detect",
    "classify": "classify",
    "classification": "classify",
    "image-classification": "classify",
}
_REFUSED = frozenset({"obb"})
"""Tasks whose numbers look like those of another one."""
_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(double)": "float64",
          "tensor(uint8)": "uint8"}  # fmt: skip

_KEYS = ("task", "names", "imgsz", "imageSize", "end2end", "args", "predict")
"""What is read of the metadata; the rest may be of any size and form."""

_MAX_TEXT = 1024 * 1024
"""Characters of one metadata value that are read at most: names of 20,000 classes fit. Parsed, text takes a hundred
times its size."""

_MAX_SIDE = 8192
"""Pixels of one side of a model's input at most; as `PredictConfig.size`."""

_MAX_INPUT_PIXELS = 64 * 1024 * 1024
"""Pixels of a model's input at most, over all images that it insists on."""

_MAX_CLASS = 1_000_000


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model.

    Attributes:
        input_name: Name of its input.
        dtype: Its type, as numpy calls it.
        channels: 3 (RGB) or 1 (grey).
        is_channels_last: Whether an image is height x width x channels instead of channels first.
        batch: Images that it takes at once; None: any number.
        size: Height and width when it takes one size only.
        usual_size: Height and width it was made for; None: not told.
        task: What it does; None: seen from its output.
        head: How its output is read; None: seen from its output.
        names: Names of its classes by number.
        scale: Factor for pixel values 0 to 255; None: 1/255, and 1 for models that take bytes.
        mean: Subtracted per channel after scaling.
        std: Divided by, per channel, after that.
        resize: How images are brought to size; None: ``letterbox`` for detectors, ``crop`` for classifiers.
    """

    input_name: str
    dtype: str
    channels: int
    is_channels_last: bool = False
    batch: int | None = None
    size: tuple[int, int] | None = None
    usual_size: tuple[int, int] | None = None
    task: VisionTask | None = None
    head: Head | None = None
    names: Mapping[int, str] = field(default_factory=dict)
    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: Resize | None = None

    def __post_init__(self) -> None:
        for key, given in (("mean", self.mean), ("std", self.std)):
            if len(given) not in {0, 1, self.channels}:
                raise InvalidModel(f"its {key} has {len(given)} numbers; one per channel makes {self.channels}")

    @property
    def class_count(self) -> int:
        """Classes that its names speak of: numbers without a name, between those that have one, count. 0: no names."""
        return max(self.names, default=-1) + 1

    def label(self, class_id: int) -> str:
        """Return the name of a class; its number when it has none."""
        return self.names.get(class_id) or str(class_id)

    def completed(self, labels: Mapping[str, int], config: Mapping[str, Any]) -> ModelFacts:
        """Return the facts with what the model's record says: what the file does not say, and all that is for us.

        Raises:
            InvalidModel: The record says something that makes no sense.
        """
        told = {"names": {number: name for name, number in labels.items()}, **_told(config)}
        missing = {name: value for name, value in told.items() if not getattr(self, name)}
        return replace(self, **{**missing, **_told_to_us(config.get("predict"))})


def read_facts(inputs: Sequence[Any], metadata: Mapping[str, str]) -> ModelFacts:
    """Return what an ONNX model says of itself.

    Args:
        inputs: Its inputs, each with ``name``, ``shape`` and ``type``, as onnxruntime gives them.
        metadata: Its metadata.

    Raises:
        InvalidModel: It does not take one image.
    """
    if len(inputs) != 1:
        raise InvalidModel(f"it has {len(inputs)} inputs; a model of images has one")
    only = inputs[0]
    if only.type not in _TYPES:
        raise InvalidModel(f"its input is {only.type}; {', '.join(_TYPES)} are known")
    shape = [number if isinstance(number, int) and number > 0 else None for number in only.shape]
    if len(shape) != 4:
        raise InvalidModel(f"its input has {len(shape)} dimensions; an image has four: number, channels, height, width")
    is_last = shape[1] not in {1, 3} and shape[3] in {1, 3}
    channels, height, width = (shape[3], shape[1], shape[2]) if is_last else (shape[1], shape[2], shape[3])
    if channels not in {1, 3, None}:
        raise InvalidModel(f"its input has {channels} channels; 1 (grey) and 3 (RGB) are known")
    size = None if height is None or width is None else (height, width)
    if max(size or (0,)) > _MAX_SIDE or math.prod(size or (1, 1)) * (shape[0] or 1) > _MAX_INPUT_PIXELS:
        raise InvalidModel(
            f"its input is {' x '.join(map(str, only.shape))}; sides up to {_MAX_SIDE:,} and {_MAX_INPUT_PIXELS:,} "
            "pixels together are allowed"
        )
    told = _told({name: _parsed(metadata[name]) for name in _KEYS if name in metadata})
    return ModelFacts(
        input_name=only.name,
        dtype=_TYPES[only.type],
        channels=channels or 3,
        is_channels_last=is_last,
        batch=shape[0],
        size=size,
        **told,
    )


def _parsed(text: str) -> Any:
    """Return a metadata value: JSON, or a Python literal (as ``{0: 'person'}``), or plain text."""
    if len(text) > _MAX_TEXT:
        raise InvalidModel(f"a value of its metadata has {len(text):,} characters; {_MAX_TEXT:,} are allowed")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return text


def _told(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts among *values*; other keys mean something to others."""
    found: dict[str, Any] = {}
    if isinstance(task := values.get("task"), str):
        if task.lower() in _REFUSED:
            raise InvalidModel(f"its task is {task!r}; {', '.join(_TASKS)} are known")
        if task.lower() in _TASKS:  # other words may mean anything; then the output tells
            found["task"] = _TASKS[task.lower()]
    if names := _names(values.get("names")):
        found["names"] = names
    if (usual := _pair(values.get("imgsz", values.get("imageSize")))) is not None:
        found["usual_size"] = usual
    if _is_true(values.get("end2end")) or _is_true(_within(values.get("args"), "nms")):
        found["head"] = "end2end"
    return {**found, **_told_to_us(values.get("predict"))}


def _told_to_us(values: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if not isinstance(values, Mapping):
        return found
    if unknown := set(map(str, values)) - {"head", "scale", "mean", "std", "resize"}:
        raise InvalidModel(f"its 'predict' has {min(unknown)!r:.40}; head, scale, mean, std and resize are known")
    if (head := values.get("head")) is not None:
        if head not in get_args(Head):
            raise InvalidModel(f"its head is {head!r:.40}; {', '.join(get_args(Head))} are known")
        found["head"] = cast("Head", head)
    if (resize := values.get("resize")) is not None:
        if resize not in get_args(Resize):
            raise InvalidModel(f"its resize is {resize!r:.40}; {', '.join(get_args(Resize))} are known")
        found["resize"] = cast("Resize", resize)
    if isinstance(scale := values.get("scale"), (int, float)) and not isinstance(scale, bool):
        if not _is_modest(scale):
            raise InvalidModel("its scale is no usable number")
        found["scale"] = float(scale)
    for key in ("mean", "std"):
        if isinstance(given := values.get(key), (list, tuple)) and given:
            if len(given) not in {1, 3} or not all(map(_is_modest, given)):
                raise InvalidModel(f"its {key} must be one number per channel")
            if key == "std" and not all(number > 0 for number in given):
                raise InvalidModel("its std must be greater than 0")
            found[key] = tuple(map(float, given))
    return found


def _is_modest(value: Any) -> bool:
    """Whether *value* is a number that 32-bit floats can hold; comparing refuses what is not a number, too."""
    return isinstance(value, (int, float)) and -1e30 < value < 1e30


def _is_true(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.lower() == "true")


def _within(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None


def _names(value: Any) -> dict[int, str]:
    if isinstance(value, (list, tuple)):
        return {number: str(name) for number, name in enumerate(value)}
    if isinstance(value, Mapping):
        numbered = ((str(number), str(name)) for number, name in value.items())
        return {int(number): name for number, name in numbered if number.isdecimal() and _is_class(number)}
    return {}


def _is_class(digits: str) -> bool:
    # Long ones are not turned into numbers: Python refuses those of thousands of digits.
    if len(digits) > 7 or int(digits) > _MAX_CLASS:
        raise InvalidModel(f"its names speak of class {digits:.20}; {_MAX_CLASS:,} are allowed")
    return True


def _pair(value: Any) -> tuple[int, int] | None:
    if isinstance(value, str) and value.isdecimal() and len(value) <= 7:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = (value, value)
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    if not all(isinstance(number, int) and number > 0 for number in value):
        return None
    if max(value) > _MAX_SIDE:
        raise InvalidModel(f"its image size is more than {_MAX_SIDE:,}, which is what is allowed")
    return int(value[0]), int(value[1])
