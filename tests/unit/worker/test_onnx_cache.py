"""Loaded models are kept, shared and dropped."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from asyncsdk.worker.onnx.cache import MAX_MODELS, PredictorCache


@dataclass
class Loaded:
    size_bytes: int


def load(cache: PredictorCache, key: str, size: int = 10) -> Any:
    return cache.load(key, lambda: Loaded(size))  # type: ignore[arg-type,return-value]


def test_what_was_used_longest_ago_makes_room() -> None:
    """Bytes bound it, and finding counts as using."""
    cache = PredictorCache(30)
    for key in "abc":
        load(cache, key)
    assert cache.find("a") is not None
    load(cache, "d")
    assert [key for key in "abcd" if cache.find(key) is not None] == ["a", "c", "d"]
    assert cache.size_bytes == 30


def test_one_larger_than_the_room_stays_alone() -> None:
    """A model that is too large is used all the same, by itself."""
    cache = PredictorCache(30)
    load(cache, "a")
    large = load(cache, "large", 100)
    assert cache.find("large") is large
    assert len(cache) == 1


def test_threads_load_a_model_once() -> None:
    """Eight that ask at once get the same object, made by one of them."""
    cache = PredictorCache()
    made: list[int] = []
    gate = threading.Barrier(8)
    found: list[Any] = []

    def make() -> Any:
        made.append(1)
        threading.Event().wait(0.05)
        return Loaded(1)

    def ask() -> None:
        gate.wait()
        found.append(cache.load("a", make))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len({id(one) for one in found}) == 1


def test_a_failure_is_not_kept() -> None:
    """Whoever asks next tries again."""
    cache = PredictorCache()

    def fail() -> Any:
        raise ValueError("cut off")

    with pytest.raises(ValueError, match="cut off"):
        cache.load("a", fail)
    assert load(cache, "a").size_bytes == 10
    cache.clear()
    assert len(cache) == 0


def test_small_models_are_bounded_by_number() -> None:
    """Each has threads of its own, however few bytes it has."""
    cache = PredictorCache()
    for number in range(MAX_MODELS + 10):
        load(cache, str(number), 1)
    assert len(cache) == MAX_MODELS
    assert cache.find("9") is None
    assert cache.find("10") is not None


def test_those_who_wait_behind_a_failure_load_one_after_the_other() -> None:
    """Also together with those who come after it; and nothing is kept of who waited."""
    cache = PredictorCache()
    at_work, most, made = [0], [0], [0]
    lock, first = threading.Lock(), threading.Event()

    def make() -> Any:
        with lock:
            made[0] += 1
            number = made[0]
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
        first.set()
        threading.Event().wait(0.1)
        with lock:
            at_work[0] -= 1
        if number == 1:
            raise ValueError("cut off")
        return Loaded(1)

    def ask() -> None:
        with contextlib.suppress(ValueError):
            cache.load("a", make)

    early = [threading.Thread(target=ask) for _ in range(3)]
    for thread in early:
        thread.start()
    first.wait(30)
    early[0].join()
    late = [threading.Thread(target=ask) for _ in range(3)]
    for thread in late:
        thread.start()
    for thread in early + late:
        thread.join()
    assert (made[0], most[0]) == (2, 1)
    assert cache._loading == {}
