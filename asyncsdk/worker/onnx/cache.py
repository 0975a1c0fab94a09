"""Loaded models, kept as long as there is room for them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from asyncsdk.worker.onnx.predictor import Predictor

__all__ = ["DEFAULT_CACHE_BYTES", "MAX_MODELS", "PredictorCache"]

DEFAULT_CACHE_BYTES = 1024 * 1024 * 1024
"""Weights kept in memory: 1 GiB of them, as large as their files."""

MAX_MODELS = 32
"""Models kept at most, however small: each has as many threads as there are processors."""


@dataclass(slots=True)
class _Turn:
    """Who loads one model: one after the other."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0


class PredictorCache:
    """Models by the checkpoint they were loaded from. Threads may use it at once; each model is loaded once.

    What was used longest ago makes room, at 32 models or when they are too large together. The last one stays,
    however large it is.

    Args:
        capacity_bytes: Weights kept at most, by the size of their files. Default 1 GiB.
    """

    def __init__(self, capacity_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self._capacity_bytes = capacity_bytes
        self._kept: OrderedDict[Hashable, Predictor] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: dict[Hashable, _Turn] = {}

    def find(self, key: Hashable) -> Predictor | None:
        """Return the model when it is here."""
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
            return found

    def load(self, key: Hashable, load: Callable[[], Predictor]) -> Predictor:
        """Return the model, loaded by *load* when it is not here; whoever asks meanwhile waits for that one.

        Blocking: for a thread. What *load* raises comes out, and the next one tries again.
        """
        with self._lock:
            turn = self._loading.setdefault(key, _Turn())
            turn.users += 1
        try:
            with turn.lock:
                found = self.find(key)
                if found is None:
                    found = load()
                    self._keep(key, found)
                return found
        finally:
            with self._lock:
                turn.users -= 1
                if not turn.users:  # else those who wait and those who come would load it at the same time
                    del self._loading[key]

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            self._kept.clear()

    @property
    def size_bytes(self) -> int:
        """Weights kept now."""
        with self._lock:
            return sum(one.size_bytes for one in self._kept.values())

    def __len__(self) -> int:
        return len(self._kept)

    def _keep(self, key: Hashable, predictor: Predictor) -> None:
        with self._lock:
            self._kept[key] = predictor
            self._kept.move_to_end(key)
            total = sum(one.size_bytes for one in self._kept.values())
            while (total > self._capacity_bytes or len(self._kept) > MAX_MODELS) and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                total -= dropped.size_bytes
