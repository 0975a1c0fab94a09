"""From numbers to boxes and classes, compared with what can be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsdk.domain.predicting import PredictConfig
from asyncsdk.errors import InvalidModel
from asyncsdk.worker.onnx.facts import ModelFacts
from asyncsdk.worker.onnx.heads import best_classes, choose_head, find_boxes, suppress

PLAIN = ModelFacts("images", "float32", 3)


def named(count: int, **facts: Any) -> ModelFacts:
    return ModelFacts("images", "float32", 3, names={number: f"c{number}" for number in range(count)}, **facts)


@pytest.mark.parametrize(
    ("shape", "facts", "head"),
    [
        ((1, 10), PLAIN, "classes"),
        ((1, 10, 1, 1), PLAIN, "classes"),
        ((1, 84, 8400), PLAIN, "yolov8"),
        ((1, 84, 8400), named(80), "yolov8"),
        ((1, 25200, 85), PLAIN, "yolov5"),
        ((1, 25200, 85), named(80), "yolov5"),
        ((1, 25200, 6), named(1), "yolov5"),
        ((1, 25200, 6), PLAIN, "yolov5"),
        ((1, 300, 6), PLAIN, "end2end"),
        ((1, 300, 6), named(80), "end2end"),
        ((1, 5, 21), named(1), "yolov8"),
        ((1, 116, 8400), named(80), "yolov8"),  # a model of masks: 32 more numbers per candidate
        ((1, 300, 38), named(80, head="end2end"), "end2end"),
    ],
)
def test_the_head_is_seen_from_shape_and_names(shape: tuple[int, ...], facts: ModelFacts, head: str) -> None:
    """Each form of output is told from the others."""
    found, task, _ = choose_head([np.zeros(shape, dtype=np.float32)], facts)
    assert found == head
    assert task == ("classify" if head == "classes" else "detect")


def test_outputs_that_do_not_count_are_passed_over() -> None:
    """Labels as whole numbers, and masks, are no answer."""
    outputs = [np.zeros(1, dtype=np.int64), np.zeros((1, 3), dtype=np.float32)]
    assert choose_head(outputs, PLAIN)[0] == "classes"
    outputs = [np.zeros((1, 84, 99), dtype=np.float32), np.zeros((1, 32, 8, 8), dtype=np.float32)]
    assert choose_head(outputs, PLAIN)[0] == "yolov8"
    with pytest.raises(InvalidModel, match=r"\[1, 2, 3, 4\]"):
        choose_head([np.zeros((1, 2, 3, 4), dtype=np.float32)], PLAIN)


def test_logits_become_probabilities_which_stay() -> None:
    """Softmax for logits only; both give the same classes in the same order."""
    logits = np.array([2.0, -1.0, 5.0])
    probabilities = np.exp(logits) / np.exp(logits).sum()
    found = best_classes(logits, named(3), 3)
    assert [one.class_id for one in found] == [2, 0, 1]
    assert [one.label for one in found] == ["c2", "c0", "c1"]
    assert sum(one.score for one in found) == pytest.approx(1, abs=1e-5)
    assert best_classes(probabilities, named(3), 3) == found
    assert len(best_classes(logits, named(3), 2)) == 2


def test_numbers_that_overflowed_are_no_answer() -> None:
    """NaN and infinity are told instead of sorted."""
    for bad in (np.nan, np.inf):
        with pytest.raises(InvalidModel, match="not finite"):
            best_classes(np.array([1.0, bad]), PLAIN, 5)


# centre x, centre y, width, height; a double of the first; the first as another class; far away; too faint
CANDIDATES = [
    ((20, 20, 10, 10), (0.9, 0.1)),
    ((21, 20, 10, 10), (0.8, 0.1)),
    ((20, 20, 10, 10), (0.1, 0.7)),
    ((60, 60, 8, 4), (0.6, 0.2)),
    ((90, 90, 8, 8), (0.2, 0.1)),
]
WANTED = [(15, 15, 25, 25), (15, 15, 25, 25), (56, 58, 64, 62)]


def test_yolov8_numbers_become_boxes() -> None:
    """Corners from centres, the best class, doubles of one class removed, faint ones left out, best first."""
    rows = np.array([[*box, *scores] for box, scores in CANDIDATES], dtype=np.float32)
    found = find_boxes("yolov8", rows.T, named(2), PredictConfig())
    assert [tuple(map(int, row)) for row in found.corners] == WANTED
    assert found.class_ids.tolist() == [0, 1, 0]
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.6])


def test_yolov5_scores_are_products() -> None:
    """Objectness counts: what is surely nothing is no box, however clear its class."""
    sure = [0.5, 0.5, 0.5, 0.5, 0.1]
    rows = [[*box, one, *scores] for (box, scores), one in zip(CANDIDATES, sure, strict=True)]
    found = find_boxes("yolov5", np.array(rows, dtype=np.float32), named(2), PredictConfig())
    assert [tuple(map(int, row)) for row in found.corners] == WANTED
    assert found.scores.tolist() == pytest.approx([0.45, 0.35, 0.3])


def test_final_lists_are_only_cut() -> None:
    """Nothing is suppressed twice: boxes of an end-to-end model stay as they are, above the limit."""
    rows = np.array([[0, 0, 5, 5, 0.3, 1], [0, 0, 5, 5, 0.9, 1], [1, 1, 2, 2, 0.1, 0]], dtype=np.float32)
    found = find_boxes("end2end", rows, named(2), PredictConfig())
    assert found.scores.tolist() == pytest.approx([0.9, 0.3])
    assert len(find_boxes("end2end", rows, named(2), PredictConfig(max_det=1)).scores) == 1


@pytest.mark.parametrize(("head", "shape"), [("yolov8", (6, 0)), ("yolov5", (0, 7)), ("end2end", (0, 6))])
def test_no_candidates_give_no_boxes(head: Any, shape: tuple[int, int]) -> None:
    """An empty output is an empty answer."""
    found = find_boxes(head, np.zeros(shape, dtype=np.float32), named(2), PredictConfig(conf=0))
    assert found.corners.shape == (0, 4)


def test_too_few_numbers_are_told() -> None:
    """A model with fewer scores than names is refused."""
    with pytest.raises(InvalidModel, match="make more"):
        find_boxes("yolov8", np.zeros((6, 9), dtype=np.float32), named(80), PredictConfig())


def _iou(a: Any, b: Any) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    shared = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union if union else 0.0


BOX = st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(1, 12)] * 2, st.integers(0, 2))


@given(boxes=st.lists(BOX, max_size=25), iou=st.sampled_from([0.0, 0.3, 0.45, 0.7, 1.0]), most=st.integers(1, 30))
def test_suppression_is_the_greedy_one(boxes: list[tuple[int, ...]], iou: float, most: int) -> None:
    """The same boxes stay as in the plain two loops that everybody can check."""
    corners = np.array([(x, y, x + w, y + h) for x, y, w, h, _ in boxes], dtype=np.float64).reshape(-1, 4)
    classes = np.array([box[4] for box in boxes], dtype=np.int64)
    wanted: list[int] = []
    for index in range(len(boxes)):
        doubles = (
            classes[kept] == classes[index] and _iou(corners[kept], corners[index]) > iou + 1e-12 for kept in wanted
        )
        if not any(doubles):
            wanted.append(index)
    assert suppress(corners, classes, iou=iou, most=most).tolist() == wanted[:most]
