"""The blocking twin of exports and predictions."""

from __future__ import annotations

from pathlib import Path

from asyncsdk import Client, Export, PredictionResult
from tests.support.onnx_models import digits


def test_blocking_code_predicts_and_exports(tmp_path: Path) -> None:
    """The same verbs, values and results without a loop: a single image, many of them, a file."""
    with Client(data=tmp_path / "data") as client:
        model = client.models.create("digits")
        model.upload_checkpoint(digits().weights)
        one = model.predict(digits().images[0], {"topk": 2})
        assert isinstance(one, PredictionResult)
        assert one.top is not None
        assert (one.top.class_id, len(one.classes)) == (digits().expected[0], 2)
        many = list(model.predict_many(digits().file(number) for number in range(30)))
        assert [result.top.class_id for result in many if result.top] == list(digits().expected[:30])
        job = model.export("onnx", half=True)
        made = job.wait_result()
        assert isinstance(made, Export)
        assert made.download(tmp_path / "half.onnx") == made
        assert (tmp_path / "half.onnx").stat().st_size == made.size_bytes
        assert made.artifact().name == "digits-fp16.onnx"
        assert [entry.name for entry in job.artifacts.list()] == [made.name]
