# Generated from asyncsdk/entities/model_work.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""Work on a model that a worker of the platform does: exports and predictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from typing import Any

from asyncsdk.domain.filters import Filter
from asyncsdk.domain.predicting import PredictConfig
from asyncsdk.domain.results import PredictionResult
from asyncsdk.engine import ProgressCallback
from asyncsdk.entities.image_sources import ImageSource
from asyncsdk.entities.model_work import AsyncExport, AsyncModelWork
from asyncsdk.protocol.checkpoints import WhichCheckpoint
from asyncsdk.protocol.datasets import DatasetRecord
from asyncsdk.protocol.model_work import ExportRecord, PredictedItems
from asyncsdk.protocol.models import ModelRecord
from asyncsdk.protocol.predictions import PredictionTaskRecord
from asyncsdk.sync.bridge import on_caller, run
from asyncsdk.sync.entities.jobs import Artifact, Job
from asyncsdk.sync.iterables import caller_list
from asyncsdk.sync.iteration import iterate
from asyncsdk.sync.twins import BlockingRecord

__all__ = ["Export", "ModelWork"]


class Export(BlockingRecord, ExportRecord):
    """A model in another format: what an export job made."""

    @property
    def _twin(self) -> AsyncExport:
        return AsyncExport._bind(self, self._client)

    def download(self, destination: str | PathLike[str], *, on_progress: ProgressCallback | None = None) -> Export:
        """Download the file; it appears under its name only when all bytes are there and their checksum is right.

        Args:
            destination: The file; in a folder that exists, it takes the name it has in the job.
            on_progress: Told how far it is, at most every 0.1 s.

        Raises:
            NotFound: The job was deleted.
            DestinationFull, DestinationUnwritable: It cannot be written there.
        """
        return Export._of(run(self._twin.download, destination, on_progress=on_caller(on_progress)))

    def artifact(self) -> Artifact:
        """Return the file as one of the job's."""
        return Artifact._of(run(self._twin.artifact))


class ModelWork(BlockingRecord, ModelRecord):
    """What workers do with a model."""

    @property
    def _twin(self) -> AsyncModelWork:
        return AsyncModelWork._bind(self, self._client)

    def export(
        self,
        format: str = "onnx",
        *,
        half: bool = False,
        int8: bool = False,
        size: int | tuple[int, int] | None = None,
        checkpoint: WhichCheckpoint | int = "best",
    ) -> Job[Export]:
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
        return Job._of(run(self._twin.export, format, half=half, int8=int8, size=size, checkpoint=checkpoint))

    def predict(
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
        return run(self._twin.predict, image, config, checkpoint=checkpoint, timeout=timeout)

    def predict_many(
        self,
        images: Iterable[ImageSource],
        config: PredictConfig | Mapping[str, Any] | None = None,
        *,
        checkpoint: WhichCheckpoint | int = "best",
        concurrency: int = 4,
    ) -> Iterator[PredictionResult]:
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
        return iterate(
            self._twin.predict_many(caller_list(images), config, checkpoint=checkpoint, concurrency=concurrency)
        )

    def predict_items(
        self,
        dataset: DatasetRecord | str,
        task: PredictionTaskRecord | str,
        config: PredictConfig | Mapping[str, Any] | None = None,
        *,
        filter: Filter | None = None,
        checkpoint: WhichCheckpoint | int = "best",
    ) -> Job[PredictedItems]:
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
        return Job._of(run(self._twin.predict_items, dataset, task, config, filter=filter, checkpoint=checkpoint))
