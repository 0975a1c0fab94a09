"""Jobs of the kind ``predict``: images through an ONNX checkpoint of a model, which stays loaded for the next one."""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import os
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import anyio
from pydantic import JsonValue, ValidationError

from asyncsdk.domain.predicting import PredictConfig
from asyncsdk.domain.results import PredictionProblem, PredictionResult
from asyncsdk.entities.checkpoint_transfers import download_checkpoint
from asyncsdk.entities.weights import find_weights
from asyncsdk.errors import BadRequest, InvalidImage
from asyncsdk.protocol.checkpoints import CheckpointRecord
from asyncsdk.protocol.model_work import GivenImage, PredictOutcome, PredictPayload
from asyncsdk.protocol.models import GetModel
from asyncsdk.worker.extra import require_extra
from asyncsdk.worker.pacing import in_turn
from asyncsdk.worker.runners import Work

if TYPE_CHECKING:
    from asyncsdk.worker.onnx.cache import PredictorCache
    from asyncsdk.worker.onnx.facts import ModelFacts
    from asyncsdk.worker.onnx.predictor import Predictor

__all__ = ["LoadedModel", "PredictRunner"]


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to predict for one job.

    Attributes:
        predictor: The weights, loaded.
        facts: What is known of it.
        checkpoint: Where they came from.
        at_once: Images predicted at the same time.
    """

    predictor: Predictor
    facts: ModelFacts
    checkpoint: CheckpointRecord
    at_once: int

    async def predict(self, work: Work, source: bytes | Path, config: PredictConfig, name: str) -> PredictionResult:
        """Return what the model says of one image; see `Predictor.predict`. Cancelled, it ends the model's run."""
        stopper = self.predictor.stopper()
        predict = functools.partial(self.predictor.predict, facts=self.facts, stopper=stopper)
        calling = asyncio.ensure_future(work.in_thread(predict, source, config, name=name))
        try:
            return await asyncio.shield(calling)
        except asyncio.CancelledError:
            stopper.stop()
            calling.cancel()
            with anyio.CancelScope(shield=True):  # the thread reads the attempt's files
                await asyncio.wait({calling})
            raise


class PredictRunner:
    """Predicts images, those of a payload or the items of a dataset.

    Models are kept loaded, by checkpoint, as long as their files make no more than *cache_bytes* together (1 GiB).
    """

    kind = "predict"

    def __init__(self, cache_bytes: int | None = None) -> None:
        self._cache_bytes = cache_bytes
        self._cache: PredictorCache | None = None
        self._fetching: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()
        self._at_once = max(1, min(4, os.cpu_count() or 1))

    def offers(self) -> Mapping[str, JsonValue]:
        """Return the tasks it knows.

        Raises:
            RunnerUnavailable: The extra ``predict`` is not installed.
        """
        require_extra(self.kind)
        return {"tasks": ["classify", "detect"]}

    async def run(self, work: Work) -> JsonValue:
        """Predict what the job asks for.

        Raises:
            NotFound: The model, the checkpoint or the dataset is gone.
            InvalidModel: The checkpoint is nothing that can be run here.
            InvalidImage: The image is none; in a batch, its result says so instead.
            BadRequest, ConfigError: The payload makes no sense.
        """
        try:
            payload = PredictPayload.model_validate(work.job.payload)
        except ValidationError as error:
            raise BadRequest(f"the payload makes no sense: {error.errors(include_url=False)[0]['msg']}") from error
        config = PredictConfig.parse(payload.config)
        model = await self._loaded(work, payload)
        if payload.items is not None:
            from asyncsdk.worker.predicting_items import predict_items

            items = await predict_items(work, model, payload.items, config)
            outcome = _outcome(model, items=items)
        else:
            results = await _predict_given(work, model, payload, config)
            outcome = _outcome(model, results=results, is_batch=payload.is_batch)
        found: JsonValue = outcome.model_dump(mode="json")
        return found

    async def _loaded(self, work: Work, payload: PredictPayload) -> LoadedModel:
        checkpoint = await find_weights(work.session, payload)
        record = await work.session.send(GetModel(model_id=payload.model_id))
        predictor = await self._predictor(work, checkpoint)
        return LoadedModel(predictor, predictor.facts(record.labels, record.config), checkpoint, self._at_once)

    async def _predictor(self, work: Work, checkpoint: CheckpointRecord) -> Predictor:
        if self._cache is None:
            self._cache = await work.in_thread(_new_cache, self._cache_bytes)
        # A checkpoint's bytes never change; the checksum is there for platforms that give an id twice.
        key = (checkpoint.id, checkpoint.crc32c, checkpoint.size_bytes)
        if (found := self._cache.find(key)) is not None:
            return found
        # Two jobs that want the same weights fetch them once; those that want others need not wait for them.
        fetching = self._fetching.setdefault(key, asyncio.Lock())
        async with fetching:
            if (found := self._cache.find(key)) is not None:
                return found
            await work.report(stage="loading")
            began = time.monotonic()
            path = work.folder / "weights.onnx"
            await download_checkpoint(work.session, checkpoint, path, resume=False, on_progress=None, on_event=None)
            try:
                found = await work.in_thread(_load, self._cache, key, path)
            finally:
                path.unlink(missing_ok=True)  # it is in memory now
            seconds = time.monotonic() - began
            await work.log(f"checkpoint {checkpoint.id} ({checkpoint.size_bytes:,} bytes) loaded in {seconds:.2f} s")
            return found


def _new_cache(capacity_bytes: int | None) -> PredictorCache:
    # In a thread and not before: onnxruntime takes 0.2 s to import, which an event loop would stand still for.
    from asyncsdk.worker.onnx.cache import DEFAULT_CACHE_BYTES, PredictorCache

    return PredictorCache(DEFAULT_CACHE_BYTES if capacity_bytes is None else capacity_bytes)


def _load(cache: PredictorCache, key: Hashable, path: Path) -> Predictor:
    from asyncsdk.worker.onnx.predictor import Predictor

    return cache.load(key, lambda: Predictor(path))


def _outcome(model: LoadedModel, **found: object) -> PredictOutcome:
    facts = {"checkpoint_id": model.checkpoint.id, "checkpoint_crc32c": model.checkpoint.crc32c}
    return PredictOutcome.model_validate({**facts, **found})


async def _predict_given(
    work: Work, model: LoadedModel, payload: PredictPayload, config: PredictConfig
) -> tuple[PredictionResult, ...]:
    images = payload.images or tuple(GivenImage(name=name, input=name) for name in work.inputs)
    if not images:
        raise BadRequest("there is no image in the job, neither in its payload nor among its inputs")
    results: dict[int, PredictionResult] = {}

    async def predict(numbered: tuple[int, GivenImage]) -> None:
        number, image = numbered
        try:
            results[number] = await model.predict(work, await _bytes_of(work, image), config, image.name)
        except InvalidImage as error:
            if not payload.is_batch:
                raise
            results[number] = PredictionResult(
                image=image.name, problem=PredictionProblem(code=error.code, message=error.reason)
            )
        if len(images) > 1:
            await work.report(stage="predicting", progress=len(results) / len(images))

    await in_turn(enumerate(images), predict, at_once=model.at_once)
    return tuple(results[number] for number in range(len(images)))


async def _bytes_of(work: Work, image: GivenImage) -> bytes | Path:
    if image.input is not None:
        return await work.input(image.input)
    try:
        return base64.b64decode(image.data or "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidImage(image.name, "is not base64") from error
