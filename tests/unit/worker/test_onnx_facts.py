"""What a model says of itself, and what its record adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from asyncsdk.errors import InvalidModel
from asyncsdk.worker.onnx.facts import read_facts


@dataclass
class Input:
    shape: list[Any]
    type: str = "tensor(float)"
    name: str = "images"


@pytest.mark.parametrize(
    ("shape", "channels", "is_last", "size", "batch"),
    [
        ([1, 3, 640, 480], 3, False, (640, 480), 1),
        ([1, 224, 224, 3], 3, True, (224, 224), 1),
        (["batch", 1, 8, 8], 1, False, (8, 8), None),
        (["batch", 3, "height", "width"], 3, False, None, None),
        ([None, "channels", "height", "width"], 3, False, None, None),
        ([4, 3, 3, 3], 3, False, (3, 3), 4),
    ],
)
def test_shape_tells_layout_and_size(
    shape: list[Any], channels: int, is_last: bool, size: tuple[int, int] | None, batch: int | None
) -> None:
    """Channels first or last, fixed or free size, fixed or free batch."""
    facts = read_facts([Input(shape)], {})
    assert (facts.channels, facts.is_channels_last, facts.size, facts.batch) == (channels, is_last, size, batch)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([], "0 inputs"),
        ([Input([1, 3, 8, 8]), Input([1, 2])], "2 inputs"),
        ([Input([1, 64])], "2 dimensions"),
        ([Input([1, 5, 8, 8])], "5 channels"),
        ([Input([1, 3, 8, 8], type="tensor(string)")], "tensor"),
    ],
)
def test_models_of_anything_else_are_refused(inputs: list[Input], said: str) -> None:
    """A model that takes no image says what it takes instead."""
    with pytest.raises(InvalidModel, match=said):
        read_facts(inputs, {})


def test_metadata_as_training_packages_write_it() -> None:
    """Python and JSON literals alike; what means nothing here is left alone."""
    facts = read_facts(
        [Input([1, 3, "h", "w"])],
        {
            "task": "detect",
            "names": "{0: 'person', 1: 'bicycle'}",
            "imgsz": "[320, 640]",
            "stride": "32",
            "description": "it's {a model",
            "args": "{'batch': 1, 'nms': True}",
        },
    )
    assert (facts.task, facts.usual_size, facts.head) == ("detect", (320, 640), "end2end")
    assert [facts.label(number) for number in range(3)] == ["person", "bicycle", "2"]


@pytest.mark.parametrize(
    "metadata",
    [
        {"task": "obb"},
        {"predict": '{"head": "yolov99"}'},
        {"predict": '{"resize": "twist"}'},
        {"predict": '{"std": [0]}'},
        {"predict": '{"mena": [0.5]}'},
    ],
)
def test_what_is_not_known_is_said(metadata: dict[str, str]) -> None:
    """A task or head nobody here reads is refused instead of read as something else."""
    with pytest.raises(InvalidModel):
        read_facts([Input([1, 3, 8, 8])], metadata)


def test_the_record_completes_the_file() -> None:
    """Labels and configuration of the model's record fill in; names of the file win."""
    bare = read_facts([Input([1, 3, 8, 8])], {})
    told = bare.completed(
        {"cat": 0, "dog": 1}, {"predict": {"mean": [0.5], "std": [0.25], "resize": "stretch"}, "epochs": 3}
    )
    assert (told.label(1), told.mean, told.std, told.resize) == ("dog", (0.5,), (0.25,), "stretch")
    named = read_facts([Input([1, 3, 8, 8])], {"names": '["ant", "bee"]'})
    assert named.completed({"cat": 0}, {"names": ["x"]}).label(0) == "ant"
    assert bare.completed({}, {"names": ["x"]}).label(0) == "x"
    small = read_facts([Input([1, 3, "h", "w"])], {"imgsz": "320", "task": "classify", "end2end": "True"})
    both = small.completed({}, {"imgsz": 640, "task": "detect", "predict": {"head": "yolov8"}})
    assert (both.usual_size, both.task, both.head) == ((320, 320), "classify", "yolov8")


def test_settings_of_the_training_are_none_of_ours() -> None:
    """A configuration with an augmentation called ``scale``, or a task of its own, changes nothing."""
    bare = read_facts([Input([1, 3, 8, 8])], {})
    training = {"scale": 0.5, "mean": [9.0], "task": "train", "head": "big", "resize": 2, "nms": True}
    assert bare.completed({}, training) == bare
    assert bare.completed({}, {"task": "classify", "imageSize": "320"}).usual_size == (320, 320)
