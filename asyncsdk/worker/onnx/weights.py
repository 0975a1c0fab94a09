"""What a file of weights is, told from its bytes, and whether it may be loaded."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import onnx

from asyncsdk.errors import InvalidModel

__all__ = ["WeightsKind", "check_onnx", "kind_of_weights"]

WeightsKind = Literal["onnx", "torchscript", "pickle", "other"]
"""``torchscript``: a program that torch loads without unpickling; ``pickle``: what ``torch.save`` writes."""


def kind_of_weights(path: Path) -> WeightsKind:
    """Return what *path* holds; nothing of it is loaded or run."""
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except Exception:  # noqa: BLE001  # BadZipFile and more: names in no encoding, versions, offsets
            return "other"
        if any(name.endswith("/constants.pkl") for name in names):
            return "torchscript"
        return "pickle" if any(name.endswith("/data.pkl") for name in names) else "other"
    if head.startswith(b"\x80") and head[1:2] in {b"\x02", b"\x03", b"\x04", b"\x05"}:
        return "pickle"
    # An ONNX file begins with the field ir_version: tag 1, a small number; or with a text field of the model.
    return "onnx" if head[:1] in {b"\x08", b"\x12", b"\x3a", b"\x42"} else "other"


def check_onnx(path: Path) -> onnx.ModelProto:
    """Return the model of a file that may be loaded: ONNX, and complete in itself.

    A model that keeps tensors in other files could name any file of this machine; such a one is refused.

    Raises:
        InvalidModel: It is no ONNX model, or not complete in itself.
    """
    kind = kind_of_weights(path)
    if kind != "onnx":
        raise InvalidModel(_NOT_ONNX[kind])
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # the parser's errors share no base
        raise InvalidModel(f"it is no ONNX model: {error}") from error
    if not model.HasField("graph") or not model.opset_import:
        raise InvalidModel("it is no ONNX model: there is no graph in it")
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise InvalidModel(f"its tensor {tensor.name!r:.80} lies in another file; save the model as one file")
    return model


_NOT_ONNX = {
    "torchscript": "it is TorchScript; export it to ONNX first",
    "pickle": "it is a file of torch.save; export it to ONNX where the model is trained, and upload that",
    "other": "it is no ONNX model",
}


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    loose = [attribute for function in model.functions for attribute in function.attribute_proto]
    for info in model.training_info:
        graphs += [info.initialization, info.algorithm]
    while graphs or nodes or loose:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes.extend(graph.node)
            continue
        attributes, loose = (loose, []) if loose else (nodes.pop().attribute, loose)
        for attribute in attributes:
            yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            graphs += [attribute.g, *attribute.graphs]
