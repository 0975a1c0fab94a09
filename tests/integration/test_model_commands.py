"""``asyncsdk model predict|export`` as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from asyncsdk import Client
from asyncsdk.cli import main
from asyncsdk.cli.exits import ExitCode
from tests.support.onnx_models import digits, light_detector, make_scene


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with a classifier and a detector; beside it two images and a text."""
    folder = tmp_path / "data"
    with Client(data=folder) as client:
        client.models.create("digits").upload_checkpoint(digits().weights, epoch=4)
        client.models.create("lights").upload_checkpoint(light_detector("yolov8"), is_best=True)
    for number in range(2):
        (tmp_path / f"{number}.png").write_bytes(digits().file(number))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "scene.png").write_bytes(make_scene(64, 64, [(10, 20, 8, 0)]).file)
    return folder


def test_images_are_predicted_one_line_each(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In their order; as JSON the whole result; one that is none is told, and the rest is done."""
    images = [str(tmp_path / name) for name in ("0.png", "notes.txt", "1.png")]
    arguments = ["model", "predict", "digits", *images, "--data", str(data), "--topk", "1"]
    assert main([*arguments, "--checkpoint", "4"]) == ExitCode.SOME_FAILED
    out, err = capfd.readouterr()
    lines = out.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [images[0], images[2]]
    assert lines[0].startswith(f"{images[0]}: digit {digits().expected[0]} ")
    assert f"{images[1]}: is no image" in err
    assert "1 of 3 images could not be predicted" in err
    assert main([*arguments, "--json"]) == ExitCode.SOME_FAILED
    records = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [record["path"] for record in records] == images
    assert [record["problem"] is None for record in records] == [True, False, True]
    assert [len(record["classes"]) for record in records] == [1, 0, 1]


def test_detections_stand_with_their_boxes(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Label, score, corners."""
    scene = str(tmp_path / "scene.png")
    assert main(["model", "predict", "lights", scene, "--conf", "0.8", "--data", str(data)]) == ExitCode.OK
    assert capfd.readouterr().out.startswith(f"{scene}: red 1.000 at 10 20 18 28 (")


def test_mistakes_have_their_exit_status(data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A wrong option, a missing image, a missing model, a format without a name or a worker."""
    image = str(tmp_path / "0.png")
    at = ["--data", str(data)]
    assert main(["model", "predict", "digits", image, "--conf", "7", *at]) == ExitCode.USAGE
    assert main(["model", "predict", "digits", str(tmp_path / "absent.png"), *at]) == ExitCode.NOT_FOUND
    assert main(["model", "predict", "absent", image, *at]) == ExitCode.NOT_FOUND
    assert main(["model", "export", "digits", "onxx", *at]) == ExitCode.USAGE
    assert main(["model", "export", "digits", "tflite", *at]) == ExitCode.REFUSED
    assert main(["model", "export", "digits", "pyTorch", *at]) == ExitCode.SOME_FAILED
    assert "did you mean 'onnx'" in capfd.readouterr().err


def test_exports_land_where_they_are_wanted(
    data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the name that was asked for, or under its own in this folder."""
    at = ["--data", str(data)]
    assert main(["model", "export", "digits", "onnx", "-o", str(tmp_path / "copy.onnx"), *at]) == ExitCode.OK
    assert (tmp_path / "copy.onnx").read_bytes() == digits().weights
    monkeypatch.chdir(tmp_path)
    assert main(["model", "export", "digits", "ONNX", "--int8", "--json", *at]) == ExitCode.OK
    (record,) = [json.loads(line) for line in capfd.readouterr().out.splitlines() if line.startswith("{")]
    assert (record["path"], record["precision"]) == ("digits-int8.onnx", "int8")
    assert (tmp_path / "digits-int8.onnx").stat().st_size == record["size_bytes"] < len(digits().weights)
