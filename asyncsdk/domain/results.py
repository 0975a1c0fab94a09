"""What a model says of an image: detections or classes, and how long it took.

Boxes are ``(x1, y1, x2, y2)`` in pixels of the upright image, from its upper left corner; scores lie between 0 and 1.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from asyncsdk.errors import AsyncSDKError

__all__ = ["Classification", "Detection", "PredictionProblem", "PredictionResult", "PredictionTiming", "VisionTask"]

VisionTask = Literal["detect", "classify"]
"""What a model can be asked: where things are, or what the whole image shows."""


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Detection(_Value):
    """One thing found in an image.

    Attributes:
        box: ``(x1, y1, x2, y2)`` in pixels: left, top, right, bottom; inside of the image.
        score: How sure the model is, 0 to 1.
        class_id: Number of the class in the model.
        label: Name of the class; the number as text when the model does not name it.
    """

    box: tuple[float, float, float, float]
    score: float
    class_id: int
    label: str


class Classification(_Value):
    """One class that the whole image may be of.

    Attributes:
        class_id: Number of the class in the model.
        label: Name of the class; the number as text when the model does not name it.
        score: How sure the model is, 0 to 1; those of all classes add up to 1.
    """

    class_id: int
    label: str
    score: float


class PredictionTiming(_Value):
    """Where the time of one image went, in milliseconds.

    Attributes:
        preprocess_ms: Decoding, turning upright, resizing.
        inference_ms: The model itself.
        postprocess_ms: From the numbers of the model to boxes or classes.
    """

    preprocess_ms: float = 0.0
    inference_ms: float = 0.0
    postprocess_ms: float = 0.0

    @property
    def total_ms(self) -> float:
        """All three together."""
        return self.preprocess_ms + self.inference_ms + self.postprocess_ms


class PredictionProblem(_Value):
    """Why there is no prediction for one image of a batch.

    Attributes:
        code: A stable word, as `AsyncSDKError.code`.
        message: One sentence.
    """

    code: str
    message: str


class PredictionResult(_Value):
    """What a model says of one image.

    Attributes:
        image: Name of the image: that of its file, or ``image-N`` for bytes and arrays.
        width: Pixels across, of the upright image; 0 when it could not be read.
        height: Pixels down.
        task: Which of the two lists is meant.
        detections: What was found, best first. Empty for a classifier, and when nothing was found.
        classes: The best classes, best first. Empty for a detector.
        timing: Where the time went.
        problem: Why there is no prediction; None when all is well. Only in batches: for one image it is raised.
    """

    image: str
    width: int = 0
    height: int = 0
    task: VisionTask | None = None
    detections: tuple[Detection, ...] = ()
    classes: tuple[Classification, ...] = ()
    timing: PredictionTiming = PredictionTiming()
    problem: PredictionProblem | None = None

    @property
    def ok(self) -> bool:
        """Whether the image was predicted."""
        return self.problem is None

    @property
    def top(self) -> Classification | None:
        """The best class; None for a detector."""
        return self.classes[0] if self.classes else None

    def raise_for_problem(self) -> None:
        """Raise what kept the image from being predicted; do nothing when it was.

        Raises:
            AsyncSDKError: With the problem's code.
        """
        if self.problem is not None:
            error = AsyncSDKError(f"{self.image}: {self.problem.message}")
            error.code = self.problem.code  # type: ignore[misc]  # the finer word of whoever found it
            raise error

    def to_row(self, path: str | None = None) -> dict[str, Any]:
        """Return it as a prediction row, as ``dataset.upload_predictions`` takes it.

        Args:
            path: Path of the item in the dataset; None: the name of the image.
        """
        found: list[dict[str, Any]] = [
            {
                "category": one.label,
                "score": one.score,
                "bbox": [one.box[0], one.box[1], one.box[2] - one.box[0], one.box[3] - one.box[1]],
            }
            for one in self.detections
        ]
        found += [{"category": one.label, "score": one.score} for one in self.classes]
        return {"path": self.image if path is None else path, "predictions": found}
