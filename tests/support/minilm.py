"""A large model that people really use, as ONNX: the sentence encoder all-MiniLM-L6-v2, 22.7 million weights, 91 MB.

Its weights come as a safetensors file (see `benchmarks.realdata`); the network around them is written down here.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["WORDS", "read_safetensors", "sentence_encoder"]

WORDS = {
    "[CLS]": 101,
    "[SEP]": 102,
    "car": 2482,
    "cat": 4937,
    "kitten": 18401,
    "ocean": 4153,
    "sea": 2712,
    "the": 1996,
    "vehicle": 4316,
}
"""Numbers of some words in the model's vocabulary."""

_HEADS, _WIDTH, _LAYERS = 12, 384, 6


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Return the 32-bit floats of a safetensors file by name."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    found = {}
    for name, facts in header.items():
        if name != "__metadata__" and facts["dtype"] == "F32":
            start, stop = facts["data_offsets"]
            found[name] = np.frombuffer(data[8 + size + start : 8 + size + stop], "<f4").reshape(facts["shape"])
    return found


class _Graph:
    """Nodes in the making."""

    def __init__(self, weights: dict[str, np.ndarray]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self._weights = weights
        self._count = 0

    def add(self, kind: str, *inputs: str, **attributes: object) -> str:
        self._count += 1
        output = f"{kind.lower()}{self._count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def weight(self, name: str, *, turned: bool = False) -> str:
        value = self._weights[name]
        self.constants[name] = np.ascontiguousarray(value.T) if turned else value
        return name

    def constant(self, value: object, dtype: str = "int64") -> str:
        array = np.array(value, dtype=dtype)
        name = f"{dtype}{array.tolist()}"
        self.constants[name] = array
        return name

    def dense(self, value: str, name: str) -> str:
        product = self.add("MatMul", value, self.weight(f"{name}.weight", turned=True))
        return self.add("Add", product, self.weight(f"{name}.bias"))

    def norm(self, value: str, name: str) -> str:
        scale, bias = self.weight(f"{name}.weight"), self.weight(f"{name}.bias")
        return self.add("LayerNormalization", value, scale, bias, epsilon=1e-12)

    def gelu(self, value: str) -> str:
        half = self.add("Mul", value, self.constant(0.5, "float32"))
        spread = self.add("Erf", self.add("Mul", value, self.constant(0.5**0.5, "float32")))
        return self.add("Mul", half, self.add("Add", spread, self.constant(1.0, "float32")))


def sentence_encoder(weights: dict[str, np.ndarray]) -> bytes:
    """Return the encoder as an ONNX file: ``ids`` [1, words] in, ``sentence`` [1, 384] of length 1 out."""
    graph = _Graph(weights)
    words = graph.add("Gather", graph.weight("embeddings.word_embeddings.weight"), "ids", axis=0)
    length = graph.add("Shape", "ids", start=1, end=2)
    places = graph.add(
        "Slice", graph.weight("embeddings.position_embeddings.weight"), graph.constant([0]), length, graph.constant([0])
    )
    kinds = graph.add("Gather", graph.weight("embeddings.token_type_embeddings.weight"), graph.constant([0]), axis=0)
    value = graph.norm(graph.add("Add", graph.add("Add", words, places), kinds), "embeddings.LayerNorm")
    for number in range(_LAYERS):
        value = _layer(graph, value, f"encoder.layer.{number}")
    mean = graph.add("ReduceMean", value, axes=[1], keepdims=0)
    graph.nodes.append(helper.make_node("LpNormalization", [mean], ["sentence"], axis=1, p=2))
    made = helper.make_graph(
        graph.nodes,
        "all-MiniLM-L6-v2",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, "words"])],
        [helper.make_tensor_value_info("sentence", TensorProto.FLOAT, [1, _WIDTH])],
        [numpy_helper.from_array(value, name) for name, value in graph.constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _layer(graph: _Graph, value: str, name: str) -> str:
    parts = {}
    for part in ("query", "key", "value"):
        flat = graph.dense(value, f"{name}.attention.self.{part}")
        shaped = graph.add("Reshape", flat, graph.constant([1, -1, _HEADS, _WIDTH // _HEADS]))
        parts[part] = graph.add("Transpose", shaped, perm=[0, 2, 3, 1] if part == "key" else [0, 2, 1, 3])
    scores = graph.add("MatMul", parts["query"], parts["key"])
    scaled = graph.add("Mul", scores, graph.constant((_WIDTH // _HEADS) ** -0.5, "float32"))
    seen = graph.add("MatMul", graph.add("Softmax", scaled, axis=-1), parts["value"])
    joined = graph.add("Reshape", graph.add("Transpose", seen, perm=[0, 2, 1, 3]), graph.constant([1, -1, _WIDTH]))
    attended = graph.dense(joined, f"{name}.attention.output.dense")
    value = graph.norm(graph.add("Add", attended, value), f"{name}.attention.output.LayerNorm")
    wide = graph.gelu(graph.dense(value, f"{name}.intermediate.dense"))
    return graph.norm(graph.add("Add", graph.dense(wide, f"{name}.output.dense"), value), f"{name}.output.LayerNorm")
