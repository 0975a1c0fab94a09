"""Export and predict: jobs of the platform's queue. An export is answered when it is queued, a prediction when done.

The wire has no way to ask for a job again; who wants the result of an export looks for the job's id, which the answer
gives, through the platform's own API.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack

import anyio

from asyncsdk.domain.exporting import export_format
from asyncsdk.domain.ids import make_id
from asyncsdk.domain.images import MAX_IMAGE_BYTES
from asyncsdk.domain.predicting import PredictConfig
from asyncsdk.errors import BadRequest, InvalidImage, InvalidModel, NotFound, ServerError
from asyncsdk.protocol.jobs import (
    FINISHED,
    CancelJob,
    CreateJob,
    GetJob,
    JobInput,
    JobRecord,
    PlannedInput,
    PrepareJobInputs,
)
from asyncsdk.protocol.model_work import (
    MAX_INLINE_BYTES,
    ExportPayload,
    GivenImage,
    PredictOutcome,
    PredictPayload,
)
from asyncsdk.protocol.models import GetModel
from asyncsdk.server.doors.forms import FileHead, read_form
from asyncsdk.server.doors.host import Answer, Visit
from asyncsdk.server.doors.routes import Routes
from asyncsdk.server.doors.staging import StagedFile
from asyncsdk.server.doors.ultralytics.entities import known_id
from asyncsdk.wires.ultralytics import paths
from asyncsdk.wires.ultralytics.forms import IMAGE_FIELD
from asyncsdk.wires.ultralytics.work import export_format_of, predict_data

__all__ = ["PREDICT_SECONDS", "add_routes"]

PREDICT_SECONDS = 60.0
"""How long a prediction is waited for; then its job is cancelled. The first one of a model has to load it."""

_FIRST_WAIT_SECONDS = 0.01
_LONGEST_WAIT_SECONDS = 0.25

_CALLERS_FAULT = frozenset({BadRequest.code, InvalidImage.code, InvalidModel.code, NotFound.code, "config"})
"""Codes of errors that a job ends with because of what it was given."""


def add_routes(routes: Routes) -> None:
    """Add what answers for export and predict."""
    routes.add("POST", paths.export_path("{model_id}"), _export)
    routes.add("POST", paths.predict_path("{model_id}"), _predict)


async def _export(visit: Visit, model_id: str) -> Answer:
    chosen = export_format(export_format_of(await visit.json()))
    model = await visit.send(GetModel(model_id=known_id(model_id, "model")))
    payload = ExportPayload(model_id=model.id, format=chosen.name)
    job = await visit.send(
        CreateJob(job_id=make_id(), kind="export", payload=payload.model_dump(mode="json"), subject_id=model.id)
    )
    return Answer(paths.answer({"id": job.id, "format": chosen.name, "status": job.status}, "the export is queued"))


class _Image:
    """Takes an image: small ones into memory, larger ones into the object store as an input of the job."""

    def __init__(self, visit: Visit, stack: AsyncExitStack, job_id: str) -> None:
        self._visit = visit
        self._stack = stack
        self._job_id = job_id
        self._data = bytearray()
        self.staged: StagedFile | None = None

    async def write(self, data: bytes) -> None:
        if self.staged is None:
            self._data += data
            if len(self._data) <= MAX_INLINE_BYTES:
                return
            message = PrepareJobInputs(job_id=self._job_id, entries=(PlannedInput(name=IMAGE_FIELD),))
            prepared = (await self._visit.send(message, to_files=True)).entries[0]
            staged = StagedFile(self._visit.host, prepared, max_bytes=MAX_IMAGE_BYTES)
            self.staged = await self._stack.enter_async_context(staged)
            data, self._data = bytes(self._data), bytearray()
        await self.staged.write(data)

    def given(self) -> GivenImage:
        if self.staged is not None:
            return GivenImage(name=IMAGE_FIELD, input=IMAGE_FIELD)
        return GivenImage(name=IMAGE_FIELD, data=base64.b64encode(self._data).decode())


async def _predict(visit: Visit, model_id: str) -> Answer:
    model = await visit.send(GetModel(model_id=known_id(model_id, "model")))
    job_id = make_id()
    async with AsyncExitStack() as stack:
        image = _Image(visit, stack, job_id)

        async def take(head: FileHead, fields: Mapping[str, str]) -> _Image:
            return image

        fields = await read_form(visit.scope, visit.receive, take)
        config = PredictConfig.parse(fields)
        payload = PredictPayload(model_id=model.id, config=config.to_json(), images=(image.given(),))
        facts = {
            "job_id": job_id,
            "kind": "predict",
            "payload": payload.model_dump(mode="json"),
            "subject_id": model.id,
        }
        if image.staged is None:
            job = await visit.send(CreateJob(**facts))
        else:
            crc32c = await image.staged.finish()
            told = JobInput(name=IMAGE_FIELD, key=image.staged.key, size_bytes=image.staged.size_bytes, crc32c=crc32c)
            job = await image.staged.commit(visit, CreateJob(**facts, inputs=(told,)))
    outcome = PredictOutcome.model_validate((await _finished(visit, job)).result)
    return Answer(paths.answer(predict_data(outcome.results[0]), "the image is predicted"))


async def _finished(visit: Visit, job: JobRecord) -> JobRecord:
    """Return *job* when it succeeded.

    Raises:
        BadRequest: It failed because of what it was given (422).
        ServerError: It failed otherwise, or takes too long (504).
    """
    deadline = time.monotonic() + PREDICT_SECONDS
    wait = _FIRST_WAIT_SECONDS
    while job.status not in FINISHED:
        if time.monotonic() > deadline:
            await visit.send(CancelJob(job_id=job.id))
            raise ServerError(
                f"the prediction took longer than {PREDICT_SECONDS:g} s and was cancelled (job {job.id})",
                status=504,
                code="job_timeout",
            )
        await anyio.sleep(wait)
        wait = min(wait * 1.5, _LONGEST_WAIT_SECONDS)
        job = await visit.send(GetJob(job_id=job.id, brief=True))
    if job.status == "succeeded":
        return await visit.send(GetJob(job_id=job.id))
    reason = job.error.message if job.error is not None else job.status
    if job.error is not None and job.error.code in _CALLERS_FAULT:
        raise BadRequest(f"the image is not predicted: {reason}", status=422, code=job.error.code)
    raise ServerError(f"the image is not predicted: {reason} (job {job.id})", status=502, code="job_failed")
