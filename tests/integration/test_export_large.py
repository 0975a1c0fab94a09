"""Weights of a real, large model through the whole export: up, converted by the worker, down, and still themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from asyncsdk import AsyncClient
from benchmarks.realdata import RealDataUnavailable, fetch_model
from tests.support.minilm import WORDS, read_safetensors, sentence_encoder

SENTENCES = ("cat", "kitten", "car", "vehicle", "sea", "ocean")


@pytest.fixture(scope="module")
def encoder() -> bytes:
    """The sentence encoder as an ONNX file of 91 MB; skipped, with the reason, where its weights cannot be had."""
    try:
        path = fetch_model()
    except RealDataUnavailable as error:
        pytest.skip(str(error))
    return sentence_encoder(read_safetensors(path))


def sentences(model: bytes | str) -> np.ndarray:
    """Return what a model makes of ``the cat``, ``the kitten``...: [6, 384]."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    rows = []
    for word in SENTENCES:
        ids = np.array([[WORDS["[CLS]"], WORDS["the"], WORDS[word], WORDS["[SEP]"]]])
        rows.append(session.run(None, {"ids": ids})[0][0])
    return np.array(rows)


def nearest(rows: np.ndarray) -> list[int]:
    """Return which other sentence is nearest to each."""
    alike = rows @ rows.T - 2 * np.eye(len(rows))
    return [int(number) for number in alike.argmax(axis=1)]


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_real_large_model_survives_every_precision(encoder: bytes, tmp_path: Path) -> None:
    """16-bit floats halve it and change nothing to be seen; 8-bit weights take a quarter and keep who is near whom."""
    (tmp_path / "encoder.onnx").write_bytes(encoder)
    wanted = sentences(encoder)
    assert nearest(wanted) == [1, 0, 3, 2, 5, 4]  # the network around the weights is the right one
    async with AsyncClient(data=tmp_path / "data") as client:
        model = await client.models.create("encoder")
        await model.upload_checkpoint(tmp_path / "encoder.onnx", is_final=True)
        for options, share, least in (({}, 1.0, 1.0), ({"half": True}, 0.51, 0.9999), ({"int8": True}, 0.3, 0.95)):
            made = await (await model.export("onnx", **options))
            path = tmp_path / made.name
            await made.download(path)
            found = sentences(str(path))
            alike = (found * wanted).sum(axis=1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
            print(f"{made.name}: {made.size_bytes:,} bytes, least cosine {alike.min():.6f}")
            assert made.size_bytes <= share * len(encoder)
            assert alike.min() >= least - 1e-6
            assert nearest(found) == nearest(wanted)
