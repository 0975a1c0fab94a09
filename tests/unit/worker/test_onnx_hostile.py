"""Files made to do harm: they are refused or stopped, with an error of this package, before they fill the memory."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from asyncsdk.domain.predicting import PredictConfig
from asyncsdk.errors import InvalidModel
from asyncsdk.worker.onnx.facts import ModelFacts, read_facts
from asyncsdk.worker.onnx.heads import best_classes, choose_head, find_boxes
from asyncsdk.worker.onnx.images import PixelRoom
from asyncsdk.worker.onnx.predictor import Predictor
from asyncsdk.worker.onnx.preparing import place
from asyncsdk.worker.onnx.weights import check_onnx, kind_of_weights
from tests.support.onnx_models import endless_classifier, png


def image_input(*shape: Any) -> list[Any]:
    return [SimpleNamespace(name="images", shape=list(shape), type="tensor(float)")]


USUAL = image_input(1, 3, 8, 8)


@pytest.mark.parametrize("shape", [(1, 3, 100_000, 100_000), (1, 3, 8193, 4), (1_000_000_000, 3, 8, 8)])
def test_inputs_beyond_memory_are_refused(shape: tuple[int, ...]) -> None:
    """A model of a few bytes can ask for an image of any size, or for a billion of them."""
    with pytest.raises(InvalidModel, match="are allowed"):
        read_facts(image_input(*shape), {})


@pytest.mark.parametrize(
    "metadata",
    [
        {"names": json.dumps({"9" * 5000: "many digits"})},
        {"names": json.dumps({"1000001": "far"})},
        {"names": "[" + "1," * 600_000 + "1]"},
        {"imgsz": "[100000, 100000]"},
        {"imgsz": "1000000"},
        {"predict": json.dumps({"scale": 10**400})},
        {"predict": '{"scale": NaN}'},
        {"predict": json.dumps({"mean": [10**400]})},
        {"predict": '{"std": [Infinity]}'},
        {"predict": json.dumps({"mean": [1, 2]})},
    ],
)
def test_metadata_that_makes_no_sense_is_refused(metadata: dict[str, str]) -> None:
    """Numbers without end, names of a billionth class, values of megabytes: an error that says what they are."""
    with pytest.raises(InvalidModel):
        read_facts(USUAL, metadata)


@pytest.mark.parametrize("text", ["[" * 100_000, "-" * 100_000 + "1", "9" * 10_000, "{" * 5000, "\0"])
def test_metadata_that_cannot_be_read_says_nothing(text: str) -> None:
    """What neither JSON nor Python can read is text, which means nothing under these keys."""
    assert read_facts(USUAL, {"names": text, "imgsz": text, "args": text}).names == {}


def test_metadata_of_others_is_not_even_read() -> None:
    """Whatever packages write under other keys, of any size, costs nothing."""
    assert read_facts(USUAL, {"training_log": "x" * 10_000_000, "names": '["a"]'}).names == {0: "a"}


def test_means_of_three_channels_do_not_fit_one() -> None:
    """Told with the model, not as an error of arithmetic at the first image."""
    with pytest.raises(InvalidModel, match="one per channel makes 1"):
        read_facts(image_input(1, 1, 8, 8), {"predict": json.dumps({"mean": [1, 2, 3]})})


# --- numbers -----------------------------------------------------------------------------------------------------

PLAIN = ModelFacts("images", "float32", 3)
BAD_SCORES = [np.nan, np.inf, 7.5]


@pytest.mark.parametrize("bad", BAD_SCORES)
@pytest.mark.parametrize(("head", "score_at"), [("yolov8", 4), ("yolov5", 4), ("yolov5", 5), ("end2end", 4)])
def test_scores_that_are_none_are_not_nothing_found(head: Any, score_at: int, bad: float) -> None:
    """A detector whose numbers overflowed has not seen an empty scene, and a logit is not certainty."""
    rows = np.full((4, 6), 0.1, dtype=np.float32)
    rows[2, score_at] = bad
    with pytest.raises(InvalidModel, match=r"not finite|lie between 0 and 1"):
        find_boxes(head, rows.T if head == "yolov8" else rows, PLAIN, PredictConfig())


@pytest.mark.parametrize("head", ["yolov8", "yolov5", "end2end"])
def test_boxes_that_are_none_are_not_dropped(head: Any) -> None:
    """A candidate that counts, with corners that are no numbers."""
    rows = np.array([[5, 5, np.nan, 2, 0.9, 0.9]], dtype=np.float32)
    with pytest.raises(InvalidModel, match="not finite"):
        find_boxes(head, rows.T if head == "yolov8" else rows, PLAIN, PredictConfig())


def test_lists_of_boxes_without_an_image_are_no_classes() -> None:
    """``[N, 7]`` holds a row for each box; ``[0, C]`` and ``[1, 0]`` hold no answer at all."""
    for shape in ((12, 7), (0, 7), (1, 0), (2, 84, 100)):
        with pytest.raises(InvalidModel, match="no known form"):
            choose_head([np.zeros(shape, dtype=np.float32)], PLAIN)


def test_classes_without_a_name_count() -> None:
    """Names of the classes 0 and 5 mean six classes: the ones between are seen, by their numbers."""
    facts = ModelFacts("images", "float32", 3, names={0: "first", 5: "last"})
    rows = np.zeros((2, 10), dtype=np.float32)
    rows[0, :4] = rows[1, :4] = (5, 5, 2, 2)
    rows[0, 4 + 5], rows[1, 4 + 3] = 0.9, 0.8
    found = find_boxes("yolov8", rows.T, facts, PredictConfig())
    assert found.class_ids.tolist() == [5, 3]
    assert [facts.label(number) for number in found.class_ids] == ["last", "3"]


def test_softmax_is_what_is_computed_by_hand() -> None:
    """Large logits do not overflow; the scores are those of the plain formula in 80 digits."""
    from decimal import Decimal

    logits = [900.25, 899.0, -3.0]
    powers = [(Decimal(one) - 900).exp() for one in logits]
    wanted = [float(one / sum(powers)) for one in powers]
    found = best_classes(np.array(logits), PLAIN, 3)
    assert [one.score for one in found] == pytest.approx(wanted, abs=1e-6)


# --- images ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 2_000_000), (2_000_000, 1)])
def test_a_line_is_cut_before_it_is_made_wide(size: tuple[int, int]) -> None:
    """All of it, at the width of a model, would be 450 million pixels."""
    made: list[tuple[int, int]] = []
    image = Image.new("L", size, 9)
    plain = image.resize

    def resize(wanted: tuple[int, int], *rest: Any, **more: Any) -> Image.Image:
        made.append(wanted)
        assert wanted[0] * wanted[1] < 1_000_000
        return plain(wanted, *rest, **more)

    image.resize = resize  # type: ignore[method-assign,assignment]
    placed, _ = place(image, (224, 224), "crop")
    assert placed.size == made[0] == (224, 224)
    assert (np.asarray(placed) == 9).all()


@pytest.mark.parametrize("image_size", [(200, 100), (97, 61), (31, 160), (8, 8), (1, 5)])
@pytest.mark.parametrize("size", [(64, 64), (32, 96), (8, 8)])
def test_the_crop_is_that_of_the_whole_image(image_size: tuple[int, int], size: tuple[int, int]) -> None:
    """As if all of the image had been resized and then cut, to one shade."""
    width, height = image_size
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    gain = max(size[1] / width, size[0] / height)
    inner = max(size[1], round(width * gain)), max(size[0], round(height * gain))
    left, top = (-round((size[1] - inner[0]) / 2 - 0.1), -round((size[0] - inner[1]) / 2 - 0.1))
    whole = image.resize(inner, Image.Resampling.BILINEAR).crop((left, top, left + size[1], top + size[0]))
    placed, _ = place(image, size, "crop")
    assert np.abs(np.asarray(placed).astype(int) - np.asarray(whole).astype(int)).max() <= 1


def test_large_images_wait_for_each_other() -> None:
    """Never more pixels at once than there is room for, and one that is too large goes alone."""
    room, held, most = PixelRoom(100), [0], [0]
    lock = threading.Lock()

    def hold(pixels: int) -> None:
        for _ in range(20):
            with room.taken(pixels):
                with lock:
                    held[0] += pixels
                    most[0] = max(most[0], held[0])
                threading.Event().wait(0.001)
                with lock:
                    held[0] -= pixels

    threads = [threading.Thread(target=hold, args=(pixels,)) for pixels in (30, 40, 50, 60, 100, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 60 < most[0] <= 100
    with room.taken(1000):
        pass


# --- weights -----------------------------------------------------------------------------------------------------


def test_zip_files_that_python_cannot_read_are_something_else(tmp_path: Path) -> None:
    """A version from the future and a name in no encoding raise other errors than a bad zip."""
    import zipfile

    path = tmp_path / "weights"
    for version, name_byte in ((99, b"a"), (20, b"\xff")):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a", b"")
        data = bytearray(path.read_bytes())
        entry = data.index(b"PK\x01\x02")
        data[entry + 6] = version
        data[entry + 9] |= 0x08  # the name is UTF-8
        data[entry + 46 : entry + 47] = name_byte
        path.write_bytes(bytes(data))
        assert kind_of_weights(path) == "other"


def test_defaults_of_functions_may_not_name_files(tmp_path: Path) -> None:
    """A tensor of another file is found wherever the format allows one."""
    path = tmp_path / "weights.onnx"
    function = helper.make_function("own", "F", ["x"], ["y"], [helper.make_node("Identity", ["x"], ["y"])],
                                    [helper.make_opsetid("", 17)])  # fmt: skip
    tensor = TensorProto(name="secret", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    function.attribute_proto.append(helper.make_attribute("value", tensor))
    graph = helper.make_graph(
        [helper.make_node("F", ["images"], ["out"], domain="own")],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    path.write_bytes(helper.make_model(graph, functions=[function], opset_imports=imports).SerializeToString())
    with pytest.raises(InvalidModel, match="another file"):
        check_onnx(path)


def test_a_run_without_end_is_stopped(tmp_path: Path) -> None:
    """Its thread is free again: a model with an endless loop cannot keep a worker from everything else."""
    path = tmp_path / "weights.onnx"
    path.write_bytes(endless_classifier())
    predictor = Predictor(path)
    stopper = predictor.stopper()
    failed: list[Exception] = []

    def run() -> None:
        try:
            predictor.predict(png(np.zeros((8, 8, 3), np.uint8)), PredictConfig(), name="x", stopper=stopper)
        except InvalidModel as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    stopper.stop()
    thread.join(30)
    assert not thread.is_alive()
    assert "terminate" in str(failed[0])
