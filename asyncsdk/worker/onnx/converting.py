"""Converting ONNX models: 16-bit floats, 8-bit integers. Each result is loaded once before it counts."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import onnx
import onnxruntime

from asyncsdk.errors import InvalidModel
from asyncsdk.worker.onnx.predictor import open_session
from asyncsdk.worker.onnx.weights import check_onnx

__all__ = ["to_half", "to_int8"]

_MIN_OPSET_INT8 = 11


def to_half(source: Path, destination: Path) -> None:
    """Write the model with its floats as 16-bit ones. Inputs and outputs stay 32-bit, so that callers need no change.

    Raises:
        InvalidModel: It is no ONNX model, has nothing to convert, or does not run afterwards.
    """
    model = check_onnx(source)
    if not any(tensor.data_type == onnx.TensorProto.FLOAT for tensor in model.graph.initializer):
        raise InvalidModel("it has no 32-bit floats among its weights: there is nothing to make smaller")
    with _as_invalid("16-bit floats"):
        halved = _float16().convert_float_to_float16(model, keep_io_types=True)
        onnx.save(halved, str(destination))
    open_session(destination)


def to_int8(source: Path, destination: Path) -> None:
    """Write the model with its weights as 8-bit integers (dynamic quantization: activations as they come).

    Needs no sample data. Matrix products and convolutions are converted; the rest stays as it is.

    Raises:
        InvalidModel: It is no ONNX model, is too old, or does not run afterwards.
    """
    model = check_onnx(source)
    opset = max((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), default=0)
    if opset < _MIN_OPSET_INT8:
        raise InvalidModel(f"its operators are of version {opset}; 8-bit weights need {_MIN_OPSET_INT8} or newer")
    # Imported here: it takes 0.1 s and only one export in three wants it.
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _as_invalid("8-bit integers"), _quiet_root():
        # Unsigned: not every onnxruntime has a convolution of signed 8-bit weights for the processor.
        quantize_dynamic(str(source), str(destination), weight_type=QuantType.QUInt8)
    if not _is_quantized(destination):
        raise InvalidModel("it has no matrix product or convolution with constant weights: nothing to make smaller")
    open_session(destination)


def _is_quantized(path: Path) -> bool:
    model = onnx.load(str(path), load_external_data=False)
    whole = {onnx.TensorProto.UINT8, onnx.TensorProto.INT8}
    return any(tensor.data_type in whole for tensor in model.graph.initializer)


def _float16() -> ModuleType:
    """Return onnxruntime's own converter, without its package: importing that would change ``sys.path``."""
    path = Path(onnxruntime.__file__).parent / "transformers" / "float16.py"
    spec = importlib.util.spec_from_file_location("asyncsdk_onnxruntime_float16", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InvalidModel(f"this onnxruntime ({onnxruntime.__version__}) has no converter to 16-bit floats")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _as_invalid(what: str) -> Iterator[None]:
    try:
        yield
    except InvalidModel:
        raise
    except Exception as error:  # the converters raise whatever they stumble over in a graph
        raise InvalidModel(f"it cannot be converted to {what}: {str(error) or type(error).__name__}") from error


@contextmanager
def _quiet_root() -> Iterator[None]:
    """Keep the quantizer from telling users, through the root logger, to prepare a model that needs none of it."""
    root = logging.getLogger()

    def keep(record: logging.LogRecord) -> bool:
        return not ("onnxruntime" in record.pathname and "pre-processing" in record.getMessage())

    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)
