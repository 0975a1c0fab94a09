"""Options of predictions, results and export formats: pure data."""

from __future__ import annotations

from typing import Any

import pytest

from asyncsdk.domain.exporting import EXPORT_FORMATS, export_format
from asyncsdk.domain.predicting import PredictConfig
from asyncsdk.domain.predictions import check_prediction_row
from asyncsdk.domain.results import Classification, Detection, PredictionProblem, PredictionResult, PredictionTiming
from asyncsdk.errors import AsyncSDKError, ConfigError


def test_options_may_be_text_and_have_other_names() -> None:
    """What a form sends means what a program writes."""
    config = PredictConfig.parse({"imgsz": "640", "conf": "0.5", "iou": 0, "max_det": "7", "topk": 3.0})
    assert config == PredictConfig(size=(640, 640), conf=0.5, iou=0.0, max_det=7, topk=3)
    assert PredictConfig.parse({"size": [320, 640]}).size == (320, 640)
    assert PredictConfig.parse(None) == PredictConfig() == PredictConfig.parse({})
    assert PredictConfig.parse(config.to_json()) == config
    assert PredictConfig.parse(PredictConfig().to_json()) == PredictConfig()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"confidnce": 0.5}, "did you mean 'conf"),
        ({"zzz": 1}, "there are size, conf"),
        ({"size": 1, "imgsz": 2}, "given twice"),
        ({"conf": 1.5}, "between 0 and 1, not 1.5"),
        ({"conf": "high"}, "must be a number, not 'high'"),
        ({"conf": True}, "must be a number"),
        ({"conf": float("nan")}, "must be a number"),
        ({"size": 0}, "from 1 to 8,192"),
        ({"size": 640.5}, "whole number"),
        ({"size": [1, 2, 3]}, "not 3 numbers"),
        ({"max_det": 10_001}, "from 1 to 10,000"),
        ({"topk": 0}, "from 1"),
        ([("conf", 1)], "is a mapping, not list"),
    ],
)
def test_wrong_options_say_what_is_right(config: Any, said: str) -> None:
    """Each mistake is named, before anything is sent."""
    with pytest.raises(ConfigError, match=said):
        PredictConfig.parse(config)


def test_formats_have_one_name_and_many_spellings() -> None:
    """Case does not matter, and the spellings of training packages are known."""
    assert [export_format(one.name) for one in EXPORT_FORMATS] == list(EXPORT_FORMATS)
    assert export_format("PYTORCH").name == export_format("pt").name == "pyTorch"
    assert export_format("TensorRT").name == "engine"
    with pytest.raises(ConfigError, match="did you mean 'onnx'"):
        export_format("onxx")
    with pytest.raises(ConfigError, match="there are pyTorch"):
        export_format("zip")
    with pytest.raises(ConfigError):
        export_format(None)  # type: ignore[arg-type]


RESULT = PredictionResult(
    image="a.jpg",
    width=40,
    height=30,
    task="detect",
    detections=(Detection(box=(1, 2, 11, 22), score=0.9, class_id=0, label="car"),),
    timing=PredictionTiming(preprocess_ms=1, inference_ms=2, postprocess_ms=3),
)


def test_results_survive_json_and_become_rows() -> None:
    """What a worker writes is what a caller reads; a row is one that a dataset takes."""
    assert PredictionResult.model_validate_json(RESULT.model_dump_json()) == RESULT
    assert RESULT.timing.total_ms == 6
    row = RESULT.to_row("photos/a.jpg")
    assert row == {"path": "photos/a.jpg", "predictions": [{"category": "car", "score": 0.9, "bbox": [1, 2, 10, 20]}]}
    assert check_prediction_row(row, kind="object-detection", categories={"car"}) is None
    classes = PredictionResult(image="b", classes=(Classification(class_id=1, label="cat", score=0.5),))
    assert check_prediction_row(classes.to_row(), kind="classification", categories={"cat"}) is None
    assert (classes.top, RESULT.top) == (classes.classes[0], None)


def test_a_problem_is_raised_with_its_code() -> None:
    """One image of a batch that failed says so, and can be raised."""
    RESULT.raise_for_problem()
    failed = PredictionResult(image="a.jpg", problem=PredictionProblem(code="invalid_image", message="is damaged"))
    assert not failed.ok
    with pytest.raises(AsyncSDKError, match=r"a\.jpg: is damaged") as caught:
        failed.raise_for_problem()
    assert caught.value.code == "invalid_image"
