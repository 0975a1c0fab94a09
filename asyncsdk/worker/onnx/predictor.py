"""One loaded model that predicts images."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from asyncsdk.domain.predicting import PredictConfig
from asyncsdk.domain.results import Detection, PredictionResult, PredictionTiming
from asyncsdk.errors import ConfigError, InvalidModel
from asyncsdk.worker.onnx.facts import ModelFacts, read_facts
from asyncsdk.worker.onnx.heads import best_classes, choose_head, find_boxes
from asyncsdk.worker.onnx.images import decoded_image
from asyncsdk.worker.onnx.preparing import Placement, place, to_tensor
from asyncsdk.worker.onnx.weights import check_onnx

__all__ = ["Predictor", "Stopper", "open_session"]

_USUAL_SIZES = {"classify": (224, 224), "detect": (640, 640)}
"""For models that take any size and do not say which one they were made for."""

_ERRORS_ONLY = 3

_LARGE_BYTES = 32 * 1024 * 1024
"""Inputs from this size on: what they made onnxruntime allocate is given back, which otherwise keeps it for good."""


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Return the model of *path* ready to run, on the processor.

    Raises:
        InvalidModel: onnxruntime cannot run it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    # Between two images its threads would otherwise burn a processor each, waiting for the next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no base
        raise InvalidModel(f"onnxruntime cannot load it: {error}") from error


class Stopper:
    """Ends one run of a model from another thread, between two of its operations: it may have a loop without end."""

    def __init__(self) -> None:
        self.options = onnxruntime.RunOptions()

    def stop(self) -> None:
        """End the run, or keep it from beginning."""
        self.options.terminate = True


class Predictor:
    """A model in memory. Threads may use it at once.

    Args:
        path: An ONNX file; not needed any more once this has returned.

    Raises:
        InvalidModel: It is no ONNX model, is not complete in itself, or takes no image.
    """

    def __init__(self, path: Path) -> None:
        check_onnx(path)
        self.size_bytes = path.stat().st_size
        self._session = open_session(path)
        self._facts = read_facts(self._session.get_inputs(), self._session.get_modelmeta().custom_metadata_map)

    def facts(self, labels: Mapping[str, int] | None = None, config: Mapping[str, Any] | None = None) -> ModelFacts:
        """Return what is known of the model, completed by what its record says.

        Raises:
            InvalidModel: The record says something that makes no sense.
        """
        return self._facts.completed(labels or {}, config or {})

    def stopper(self) -> Stopper:
        """Return what ends one run of this model."""
        return Stopper()

    def predict(
        self,
        source: bytes | Path,
        config: PredictConfig,
        *,
        name: str,
        facts: ModelFacts | None = None,
        stopper: Stopper | None = None,
    ) -> PredictionResult:
        """Return what the model says of one image. Blocking: for a thread.

        Args:
            source: Bytes of an image file, or the file.
            config: Options.
            name: What to call the image.
            facts: As `facts` returned them; None: what the file says.
            stopper: Ends this run.

        Raises:
            InvalidImage: It is no image, is damaged or too large.
            InvalidModel: The model cannot be run, or its output is of no known form.
            ConfigError: The model takes another size than the configuration asks for.
        """
        facts = facts or self._facts
        began = time.perf_counter()
        size = self._size(facts, config)
        how = facts.resize or ("crop" if self._is_classifier(facts) else "letterbox")
        with decoded_image(source, channels=facts.channels, name=name) as image:
            placed, placement = place(image, size, how)
        del image  # not while the model runs: it may be large
        tensor = to_tensor(placed, facts)
        prepared = time.perf_counter()
        outputs = self._run(facts, tensor, stopper or Stopper())
        inferred = time.perf_counter()
        result = self._read(outputs, facts, config, placement)
        ended = time.perf_counter()
        timing = PredictionTiming(
            preprocess_ms=_ms(prepared - began),
            inference_ms=_ms(inferred - prepared),
            postprocess_ms=_ms(ended - inferred),
        )
        width, height = placement.image_size
        return PredictionResult(image=name, width=width, height=height, timing=timing, **result)

    def _is_classifier(self, facts: ModelFacts) -> bool:
        if facts.head is not None:
            return facts.head == "classes"
        if facts.task is not None:
            return facts.task == "classify"
        return all(len(output.shape) != 3 for output in self._session.get_outputs())

    def _size(self, facts: ModelFacts, config: PredictConfig) -> tuple[int, int]:
        if facts.size is not None:
            if config.size not in {None, facts.size}:
                height, width = facts.size
                raise ConfigError(f"this model takes images of {height} x {width} only; leave 'size' out")
            return facts.size
        kind = "classify" if self._is_classifier(facts) else "detect"
        return config.size or facts.usual_size or _USUAL_SIZES[kind]

    def _run(self, facts: ModelFacts, tensor: npt.NDArray[Any], stopper: Stopper) -> list[npt.NDArray[Any]]:
        if tensor.nbytes >= _LARGE_BYTES:
            stopper.options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        try:
            found = self._session.run(None, {facts.input_name: tensor}, stopper.options)
        except Exception as error:  # onnxruntime's errors share no base
            raise InvalidModel(f"onnxruntime cannot run it on {list(tensor.shape)}: {error}") from error
        return [array for array in found if isinstance(array, np.ndarray)]

    def _read(
        self, outputs: list[npt.NDArray[Any]], facts: ModelFacts, config: PredictConfig, placement: Placement
    ) -> dict[str, Any]:
        head, task, numbers = choose_head(outputs, facts)
        if task == "classify":
            return {"task": task, "classes": best_classes(numbers, facts, config.topk)}
        boxes = find_boxes(head, numbers, facts, config)
        corners = placement.to_image(boxes.corners)
        detections = tuple(
            Detection(
                box=(round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2)),
                score=min(1.0, round(float(score), 6)),
                class_id=int(class_id),
                label=facts.label(int(class_id)),
            )
            for (x1, y1, x2, y2), score, class_id in zip(corners.tolist(), boxes.scores, boxes.class_ids, strict=True)
            if x2 > x1 and y2 > y1
        )
        return {"task": task, "detections": detections}


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
