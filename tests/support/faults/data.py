"""Bytes to move."""

from __future__ import annotations

import random
from functools import lru_cache

__all__ = ["noise"]


@lru_cache(maxsize=64)
def noise(size_bytes: int, seed: int = 0) -> bytes:
    """Return bytes without a pattern, the same for the same arguments."""
    return random.Random(seed).randbytes(size_bytes)
