"""TorchScript checkpoints, where torch is installed: to ONNX, and nothing that would unpickle.

A pickled ``nn.Module`` (what ``torch.save(model)`` writes) runs whatever its author put into it as it is loaded, and a
state dict holds no architecture: neither is loaded here. A TorchScript file holds its program in a form that torch
reads without Python; it is still a program, and runs with the rights of the worker.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from asyncsdk.errors import InvalidModel

__all__ = ["has_torch", "torchscript_to_onnx"]


def has_torch() -> bool:
    """Whether torch, and what it writes ONNX files with, are installed here."""
    return find_spec("torch") is not None and find_spec("onnx") is not None


def torchscript_to_onnx(
    source: Path, destination: Path, *, size: tuple[int, int], channels: int = 3, metadata: dict[str, str] | None = None
) -> None:
    """Write a TorchScript model as ONNX. Blocking, and heavy: for a thread.

    Args:
        source: The TorchScript file.
        destination: The ONNX file.
        size: Height and width of the images it takes then.
        channels: 3 or 1.
        metadata: What to write into the ONNX file's metadata.

    Raises:
        InvalidModel: torch cannot load it, or cannot express it as ONNX.
    """
    import onnx
    import torch

    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # TorchScript is old, which torch says at every turn
            model: Any = torch.jit.load(str(source), map_location="cpu").eval()
            image = torch.zeros(1, channels, *size)
            torch.onnx.export(model, (image,), str(destination), input_names=["images"], opset_version=17, dynamo=False)
    except Exception as error:  # torch raises whatever it stumbles over in somebody's program
        raise InvalidModel(f"torch cannot export it to ONNX: {str(error) or type(error).__name__}") from error
    written = onnx.load(str(destination))
    for key, value in (metadata or {}).items():
        entry = written.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(written, str(destination))
