"""Images to jobs of the kind ``predict``, and their results back in order."""

from __future__ import annotations

import asyncio
import base64
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import anyio
import anyio.to_thread

from asyncsdk.domain.predicting import PredictConfig
from asyncsdk.domain.results import PredictionResult
from asyncsdk.entities.image_sources import ImageSource, SentImage, read_image
from asyncsdk.entities.jobs import AsyncJob, create_job
from asyncsdk.entities.session import Session
from asyncsdk.errors import AsyncSDKError, ConfigError, MalformedResponse
from asyncsdk.protocol.model_work import (
    MAX_INLINE_BYTES,
    CheckpointChoice,
    GivenImage,
    PredictOutcome,
    PredictPayload,
)

__all__ = ["predict_all", "predict_one"]

_GROUP = 16
"""Images of one job of a batch at most."""

_GROUP_BYTES = 16 * 1024 * 1024
"""Bytes of one job of a batch at which no further image is added."""

_GROUP_ANSWERS = 20_000
"""Boxes or classes that the images of one job may give together: its result has an end, at 4 MiB."""

_CANCEL_SECONDS = 5.0
"""How long giving up waits for the platform to hear of it."""


@dataclass(slots=True)
class _Group:
    """Images of one job: small ones in its payload, the others as its inputs.

    Attributes:
        most: How many at most.
    """

    most: int = _GROUP
    images: list[GivenImage] = field(default_factory=list)
    inputs: dict[str, Path | bytes] = field(default_factory=dict)
    inline_bytes: int = 0
    size_bytes: int = 0

    def add(self, image: SentImage) -> None:
        self.size_bytes += image.size_bytes
        if image.data is not None and self.inline_bytes + image.size_bytes <= MAX_INLINE_BYTES:
            self.inline_bytes += image.size_bytes
            self.images.append(GivenImage(name=image.name, data=base64.b64encode(image.data).decode()))
            return
        source = image.path if image.data is None else image.data
        assert source is not None  # it is in one of both
        name = f"image-{len(self.images) + 1}"
        self.inputs[name] = source
        self.images.append(GivenImage(name=image.name, input=name))

    @property
    def is_full(self) -> bool:
        return len(self.images) >= self.most or self.size_bytes >= _GROUP_BYTES


async def predict_one(
    session: Session, choice: CheckpointChoice, image: ImageSource, config: PredictConfig, *, timeout: float | None
) -> PredictionResult:
    """Return the result of one image; as `AsyncModelWork.predict`."""
    group = _Group()
    group.add(await _sent(image, "image-1"))
    (result,) = await _run(session, choice, config, group, asyncio.Lock(), is_batch=False, timeout=timeout)
    return result


async def predict_all(
    session: Session, choice: CheckpointChoice, images: Iterable[ImageSource], config: PredictConfig, concurrency: int
) -> AsyncGenerator[PredictionResult, None]:
    """Yield the results of images in their order; as `AsyncModelWork.predict_many`.

    When an image cannot be read, or *images* raises, the results of those before it come first, then the error.
    """
    given: object = images  # callers without a type checker give anything
    if isinstance(given, (str, bytes, bytearray)) or not isinstance(given, Iterable):
        raise ConfigError("several images are an iterable of them; for one there is predict")
    numbered = zip(count(1), images, strict=False)  # the numbers never end
    running: deque[asyncio.Task[tuple[PredictionResult, ...]]] = deque()
    most = max(1, min(_GROUP, _GROUP_ANSWERS // max(config.max_det, config.topk)))
    has_more = True
    failure: Exception | None = None
    turn = asyncio.Lock()
    # Tasks instead of a group: a generator must not hold one open across its yields.
    try:
        while has_more or running:
            while has_more and len(running) < concurrency:
                group = _Group(most)
                try:
                    has_more = await _fill(group, numbered)
                except Exception as error:  # noqa: BLE001  # raised below, after what was predicted
                    has_more, failure = False, error
                if group.images:
                    work = _run(session, choice, config, group, turn, is_batch=True, timeout=None)
                    running.append(asyncio.create_task(work))
            if running:
                for result in await asyncio.shield(running[0]):
                    yield result
                running.popleft()
        if failure is not None:
            raise failure
    finally:
        for task in running:
            task.cancel()
        if running:
            await asyncio.gather(*running, return_exceptions=True)


async def _fill(group: _Group, numbered: Iterator[tuple[int, ImageSource]]) -> bool:
    """Add the next images, and return whether there may be more."""
    while not group.is_full:
        following = next(numbered, None)
        if following is None:
            return False
        number, image = following
        group.add(await _sent(image, f"image-{number}"))
    return True


async def _sent(image: ImageSource, name: str) -> SentImage:
    return await anyio.to_thread.run_sync(lambda: read_image(image, name, inline_bytes=MAX_INLINE_BYTES))


async def _run(
    session: Session,
    choice: CheckpointChoice,
    config: PredictConfig,
    group: _Group,
    turn: asyncio.Lock,
    *,
    is_batch: bool,
    timeout: float | None,
) -> tuple[PredictionResult, ...]:
    payload = PredictPayload(
        **choice.model_dump(), config=config.to_json(), images=tuple(group.images), is_batch=is_batch
    )

    async def create() -> AsyncJob[object]:
        async with turn:  # one after the other: the oldest is done first, and its results are awaited first
            dumped = payload.model_dump(mode="json")
            return await create_job(session, "predict", dumped, inputs=group.inputs, subject=choice.model_id)

    # Nobody else knows of this job: who stops waiting for it means that it shall stop, also while it is being made.
    creating = asyncio.create_task(create())
    try:
        done = await (await asyncio.shield(creating)).wait(timeout)
    except BaseException:  # cancelled, out of time, or failed: then cancelling does nothing
        with anyio.CancelScope(shield=True), anyio.move_on_after(_CANCEL_SECONDS), suppress(AsyncSDKError):
            await (await creating).cancel()
        raise
    outcome = PredictOutcome.model_validate(done.result)
    if len(outcome.results) != len(group.images):
        raise MalformedResponse(f"{len(group.images)} images were to be predicted, {len(outcome.results)} results came")
    return outcome.results
