"""Work on models: what goes into jobs of the kinds ``export`` and ``predict``, and what comes out of them.

Payloads and results of jobs, not messages of their own: the queue is the same for all kinds (`protocol.jobs`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, JsonValue, model_validator

from asyncsdk.domain.filters import Filter
from asyncsdk.domain.ids import Id
from asyncsdk.domain.paths import Name
from asyncsdk.domain.results import PredictionProblem, PredictionResult
from asyncsdk.protocol.base import Crc32cHex, EntityRecord, Record, Value
from asyncsdk.protocol.checkpoints import MAX_EPOCH, WhichCheckpoint

__all__ = [
    "MAX_IMAGES_PER_JOB",
    "MAX_INLINE_BYTES",
    "MAX_SIDE",
    "CheckpointChoice",
    "DatasetPrediction",
    "ExportOutcome",
    "ExportPayload",
    "ExportRecord",
    "GivenImage",
    "ItemProblem",
    "Precision",
    "PredictOutcome",
    "PredictPayload",
    "PredictedItems",
]

MAX_IMAGES_PER_JOB = 64
"""Images of one job that are given one by one; items of a dataset may be any number."""

MAX_INLINE_BYTES = 256 * 1024
"""Bytes of all images that travel inside of one job's payload; larger ones are its inputs."""

Precision = Literal["as_is", "fp16", "int8"]

MAX_SIDE = 8192
"""Pixels of one side of what a model takes."""

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]

Epoch = Annotated[int, Field(ge=0, le=MAX_EPOCH)]


class CheckpointChoice(Value):
    """Which weights of a model are meant.

    Attributes:
        model_id: The model.
        checkpoint: ``best`` (without a best one the final one, without that the last one), ``last``, ``final``, or
            the number of an epoch.
        checkpoint_id: The checkpoint itself; wins over ``checkpoint``.
    """

    model_id: Id
    checkpoint: WhichCheckpoint | Epoch = "best"
    checkpoint_id: Id | None = None


# --- export --------------------------------------------------------------------------------------------------


class ExportPayload(CheckpointChoice):
    """What a job of the kind ``export`` is to do.

    Attributes:
        format: Name of the format; see `asyncsdk.domain.exporting`.
        half: Whether floats become 16-bit ones.
        int8: Whether weights become 8-bit integers.
        size: Height and width of the images the result takes, where that has to be told; None: as the model says.
    """

    format: str
    half: bool = False
    int8: bool = False
    size: tuple[Side, Side] | None = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> ExportPayload:
        if self.half and self.int8:
            raise ValueError("half and int8 exclude each other")
        return self


class ExportRecord(EntityRecord):
    """A model in another format: the file that a job of the kind ``export`` made. Its id is that of the file.

    Attributes:
        job_id: The job.
        format: Name of the format.
        precision: ``as_is``, ``fp16`` or ``int8``.
        name: Name of the file.
        size_bytes: Its size.
        checkpoint_id: The checkpoint it was made of.
        checkpoint_size_bytes: That one's size.
    """

    job_id: Id
    format: str
    precision: Precision
    name: str
    size_bytes: int
    checkpoint_id: Id
    checkpoint_size_bytes: int


class ExportOutcome(Record):
    """The result of a job of the kind ``export``.

    Attributes:
        format: Name of the format.
        precision: ``as_is``, ``fp16`` or ``int8``.
        artifact_id: The file, an output of the job.
        name: Name of the file.
        size_bytes: Its size.
        checkpoint_id: The checkpoint it was made of.
        checkpoint_size_bytes: That one's size.
    """

    format: str
    precision: Precision = "as_is"
    artifact_id: Id
    name: str
    size_bytes: int
    checkpoint_id: Id
    checkpoint_size_bytes: int


# --- predict -------------------------------------------------------------------------------------------------


class GivenImage(Value):
    """One image: inside of the payload, or an input of the job.

    Attributes:
        name: What to call it in the result.
        data: Its file, base64.
        input: Name of the job's input that holds it.
    """

    name: Annotated[str, Field(min_length=1, max_length=1024)]
    data: str | None = None
    input: Name | None = None

    @model_validator(mode="after")
    def _is_given_once(self) -> GivenImage:
        if (self.data is None) == (self.input is None):
            raise ValueError("an image is given either as data or as an input")
        return self


class DatasetPrediction(Value):
    """Items of a dataset to predict, and where the rows go.

    Attributes:
        dataset_id: The dataset.
        task: Name of its prediction task that gets the rows; its categories are the model's names of classes.
        filter: Which items; None for all.
    """

    dataset_id: Id
    task: Annotated[str, Field(min_length=1, max_length=255)]
    filter: Filter | None = None


class PredictPayload(CheckpointChoice):
    """What a job of the kind ``predict`` is to do: images that are given, or items of a dataset.

    Attributes:
        config: Options; see `asyncsdk.domain.predicting`.
        images: The images, in order. Empty, without a dataset: every input of the job is one.
        items: Items of a dataset instead.
        is_batch: Whether an image that cannot be predicted is told in its result, instead of failing the job.
    """

    config: dict[str, JsonValue] = {}
    images: Annotated[tuple[GivenImage, ...], Field(max_length=MAX_IMAGES_PER_JOB)] = ()
    items: DatasetPrediction | None = None
    is_batch: bool = False


class ItemProblem(PredictionProblem):
    """Why an item of a dataset has no new predictions.

    Attributes:
        path: The item; empty when the platform refused a row, which the message then names.
    """

    path: str = ""


class PredictedItems(Record):
    """What came of the items of a dataset.

    Attributes:
        items: How many were looked at.
        rows: How many have new predictions.
        failed: How many have not.
        problems: Why, of the first 100.
    """

    items: int
    rows: int
    failed: int
    problems: tuple[ItemProblem, ...] = ()


class PredictOutcome(Record):
    """The result of a job of the kind ``predict``.

    Attributes:
        checkpoint_id: The checkpoint that predicted.
        checkpoint_crc32c: That one's checksum.
        results: One per image, in order.
        is_batch: As in the payload: whether several images were meant.
        items: For items of a dataset: what came of them.
    """

    checkpoint_id: Id
    checkpoint_crc32c: Crc32cHex
    results: tuple[PredictionResult, ...] = ()
    is_batch: bool = False
    items: PredictedItems | None = None
