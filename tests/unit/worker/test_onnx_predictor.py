"""Models that run for real: a classifier trained now, and detectors whose boxes are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from asyncsdk.domain.predicting import PredictConfig
from asyncsdk.errors import ConfigError, InvalidModel
from asyncsdk.worker.onnx.predictor import Predictor
from asyncsdk.worker.onnx.weights import check_onnx, kind_of_weights
from tests.support.onnx_models import digits, light_detector, make_scene, onnx_model, png


def loaded(folder: Path, weights: bytes) -> Predictor:
    path = folder / "weights.onnx"
    path.write_bytes(weights)
    predictor = Predictor(path)
    path.unlink()  # what it needs is in memory
    return predictor


def test_digits_are_read_as_well_as_by_their_trainer(tmp_path: Path) -> None:
    """Held-out digits give the very classes that scikit-learn gives, and most of them are right."""
    predictor = loaded(tmp_path, digits().weights)
    found = [predictor.predict(digits().file(n), PredictConfig(), name=str(n)) for n in range(len(digits().labels))]
    classes = np.array([one.top.class_id for one in found if one.top is not None])
    assert (classes == digits().expected).mean() >= 0.999
    assert (classes == digits().labels).mean() >= 0.95
    first = found[0]
    assert (first.task, first.width, first.height, len(first.classes)) == ("classify", 8, 8, 5)
    assert first.top is not None
    assert first.top.label == f"digit {digits().expected[0]}"
    assert first.timing.inference_ms > 0
    assert first.timing.total_ms >= first.timing.inference_ms


@pytest.mark.parametrize("head", ["yolov8", "yolov5", "end2end"])
@pytest.mark.parametrize(("width", "height", "factor"), [(64, 64, 1), (128, 128, 2), (128, 64, 2), (64, 128, 2)])
def test_squares_are_found_where_they_are(tmp_path: Path, head: str, width: int, height: int, factor: int) -> None:
    """One box per square, in pixels of the image whatever its size and shape, with its class; doubles are gone."""
    predictor = loaded(tmp_path, light_detector(head))
    side = 8 * factor
    scene = make_scene(width, height, [(10, 20, side, 0), (40, 36, side, 1)])
    result = predictor.predict(scene.file, PredictConfig(conf=0.6), name="scene")
    assert (result.task, result.width, result.height) == ("detect", width, height)
    found = sorted((one.class_id, one.box) for one in result.detections)
    assert [kind for kind, _ in found] == [0, 1]
    for (_, box), (wanted, _) in zip(found, scene.boxes, strict=True):
        assert box == pytest.approx(wanted, abs=factor)
    assert {one.label for one in result.detections} == {"red", "green"}


def test_suppression_is_what_removes_doubles(tmp_path: Path) -> None:
    """With every overlap allowed, the places beside a square are found as well."""
    predictor = loaded(tmp_path, light_detector("yolov8"))
    scene = make_scene(64, 64, [(10, 20, 8, 0)])
    assert len(predictor.predict(scene.file, PredictConfig(conf=0.6), name="s").detections) == 1
    assert len(predictor.predict(scene.file, PredictConfig(conf=0.6, iou=1), name="s").detections) > 1
    assert len(predictor.predict(scene.file, PredictConfig(conf=0.6, iou=1, max_det=2), name="s").detections) == 2


def test_an_empty_scene_has_nothing(tmp_path: Path) -> None:
    """No light, no box, and no error."""
    result = loaded(tmp_path, light_detector("yolov8")).predict(
        make_scene(64, 64, []).file, PredictConfig(), name="dark"
    )
    assert (result.detections, result.ok) == ((), True)


def test_a_fixed_size_is_not_stretched(tmp_path: Path) -> None:
    """Asking for another size than the model has is an error that says so; its own is fine."""
    predictor = loaded(tmp_path, light_detector("yolov8"))
    image = make_scene(64, 64, []).file
    predictor.predict(image, PredictConfig.parse({"size": "64"}), name="s")
    with pytest.raises(ConfigError, match="64 x 64 only"):
        predictor.predict(image, PredictConfig.parse({"size": 640}), name="s")


def mean_colour(**kind: object) -> bytes:
    """Return a model of any size whose three logits are the mean of each channel."""
    is_last = bool(kind.get("is_last"))
    dtype = kind.get("dtype", TensorProto.FLOAT)
    shape = [None, None, None, 3] if is_last else [None, 3, None, None]
    axes = [1, 2] if is_last else [2, 3]
    return onnx_model(
        [
            helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["numbers"], ["logits"], axes=axes, keepdims=0),
        ],
        inputs={"images": (dtype, shape)},
        outputs={"logits": (TensorProto.FLOAT, [None, 3])},
        constants={},
    )


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.UINT8, TensorProto.DOUBLE])
@pytest.mark.parametrize("is_last", [False, True])
def test_every_type_and_layout_sees_the_same_colour(tmp_path: Path, dtype: int, is_last: bool) -> None:
    """Bytes, halves, floats, channels first or last: red is channel 0."""
    predictor = loaded(tmp_path, mean_colour(dtype=dtype, is_last=is_last))
    image = png(np.full((9, 12, 3), (250, 120, 3), dtype=np.uint8))
    result = predictor.predict(image, PredictConfig(size=(32, 32)), name="red")
    assert [one.class_id for one in result.classes] == [0, 1, 2]
    assert [one.label for one in result.classes] == ["0", "1", "2"]


# --- what may be loaded ------------------------------------------------------------------------------------------


def test_tensors_in_other_files_are_refused(tmp_path: Path) -> None:
    """A model cannot name a file of the worker's machine: not in its graph, not inside of a node."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(16))
    model = onnx.load_from_string(digits().weights)
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret"
    path = tmp_path / "external.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InvalidModel, match="another file"):
        Predictor(path)
    hidden = helper.make_node("Constant", [], ["c"], value=tensor)
    whole = onnx.load_from_string(digits().weights)
    inner = helper.make_graph([hidden], "inner", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])])
    whole.graph.node.append(helper.make_node("If", ["c"], ["d"], then_branch=inner, else_branch=inner))
    path.write_bytes(whole.SerializeToString())
    with pytest.raises(InvalidModel, match="another file"):
        check_onnx(path)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x08\x08nonsense" * 20, bytes(100), b"\x80\x04pickle"])
def test_what_is_no_model_is_refused(tmp_path: Path, data: bytes) -> None:
    """Anything else is told, and never loaded."""
    path = tmp_path / "weights"
    path.write_bytes(data)
    with pytest.raises(InvalidModel):
        Predictor(path)


def test_kinds_of_weights_are_told_by_their_bytes(tmp_path: Path) -> None:
    """ONNX, what torch writes, and neither."""
    import pickle
    import zipfile

    path = tmp_path / "weights"
    path.write_bytes(digits().weights)
    assert kind_of_weights(path) == "onnx"
    path.write_bytes(pickle.dumps({"a": 1}))
    assert kind_of_weights(path) == "pickle"
    for name, kind in (("m/data.pkl", "pickle"), ("m/constants.pkl", "torchscript"), ("m/readme", "other")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, b"x")
            archive.writestr("m/data.pkl" if kind == "torchscript" else "m/version", b"3")
        assert kind_of_weights(path) == kind
    path.write_bytes(b"PK\x03\x04 cut off")
    assert kind_of_weights(path) == "other"
