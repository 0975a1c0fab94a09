"""TorchScript checkpoints become ONNX where torch is installed; pickles never do."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncsdk.domain.predicting import PredictConfig
from asyncsdk.errors import InvalidModel, RunnerUnavailable
from asyncsdk.protocol.model_work import ExportPayload
from asyncsdk.protocol.models import ModelRecord
from asyncsdk.worker import exporting
from asyncsdk.worker.exporting import ExportRunner
from asyncsdk.worker.onnx.predictor import Predictor
from asyncsdk.worker.onnx.weights import kind_of_weights
from asyncsdk.worker.torchscript import has_torch, torchscript_to_onnx
from tests.support.onnx_models import digits

MODEL_ID = "0" * 24


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch", reason="torch is not installed; the extra `torch` brings it")


def order(source: Path, format_name: str, model: dict[str, Any] | None = None, **options: Any) -> Path:
    """Convert *source* as the runner does."""
    payload = ExportPayload(model_id=MODEL_ID, format=format_name, **options)
    record = ModelRecord.model_validate(
        {"id": MODEL_ID, "project_id": MODEL_ID, "name": "m", "created_at": 0, "updated_at": 0, **(model or {})}
    )
    made = source.parent / "made"
    return exporting._convert(exporting._Order(payload, record, source, made, lambda: None), format_name)


def test_torchscript_becomes_onnx_that_says_the_same(torch: Any, tmp_path: Path) -> None:
    """A network written for torch gives the same classes through the converted file, with the record's labels."""
    first = torch.nn.Linear(64, 16)
    network = torch.nn.Sequential(torch.nn.Flatten(), first, torch.nn.ReLU(), torch.nn.Linear(16, 10)).eval()
    path = tmp_path / "traced.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is old, which torch says at every turn
        torch.jit.trace(network, torch.zeros(1, 1, 8, 8)).save(str(path))
    assert kind_of_weights(path) == "torchscript"
    made = tmp_path / "made.onnx"
    torchscript_to_onnx(path, made, size=(8, 8), channels=1, metadata={"names": str({7: "seven"})})
    predictor = Predictor(made)
    for number in range(20):
        result = predictor.predict(digits().file(number), PredictConfig(topk=10), name="x")
        image = torch.from_numpy(digits().images[number].astype(np.float32) / 255)[None, None]
        wanted = network(image)[0].softmax(0).detach().numpy()
        found = {one.class_id: one.score for one in result.classes}
        assert [found[number] for number in range(10)] == pytest.approx(wanted, abs=1e-5)
    assert predictor.facts().label(7) == "seven"
    assert order(path, "torchscript") == path == order(path, "pyTorch")


def test_colour_models_are_traced_at_the_size_of_the_record(torch: Any, tmp_path: Path) -> None:
    """``imgsz`` of the model's configuration, else the size that was asked for, and smaller precision on top."""
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
    path = tmp_path / "traced.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        torch.jit.trace(network, torch.zeros(1, 3, 32, 32)).save(str(path))
    assert Predictor(order(path, "onnx", {"config": {"imgsz": 48}})).facts().size == (48, 48)
    assert Predictor(order(path, "onnx", size=(32, 64))).facts().size == (32, 64)
    assert Predictor(order(path, "onnx", size=(32, 32), half=True)).facts().size == (32, 32)


def test_pickles_are_never_loaded(torch: Any, tmp_path: Path) -> None:
    """A whole module and a state dict are refused with the reason, before torch sees them."""
    for content in (torch.nn.Linear(2, 2), torch.nn.Linear(2, 2).state_dict()):
        path = tmp_path / "weights.pt"
        torch.save(content, path)
        assert kind_of_weights(path) == "pickle"
        for format_name in ("onnx", "torchscript"):
            with pytest.raises(InvalidModel, match="would run its author's code"):
                order(path, format_name)
        assert order(path, "pyTorch") == path


def test_formats_follow_what_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With torch there is one more; without the extra there is none, and it says what to install."""
    monkeypatch.setitem(sys.modules, "torch", None)
    assert not has_torch()
    assert ExportRunner().offers() == {"formats": ["onnx", "pyTorch"]}
    path = tmp_path / "weights"
    path.write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(InvalidModel, match="neither ONNX nor what torch writes"):
        order(path, "onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RunnerUnavailable, match=r"onnxruntime not installed; pip install 'asyncsdk\[predict\]'"):
        ExportRunner().offers()
