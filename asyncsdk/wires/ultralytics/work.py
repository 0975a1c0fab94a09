"""Export and predict: what is asked, and the form of what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asyncsdk.domain.results import Classification, Detection, PredictionResult, PredictionTiming
from asyncsdk.errors import BadRequest

__all__ = ["export_body", "export_format_of", "predict_data", "predict_from_data"]


def export_body(name: str) -> dict[str, Any]:
    """Return the body that asks for an export."""
    return {"format": name}


def export_format_of(body: Any) -> str:
    """Return the format that a body asks for.

    Raises:
        BadRequest: It names none.
    """
    name = body.get("format") if isinstance(body, dict) else None
    if not isinstance(name, str) or not name:
        raise BadRequest('the body must be {"format": NAME}')
    return name


def predict_data(result: PredictionResult) -> dict[str, Any]:
    """Return the ``data`` that answers a prediction: the image's shape, the times in milliseconds, what was found."""
    found: list[dict[str, Any]] = [
        {
            "class": one.class_id,
            "name": one.label,
            "confidence": one.score,
            "box": dict(zip(("x1", "y1", "x2", "y2"), one.box, strict=True)),
        }
        for one in result.detections
    ]
    found += [{"class": one.class_id, "name": one.label, "confidence": one.score} for one in result.classes]
    speed = {
        "preprocess": result.timing.preprocess_ms,
        "inference": result.timing.inference_ms,
        "postprocess": result.timing.postprocess_ms,
    }
    image = {"shape": [result.height, result.width], "speed": speed, "results": found}
    return {"task": result.task, "images": [image]}


def predict_from_data(data: Any, *, image: str) -> PredictionResult:
    """Return the prediction that an answer's ``data`` holds.

    Args:
        data: Of the answer.
        image: Name of the image.

    Raises:
        ValueError: It is none.
    """
    images = data.get("images") if isinstance(data, dict) else None
    if not isinstance(images, list) or len(images) != 1 or not isinstance(images[0], Mapping):
        raise ValueError("data does not hold one image")
    told = images[0]
    try:
        height, width = told["shape"]
        speed = told.get("speed") or {}
        found = told["results"]
        return PredictionResult(
            image=image,
            width=width,
            height=height,
            task=data.get("task") or ("detect" if any("box" in one for one in found) else "classify"),
            detections=tuple(_detection(one) for one in found if "box" in one),
            classes=tuple(
                Classification(class_id=one["class"], label=one["name"], score=one["confidence"])
                for one in found
                if "box" not in one
            ),
            timing=PredictionTiming(**{f"{name}_ms": float(value) for name, value in speed.items()}),
        )
    except (KeyError, TypeError, ValueError) as error:  # pydantic's errors are ValueErrors
        raise ValueError(f"data is no prediction ({type(error).__name__})") from None


def _detection(told: Mapping[str, Any]) -> Detection:
    box = told["box"]
    return Detection(
        box=(box["x1"], box["y1"], box["x2"], box["y2"]),
        score=told["confidence"],
        class_id=told["class"],
        label=told["name"],
    )
