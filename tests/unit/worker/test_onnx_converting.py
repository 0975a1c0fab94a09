"""Smaller models give the same answers; what cannot be made smaller says why."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from asyncsdk.domain.predicting import PredictConfig
from asyncsdk.errors import InvalidModel
from asyncsdk.worker.onnx.converting import to_half, to_int8
from asyncsdk.worker.onnx.predictor import Predictor
from tests.support.onnx_models import digits, light_detector, make_scene, onnx_model

CONVERTERS = {"fp16": (to_half, 0.6), "int8": (to_int8, 0.4)}


@pytest.mark.parametrize("precision", CONVERTERS)
def test_digits_stay_what_they_were(tmp_path: Path, precision: str) -> None:
    """The converted classifier agrees with its original about held-out digits, and is smaller by what it promises."""
    convert, share = CONVERTERS[precision]
    source, made = tmp_path / "a.onnx", tmp_path / "b.onnx"
    source.write_bytes(digits().weights)
    convert(source, made)
    assert source.read_bytes() == digits().weights
    assert made.stat().st_size <= share * source.stat().st_size
    predictor = Predictor(made)
    results = [predictor.predict(digits().file(n), PredictConfig(), name=str(n)) for n in range(len(digits().labels))]
    agreement = np.mean([one.top is not None and one.top.class_id for one in results] == digits().expected)
    assert agreement >= (0.999 if precision == "fp16" else 0.98)
    assert predictor.facts().label(3) == "digit 3"  # the metadata went along


@pytest.mark.parametrize("precision", CONVERTERS)
def test_detectors_with_convolutions_run_on(tmp_path: Path, precision: str) -> None:
    """The processor runs what was made of a convolution, and finds the same box."""
    source, made = tmp_path / "a.onnx", tmp_path / "b.onnx"
    source.write_bytes(light_detector("yolov8"))
    CONVERTERS[precision][0](source, made)
    result = Predictor(made).predict(make_scene(64, 64, [(10, 20, 8, 0)]).file, PredictConfig(conf=0.8), name="s")
    assert [one.box for one in result.detections] == [(10, 20, 18, 28)]


def test_nothing_to_convert_is_told(tmp_path: Path) -> None:
    """A model without weights is no smaller for it; an old one needs newer operators."""
    path, made = tmp_path / "a.onnx", tmp_path / "b.onnx"
    path.write_bytes(
        onnx_model(
            [helper.make_node("ReduceMean", ["images"], ["logits"], axes=[2, 3], keepdims=0)],
            inputs={"images": (TensorProto.FLOAT, [1, 3, 8, 8])},
            outputs={"logits": (TensorProto.FLOAT, [1, 3])},
            constants={},
        )
    )
    for convert in (to_half, to_int8):
        with pytest.raises(InvalidModel, match="nothing to make smaller"):
            convert(path, made)
    old = onnx.load_from_string(digits().weights)
    old.opset_import[0].version = 9
    path.write_bytes(old.SerializeToString())
    with pytest.raises(InvalidModel, match="of version 9"):
        to_int8(path, made)
    path.write_bytes(b"no model")
    for convert in (to_half, to_int8):
        with pytest.raises(InvalidModel, match="no ONNX model"):
            convert(path, made)


def test_converting_leaves_the_process_as_it_was(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the module path nor the root logger is changed, and nobody is told to prepare a model."""
    source = tmp_path / "a.onnx"
    source.write_bytes(digits().weights)
    before = list(sys.path), list(logging.getLogger().filters)
    to_half(source, tmp_path / "b.onnx")
    to_int8(source, tmp_path / "c.onnx")
    assert (list(sys.path), list(logging.getLogger().filters)) == before
    assert caplog.records == []
