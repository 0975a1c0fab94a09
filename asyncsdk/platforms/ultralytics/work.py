"""Predictions and exports.

The service predicts while it is waited for: the job is over when creating it answers, and this client keeps what came
of it. Of an export it tells the id alone.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio.to_thread

from asyncsdk.domain.ids import make_id
from asyncsdk.domain.predicting import PredictConfig
from asyncsdk.domain.results import PredictionProblem, PredictionResult
from asyncsdk.errors import BadRequest, NotFound, ServerError, UnsupportedOperation
from asyncsdk.platforms.ultralytics.calls import Calls
from asyncsdk.platforms.ultralytics.records import NAME, check_expressible
from asyncsdk.platforms.ultralytics.weights import Weights
from asyncsdk.protocol.base import Problem
from asyncsdk.protocol.jobs import CreateJob, GetJob, JobInput, JobRecord, PrepareJobInputs
from asyncsdk.protocol.model_work import GivenImage, PredictOutcome, PredictPayload
from asyncsdk.protocol.uploads import PreparedUpload, PreparedUploads
from asyncsdk.targets import FileTarget
from asyncsdk.wires.ultralytics import paths
from asyncsdk.wires.ultralytics.forms import IMAGE_FIELD
from asyncsdk.wires.ultralytics.work import predict_from_data

__all__ = ["Work"]

_MOST_KEPT = 1_000
"""Jobs whose results are kept; of more the oldest are forgotten."""

_OF_THE_JOB = frozenset({422, 502})
"""Statuses that tell of the work and not of the request."""

_NO_ID = "0" * 24


class Work:
    """Jobs of models.

    Args:
        calls: Sends the requests.
        weights: Knows which are the best.
    """

    def __init__(self, calls: Calls, weights: Weights) -> None:
        self._calls = calls
        self._weights = weights
        self._jobs: OrderedDict[str, JobRecord] = OrderedDict()
        self._folder: Path | None = None

    async def create(self, message: CreateJob) -> JobRecord:
        """Have images predicted, one after the other, and return the job, which is over.

        The same ``job_id`` again gives the same job.

        Raises:
            UnsupportedOperation: It is no prediction of given images, or asks for other weights than the best.
        """
        check_expressible(message, {"job_id", "kind", "payload", "subject_id", "inputs"})
        if message.job_id in self._jobs:
            return self._jobs[message.job_id]
        if message.kind != "predict":
            raise UnsupportedOperation(NAME, f"CreateJob of the kind {message.kind}")
        payload = PredictPayload(**message.payload)
        checkpoint_id = payload.checkpoint_id
        if (
            payload.checkpoint != "best"
            if checkpoint_id is None
            else not await self._weights.predicts(payload.model_id, checkpoint_id)
        ):
            raise UnsupportedOperation(NAME, "CreateJob of the kind predict with another checkpoint than the best")
        if payload.items is not None or not payload.images:
            raise UnsupportedOperation(NAME, "CreateJob of the kind predict without images of its own")
        began = datetime.now(UTC)
        found: dict[str, Any]
        try:
            results = [await self._result(payload, image, message.inputs) for image in payload.images]
            outcome = PredictOutcome(checkpoint_id=_NO_ID, checkpoint_crc32c="0" * 8, results=tuple(results))
            found = {"status": "succeeded", "result": outcome.model_dump(mode="json")}
        except (BadRequest, ServerError) as error:
            if error.status not in _OF_THE_JOB:
                raise
            found = {"status": "failed", "error": Problem.of(error)}
        job = _record(message, began, found)
        self._jobs[message.job_id] = job
        if len(self._jobs) > _MOST_KEPT:
            self._jobs.popitem(last=False)
        return job

    async def prepare_inputs(self, message: PrepareJobInputs) -> PreparedUploads:
        """Return files of this machine that keep images too large for a payload until they are predicted."""
        if self._folder is None:
            self._folder = Path(await anyio.to_thread.run_sync(tempfile.mkdtemp, None, "asyncsdk-"))
        entries = []
        for _ in message.entries:
            object_id = make_id()
            target = FileTarget(self._folder, object_id)
            entries.append(PreparedUpload(verdict="upload", key=f"{object_id}-{secrets.token_hex(16)}", target=target))
        return PreparedUploads(entries=tuple(entries))

    async def aclose(self) -> None:
        """Remove files that were never predicted."""
        folder, self._folder = self._folder, None
        if folder is not None:
            await anyio.to_thread.run_sync(shutil.rmtree, folder, True)

    async def _bytes_of(self, image: GivenImage, inputs: Sequence[JobInput]) -> bytes:
        if image.data is not None:
            return _decoded(image.data)
        given = next((one for one in inputs if one.name == image.input), None)
        if given is None or self._folder is None:
            raise BadRequest(f"the job has no input {image.input!r}")
        path = FileTarget(self._folder, given.key[:24]).path(given.crc32c)
        try:
            data = await anyio.to_thread.run_sync(path.read_bytes)
        except FileNotFoundError:
            raise NotFound("these bytes never arrived; upload again") from None
        await anyio.to_thread.run_sync(path.unlink, True)
        return data

    async def get(self, message: GetJob) -> JobRecord:
        """Return a job that this client created."""
        job = self._jobs.get(message.job_id)
        if job is None:
            raise NotFound(f"there is no job {message.job_id}; jobs are known to the client that created them")
        return job

    async def _result(self, payload: PredictPayload, image: GivenImage, inputs: Sequence[JobInput]) -> PredictionResult:
        data = await self._bytes_of(image, inputs)
        try:
            return await self._predict(payload, data, image.name)
        except BadRequest as error:
            if not payload.is_batch or error.status not in _OF_THE_JOB:
                raise
            problem = PredictionProblem(code=error.server_code or error.code, message=str(error.args[0]))
            return PredictionResult(image=image.name, problem=problem)

    async def _predict(self, payload: PredictPayload, image: bytes, name: str) -> PredictionResult:
        config = PredictConfig.parse(payload.config)
        fields = {name: value for name, value in config.to_json().items() if value is not None}
        if isinstance(fields.get("size"), list):
            height, width = fields["size"]
            if height != width:
                raise UnsupportedOperation(NAME, "CreateJob of the kind predict with a size that is no square")
            fields["size"] = height
        content = _form({name: str(value) for name, value in fields.items()}, image)
        path = paths.predict_path(payload.model_id)
        return await self._calls.call("POST", path, lambda data: predict_from_data(data, image=name), content=content)


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("the image is not base64") from None


def _form(fields: dict[str, str], image: bytes) -> tuple[str, bytes]:
    """Return type and bytes of the form: the fields, then the image."""
    boundary = secrets.token_hex(16)
    lines = []
    for name, text in fields.items():
        lines += [f"--{boundary}", f'Content-Disposition: form-data; name="{name}"', "", text]
    lines += [
        f"--{boundary}",
        f'Content-Disposition: form-data; name="{IMAGE_FIELD}"; filename="{IMAGE_FIELD}"',
        "",
        "",
    ]
    body = "\r\n".join(lines).encode() + image + f"\r\n--{boundary}--\r\n".encode()
    return f"multipart/form-data; boundary={boundary}", body


def _record(message: CreateJob, began: datetime, found: dict[str, Any]) -> JobRecord:
    now = datetime.now(UTC)
    return JobRecord(
        id=message.job_id,
        created_at=began,
        updated_at=now,
        kind=message.kind,
        subject_id=message.subject_id,
        attempts=1,
        max_attempts=1,
        started_at=began,
        ended_at=now,
        progress=1.0,
        **found,
    )
