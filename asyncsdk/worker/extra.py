"""Whether the libraries are here that exporting and predicting need."""

from __future__ import annotations

from importlib.util import find_spec

from asyncsdk.errors import RunnerUnavailable

__all__ = ["require_extra"]

_NEEDED = {"onnxruntime": "onnxruntime", "onnx": "onnx", "numpy": "numpy", "PIL": "pillow"}
"""What the extra ``predict`` brings, by the name it is imported by."""


def require_extra(kind: str) -> None:
    """Do nothing when the extra ``predict`` is installed; nothing is imported to find out.

    Args:
        kind: The kind of jobs that need it.

    Raises:
        RunnerUnavailable: It is not, or not whole.
    """
    missing = [name for module, name in _NEEDED.items() if find_spec(module) is None]
    if missing:
        raise RunnerUnavailable(kind, f"{', '.join(missing)} not installed; pip install 'asyncsdk[predict]'")
