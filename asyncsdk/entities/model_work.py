"""Work on a model that a worker of the platform does: exports and predictions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from os import PathLike
from typing import Any

from asyncsdk.domain.exporting import export_format
from asyncsdk.domain.filters import Filter
from asyncsdk.domain.predicting import PredictConfig
from asyncsdk.domain.results import PredictionResult
from asyncsdk.engine import ProgressCallback
from asyncsdk.entities.base import BoundRecord, entity_id
from asyncsdk.entities.image_sources import ImageSource
from asyncsdk.entities.job_results import job_result
from asyncsdk.entities.job_transfers import download_artifact
from asyncsdk.entities.jobs import AsyncArtifact, AsyncJob, create_job
from asyncsdk.entities.predicting import predict_all, predict_one
from asyncsdk.entities.weights import check_choice, find_weights
from asyncsdk.errors import ConfigError, UnsupportedOperation
from asyncsdk.protocol.artifacts import (
    GetArtifact,
)
from asyncsdk.protocol.checkpoints import WhichCheckpoint
from asyncsdk.protocol.datasets import DatasetRecord
from asyncsdk.protocol.model_work import (
    CheckpointChoice,
    DatasetPrediction,
    ExportOutcome,
    ExportPayload,
    ExportRecord,
    PredictedItems,
    PredictOutcome,
    PredictPayload,
)
from asyncsdk.protocol.models import ModelRecord
from asyncsdk.protocol.predictions import PredictionTaskRecord

__all__ = ["AsyncExport", "AsyncModelWork"]


class AsyncExport(BoundRecord, ExportRecord):
    """A model in another format: what an export job made."""

    async def download(
        self, destination: str | PathLike[str], *, on_progress: ProgressCallback | None = None
    ) -> AsyncExport:
        """Download the file; it appears under its name only when all bytes are there and their checksum is right.

        Args:
            destination: The file; in a folder that exists, it takes the name it has in the job.
            on_progress: Told how far it is, at most every 0.1 s.

        Raises:
            NotFound: The job was deleted.
            DestinationFull, DestinationUnwritable: It cannot be written there.
        """
        record = await self._client.send(GetArtifact(job_id=self.job_id, artifact_id=self.id))
        await download_artifact(self._client, record, destination, on_progress=on_progress)
        return self

    async def artifact(self) -> AsyncArtifact:
        """Return the file as one of the job's."""
        record = await self._client.send(GetArtifact(job_id=self.job_id, artifact_id=self.id))
        return AsyncArtifact._bind(record, self._client)


class AsyncModelWork(BoundRecord, ModelRecord):
    """What workers do with a model."""

    async def export(
        self,
        format: str = "onnx",
        *,
        half: bool = False,
        int8: bool = False,
        size: int | tuple[int, int] | None = None,
        checkpoint: WhichCheckpoint | int = "best",
    ) -> AsyncJob[AsyncExport]:
        """Convert weights to another format or precision; a job that can be awaited, watched and cancelled.

        ``onnx`` comes with the extra ``predict``: ONNX checkpoints as they are, with 16-bit floats, with 8-bit weights;
        TorchScript ones where torch is installed. ``pyTorch`` gives what torch wrote as it is. Pickled modules are
        never loaded. Other formats need a runner of somebody's own.

        Args:
            format: As services name it: ``onnx``, ``torchscript``, ``pyTorch``, ``openvino``...
            half: Make floats 16-bit ones; inputs and outputs stay 32-bit.
            int8: Make weights 8-bit integers; needs no sample data.
            size: Height and width of the images it takes then, or one number for both, where the weights do not say.
            checkpoint: ``best`` (else the final one, else the last), ``last``, ``final``, or the number of an epoch.

        Returns:
            The job; awaited, it gives the file, to be downloaded.

        Raises:
            ConfigError: There is no such format, or the options exclude each other.
            NotFound: There is no such checkpoint.
            NoWorker: Nobody makes that format; the message says what to install.
        """
        chosen = export_format(format)
        if half and int8:
            raise ConfigError("half and int8 exclude each other: give one of them")
        both = PredictConfig(size=size).size if size is not None else None  # type: ignore[arg-type]  # checked there
        payload = ExportPayload(**await self._choice(checkpoint), format=chosen.name, half=half, int8=int8, size=both)
        return await create_job(self._client, "export", payload.model_dump(mode="json"), subject=self)

    async def predict(
        self,
        image: ImageSource,
        config: PredictConfig | Mapping[str, Any] | None = None,
        *,
        checkpoint: WhichCheckpoint | int = "best",
        timeout: float | None = None,
    ) -> PredictionResult:
        """Return what the model says of one image: detections or classes, and how long it took.

        A worker runs an ONNX checkpoint, which it keeps loaded for the next image. On the embedded platform that worker
        starts in this process. Files up to 256 KiB travel inside of the job.

        Args:
            image: Path or bytes of an image file, a Pillow image, or an array of bytes (height x width x 3, or
                height x width for grey).
            config: ``size``, ``conf``, ``iou``, ``max_det``, ``topk``; see `PredictConfig`.
            checkpoint: ``best`` (else the final one, else the last), ``last``, ``final``, or the number of an epoch.
            timeout: Seconds to wait at most; None: as long as it takes.

        Raises:
            ConfigError: An option is unknown or makes no sense, or *image* is nothing of these.
            SourceNotFound, SourceUnreadable: The file is not there or cannot be read.
            NotFound: There is no such checkpoint.
            NoWorker: Nobody predicts; the message says what to install.
            JobFailed: The image is none, or the checkpoint cannot be run; ``error_code`` tells them apart.
            DeadlineExceeded: It took longer than *timeout*.
        """
        options = PredictConfig.parse(config)
        choice = CheckpointChoice(**await self._choice(checkpoint))
        return await predict_one(self._client, choice, image, options, timeout=timeout)

    async def predict_many(
        self,
        images: Iterable[ImageSource],
        config: PredictConfig | Mapping[str, Any] | None = None,
        *,
        checkpoint: WhichCheckpoint | int = "best",
        concurrency: int = 4,
    ) -> AsyncIterator[PredictionResult]:
        """Yield what the model says of each image, in their order, while later ones are under way.

        An image that is none does not stop the others: its result has a ``problem``. Memory: at most
        ``concurrency + 1`` groups of up to 16 images.

        Args:
            images: As for `predict`. Read as far as there is room; by a blocking client at once.
            config: As for `predict`.
            checkpoint: As for `predict`; chosen once for all of them.
            concurrency: Groups of images under way at once, 1 to 64.

        Raises:
            ConfigError, SourceNotFound, NotFound, NoWorker, JobFailed: As for `predict`; it ends the iteration. An
                image that cannot be read does so after the results of those before it.
        """
        options = PredictConfig.parse(config)
        if not 1 <= concurrency <= 64:
            raise ConfigError(f"concurrency is a number from 1 to 64, not {concurrency}")
        choice = CheckpointChoice(**await self._choice(checkpoint))
        async with aclosing(predict_all(self._client, choice, images, options, concurrency)) as results:
            async for result in results:
                yield result

    async def predict_items(
        self,
        dataset: DatasetRecord | str,
        task: PredictionTaskRecord | str,
        config: PredictConfig | Mapping[str, Any] | None = None,
        *,
        filter: Filter | None = None,
        checkpoint: WhichCheckpoint | int = "best",
    ) -> AsyncJob[PredictedItems]:
        """Predict items of a dataset and store a prediction row for each; one job, however many there are.

        A row replaces the earlier one of its item. An item that is no image is counted and told in the result.

        Args:
            dataset: The dataset or its id.
            task: Its prediction task or that one's name; its categories must be the model's classes.
            config: As for `predict`.
            filter: Which items; None for all.
            checkpoint: As for `predict`.

        Returns:
            The job; awaited, it gives the counts.

        Raises:
            ConfigError: An option is unknown or makes no sense.
            NotFound: There is no such checkpoint.
            NoWorker: Nobody predicts; the message says what to install.
        """
        options = PredictConfig.parse(config)
        name = task if isinstance(task, str) else task.name
        items = DatasetPrediction(dataset_id=entity_id(dataset, "dataset"), task=name, filter=filter)
        payload = PredictPayload(**await self._choice(checkpoint), config=options.to_json(), items=items, is_batch=True)
        return await create_job(self._client, "predict", payload.model_dump(mode="json"), subject=self)

    async def _choice(self, checkpoint: WhichCheckpoint | int) -> dict[str, Any]:
        """Return the checkpoint that is meant now: what is committed while the job waits does not change it."""
        check_choice(checkpoint)
        choice = CheckpointChoice(model_id=self.id, checkpoint=checkpoint)
        try:
            found = await find_weights(self._client, choice)
        except UnsupportedOperation:  # a service that does not tell which there are
            return choice.model_dump()
        return {**choice.model_dump(), "checkpoint_id": found.id}


@job_result("export")
def _export_of(job: AsyncJob[Any]) -> AsyncExport:
    outcome = ExportOutcome.model_validate(job.result)
    record = ExportRecord(
        id=outcome.artifact_id,
        job_id=job.id,
        created_at=job.ended_at or job.updated_at,
        updated_at=job.updated_at,
        created_by=job.created_by,
        **outcome.model_dump(exclude={"artifact_id"}),
    )
    return AsyncExport._bind(record, job._client)


@job_result("predict")
def _predictions_of(job: AsyncJob[Any]) -> PredictionResult | tuple[PredictionResult, ...] | PredictedItems:
    outcome = PredictOutcome.model_validate(job.result)
    if outcome.items is not None:
        return outcome.items
    # A job that somebody made by hand may have several images without being a batch: none of them is dropped.
    return outcome.results if outcome.is_batch or len(outcome.results) != 1 else outcome.results[0]
