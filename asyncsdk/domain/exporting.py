"""The formats that a model can be exported to, by the names that services and training packages use."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from asyncsdk.errors import ConfigError

__all__ = ["EXPORT_FORMATS", "ExportFormat", "export_format"]


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """One format.

    Attributes:
        name: Its name, as jobs and workers say it.
        suffix: How the name of the exported file ends.
        aliases: Other spellings that mean it.
        title: What it is.
    """

    name: str
    suffix: str
    title: str
    aliases: tuple[str, ...] = ()


EXPORT_FORMATS = (
    ExportFormat("pyTorch", ".pt", "PyTorch weights", ("pytorch", "torch", "pt")),
    ExportFormat("torchscript", ".torchscript", "TorchScript"),
    ExportFormat("onnx", ".onnx", "ONNX"),
    ExportFormat("openvino", ".zip", "OpenVINO"),
    ExportFormat("engine", ".engine", "TensorRT", ("tensorrt", "trt")),
    ExportFormat("coreml", ".zip", "CoreML", ("mlpackage",)),
    ExportFormat("saved_model", ".zip", "TensorFlow SavedModel", ("savedmodel",)),
    ExportFormat("pb", ".pb", "TensorFlow GraphDef"),
    ExportFormat("tflite", ".tflite", "TensorFlow Lite"),
    ExportFormat("edgetpu", ".tflite", "Edge TPU"),
    ExportFormat("tfjs", ".zip", "TensorFlow.js"),
    ExportFormat("paddle", ".zip", "PaddlePaddle"),
    ExportFormat("ncnn", ".zip", "NCNN"),
)
"""Every format that has a name. Which of them can be made depends on the workers: ``onnx`` and ``pyTorch`` come with
the extra ``predict``, ``torchscript`` where torch is installed, the others with a runner of somebody's own."""

_BY_NAME = {spelling.lower(): one for one in EXPORT_FORMATS for spelling in (one.name, *one.aliases)}


def export_format(name: str) -> ExportFormat:
    """Return the format of that name; case does not matter.

    Raises:
        ConfigError: There is none; the message names the nearest one.
    """
    given: object = name  # callers without a type checker give anything
    if isinstance(given, str) and (found := _BY_NAME.get(given.lower())) is not None:
        return found
    names = [one.name for one in EXPORT_FORMATS]
    near = difflib.get_close_matches(str(given).lower(), list(_BY_NAME), n=1)
    hint = f"did you mean {_BY_NAME[near[0]].name!r}?" if near else f"there are {', '.join(names)}"
    raise ConfigError(f"there is no export format {given!r:.60}; {hint}")
