"""Checkpoints, archives and project images: forms that the engine streams, and weights that are read by signed URLs.

The service is told of weights together with their bytes, and answers once it has both: committing looks whether it
says so afterwards. It lists no checkpoints; its best and its last ones are found, with size and checksum as whoever
stores them tells them. They are known by ids of this client, which say where the bytes are.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from asyncsdk.domain.ids import make_id
from asyncsdk.errors import MalformedResponse, NotFound, PermissionDenied, UnsupportedOperation
from asyncsdk.platforms.ultralytics.calls import Calls
from asyncsdk.platforms.ultralytics.records import (
    NAME,
    check_expressible,
    dataset_record,
    model_record,
    project_record,
    time_of,
)
from asyncsdk.protocol.archives import (
    ArchiveRecord,
    CommitArchive,
    PrepareArchive,
    PrepareArchiveDownload,
    PreparedArchiveDownload,
)
from asyncsdk.protocol.checkpoints import (
    CheckpointRecord,
    CommitCheckpoint,
    FindCheckpoint,
    GetCheckpoint,
    PrepareCheckpoint,
    PrepareCheckpointDownload,
    PreparedCheckpointDownload,
)
from asyncsdk.protocol.projects import CommitProjectImage, PrepareProjectImage, ProjectRecord
from asyncsdk.protocol.uploads import PreparedUpload, RenewedUploads, RenewUploads
from asyncsdk.targets import FormTarget, UrlOrigin
from asyncsdk.wires.ultralytics import paths
from asyncsdk.wires.ultralytics.entities import EntityData, ObjectFacts
from asyncsdk.wires.ultralytics.forms import PROJECT_IMAGE_FIELD, WeightsForm

__all__ = ["Weights"]

_MOST_PENDING = 10_000
"""Uploads that are remembered; of more the oldest begin anew when they are to be renewed or committed."""

_SUCCESS = (200, 201)

BEST_SECONDS = 5.0
"""How long the best weights are taken to be the best."""


class Weights:
    """Uploads and downloads of models and projects.

    Args:
        calls: Sends the requests.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._pending: OrderedDict[str, tuple[str, FormTarget]] = OrderedDict()
        self._best = ("", "", 0.0)
        self._told: dict[str, ObjectFacts] = {}  # by the URLs of the last answer

    async def prepare(self, message: PrepareCheckpoint) -> PreparedUpload:
        """Return the form that takes weights of a model that is there.

        Raises:
            NotFound: There is no such model.
            UnsupportedOperation: They belong to no epoch, or have metrics or metadata that the form has no field for.
        """
        check_expressible(message, {"model_id", "size_bytes", "crc32c", "epoch", "is_best", "is_final", "metrics"})
        if message.epoch is None:
            raise UnsupportedOperation(NAME, "PrepareCheckpoint without epoch")
        if strange := sorted(message.metrics.keys() - ({"map"} if message.is_final else set())):
            raise UnsupportedOperation(NAME, f"PrepareCheckpoint with metrics {', '.join(strange)[:200]}")
        form = WeightsForm(
            message.epoch,
            is_final=message.is_final,
            is_best=message.is_best or message.is_final,
            map=message.metrics.get("map", 0.0),
        )
        await self._calls.call("GET", paths.entity_path("models", message.model_id), model_record)
        target = self._form(
            paths.upload_path("models", message.model_id),
            fields=form.to_fields(),
            file_field=form.file_name,
            file_name=form.file_name,
        )
        return self._prepared(message.model_id, target)

    async def commit(self, message: CommitCheckpoint) -> CheckpointRecord:
        """Return the record of weights that were sent, once the service says that it has some.

        Raises:
            NotFound: They were not prepared by this client.
            MalformedResponse: It says that it has none.
        """
        target = self._known(message.key, message.model_id)
        model, urls = await self._urls(message.model_id)
        self._note_best(message.model_id, urls)
        if not (model.has_final or model.has_best if message.is_final else model.has_last or model.has_best):
            raise MalformedResponse("the service took the weights, and says now that the model has none")
        now = datetime.now(UTC)
        url = urls.get("best" if message.is_final else "last")
        return CheckpointRecord(
            id=message.checkpoint_id if url is None else _id_of_url(url),
            created_at=now,
            updated_at=now,
            model_id=message.model_id,
            filename=target.file_name or "",
            epoch=message.epoch,
            is_best=message.is_best or message.is_final,
            is_final=message.is_final,
            metrics=message.metrics,
            size_bytes=message.size_bytes,
            crc32c=message.crc32c,
            etag="",
        )

    async def prepare_image(self, message: PrepareProjectImage) -> PreparedUpload:
        """Return the form that takes the image of a project that is there."""
        await self._calls.call("GET", paths.entity_path("projects", message.project_id), project_record)
        path = paths.upload_path("projects", message.project_id)
        return self._prepared(message.project_id, self._form(path, file_field=PROJECT_IMAGE_FIELD))

    async def commit_image(self, message: CommitProjectImage) -> ProjectRecord:
        """Return the project whose image was sent.

        Raises:
            NotFound: The service says that it has no image, or it was not prepared by this client.
        """
        self._known(message.key, message.project_id)
        path = paths.entity_path("projects", message.project_id)
        record = await self._calls.call("GET", path, project_record)
        if record.image_filename is None:
            raise NotFound("these bytes never arrived; upload again")
        return record

    async def prepare_archive(self, message: PrepareArchive) -> PreparedUpload:
        """Return the form that takes the archive of a dataset that is there.

        Raises:
            UnsupportedOperation: Its name is not told: the service is told it with the bytes. Or a job is wanted that
                unpacks it: the service unpacks by itself, and says nothing of it.
        """
        check_expressible(message, {"dataset_id", "size_bytes", "crc32c", "filename"})
        if message.filename is None:
            raise UnsupportedOperation(NAME, "PrepareArchive without filename")
        await self._calls.call("GET", paths.entity_path("datasets", message.dataset_id), dataset_record)
        path = paths.upload_path("datasets", message.dataset_id)
        target = self._form(path, file_field=message.filename, file_name=message.filename)
        return self._prepared(message.dataset_id, target)

    async def commit_archive(self, message: CommitArchive) -> ArchiveRecord:
        """Return the record of an archive that was sent, once the service says where it is.

        Raises:
            NotFound: It was not prepared by this client.
            MalformedResponse: The service says of no archive.
        """
        self._known(message.key, message.dataset_id)
        told = await self._archive(message.dataset_id)
        if told.url is None:
            raise MalformedResponse("the service took the archive, and says now that the dataset has none")
        facts = {name: getattr(message, name) for name in ("dataset_id", "filename", "size_bytes", "crc32c")}
        return ArchiveRecord(**facts, etag="")

    async def prepare_archive_download(self, message: PrepareArchiveDownload) -> PreparedArchiveDownload:
        """Return where the archive of a dataset can be read for a while.

        Raises:
            NotFound: It has none.
        """
        told = await self._archive(message.dataset_id)
        if told.url is None:
            raise NotFound(f"dataset {message.dataset_id} has no archive")
        if told.url_object is not None:
            facts = {"size_bytes": told.url_object.size_bytes, "crc32c": told.url_object.crc32c}
        else:
            headers = await self._calls.head(told.url)
            size = headers.get("content-length", "")
            facts = {
                "size_bytes": int(size) if size.isdigit() else None,
                "crc32c": _crc32c_of(headers),
                "etag": headers.get("etag"),
            }
        origin = UrlOrigin(told.url, **facts)  # type: ignore[arg-type]  # names and values belong together
        return PreparedArchiveDownload(origin=origin, filename=f"{message.dataset_id}.zip")

    async def _archive(self, dataset_id: str) -> EntityData:
        return await self._calls.call("GET", paths.entity_path("datasets", dataset_id), EntityData.from_data)

    async def renew(self, message: RenewUploads) -> RenewedUploads:
        """Return forms that were prepared before.

        Raises:
            NotFound: One was not, or not by this client.
        """
        return RenewedUploads(targets=tuple(self._known(entry.key, message.scope_id) for entry in message.entries))

    async def find(self, message: FindCheckpoint) -> CheckpointRecord:
        """Return the best, last or final weights of a model.

        Raises:
            NotFound: There are none.
            UnsupportedOperation: Those of an epoch are asked for, or nobody tells a checksum.
        """
        if message.which is None:
            raise UnsupportedOperation(NAME, "FindCheckpoint with epoch")
        model, urls = await self._urls(message.model_id)
        url = urls.get("last" if message.which == "last" else "best")
        if url is None or (message.which == "final" and not model.has_final):
            raise NotFound(f"model {message.model_id} has no checkpoint that is its {message.which}")
        self._note_best(message.model_id, urls)
        return await self._record(message.model_id, message.which, url, model.has_final)

    async def get(self, message: GetCheckpoint) -> CheckpointRecord:
        """Return weights that were found before."""
        record, _ = await self._found(message.model_id, message.checkpoint_id)
        return record

    async def _found(self, model_id: str, checkpoint_id: str) -> tuple[CheckpointRecord, str]:
        model, urls = await self._urls(model_id)
        for which, url in urls.items():
            if _id_of_url(url) == checkpoint_id:
                return await self._record(model_id, which, url, model.has_final), url
        raise NotFound(f"model {model_id} has no checkpoint {checkpoint_id} any more")

    async def prepare_download(self, message: PrepareCheckpointDownload) -> PreparedCheckpointDownload:
        """Return where weights that were found before can be read for a while."""
        record, url = await self._found(message.model_id, message.checkpoint_id)
        origin = UrlOrigin(url, size_bytes=record.size_bytes, crc32c=record.crc32c, etag=record.etag or None)
        return PreparedCheckpointDownload(origin=origin)

    async def predicts(self, model_id: str, checkpoint_id: str) -> bool:
        """Whether predictions of a model are made with these weights: its best ones, without those the last.

        What was seen within `BEST_SECONDS` counts: whoever looks for the weights and predicts then asks but once. The
        wire cannot name weights, so that they may be replaced after any look.
        """
        known, best, seen = self._best
        if (known, best) != (model_id, checkpoint_id) or time.monotonic() > seen + BEST_SECONDS:
            _, urls = await self._urls(model_id)
            best = self._note_best(model_id, urls)
        return best == checkpoint_id

    def _note_best(self, model_id: str, urls: Mapping[str, str]) -> str:
        """Keep which weights of a model are the best now, and return their id; empty when there are none."""
        url = urls.get("best", urls.get("last"))
        best = "" if url is None else _id_of_url(url)
        self._best = (model_id, best, time.monotonic())
        return best

    async def _urls(self, model_id: str) -> tuple[Any, dict[str, str]]:
        def read(data: Any) -> tuple[Any, dict[str, str]]:
            told = EntityData.from_data(data, is_model=True)
            pairs = {"best": (told.weights_url, told.weights_object), "last": (told.resume_url, told.resume_object)}
            self._told = {url: facts for url, facts in pairs.values() if url is not None and facts is not None}
            return model_record(data), {which: url for which, (url, _) in pairs.items() if url is not None}

        return await self._calls.call("GET", paths.entity_path("models", model_id), read)

    async def _record(self, model_id: str, which: str, url: str, has_final: bool) -> CheckpointRecord:
        facts, etag = self._told.get(url), ""
        if facts is None:
            headers = await self._calls.head(url)
            crc32c, etag = _crc32c_of(headers), headers.get("etag", "")
            if crc32c is None:
                raise UnsupportedOperation(NAME, "FindCheckpoint (nobody tells the checksum of these weights)")
            facts = ObjectFacts(int(headers["content-length"]), crc32c)
        return CheckpointRecord(
            id=_id_of_url(url),
            created_at=time_of(None),
            updated_at=time_of(None),
            model_id=model_id,
            filename="last.pt" if which == "last" else "best.pt",
            is_best=which != "last",
            is_final=which == "final" or (which == "best" and has_final),
            size_bytes=facts.size_bytes,
            crc32c=facts.crc32c,
            etag=etag,
        )

    def _form(
        self,
        path: str,
        *,
        file_field: str,
        file_name: str | None = None,
        fields: tuple[tuple[str, str], ...] = (),
    ) -> FormTarget:
        return FormTarget(
            self._calls.url + path,
            fields=fields,
            file_field=file_field,
            file_name=file_name,
            headers=self._calls.key_headers,
            success=_SUCCESS,
        )

    def _prepared(self, scope_id: str, target: FormTarget) -> PreparedUpload:
        key = f"{make_id()}-{secrets.token_hex(16)}"
        self._pending[key] = (scope_id, target)
        if len(self._pending) > _MOST_PENDING:
            self._pending.popitem(last=False)
        return PreparedUpload(verdict="upload", key=key, target=target)

    def _known(self, key: str, scope_id: str) -> FormTarget:
        prepared_for, target = self._pending.get(key, ("", None))
        if target is None:
            raise NotFound("this upload was not prepared by this client; upload again")
        if prepared_for != scope_id:
            raise PermissionDenied("this upload was prepared for another place; prepare it again")
        return target


def _id_of_url(url: str) -> str:
    """Return the id of what a signed URL leads to: the same for every signature."""
    return hashlib.sha256(urlsplit(url)._replace(query="").geturl().encode()).hexdigest()[:24]


def _crc32c_of(headers: httpx.Headers) -> str | None:
    """Return the checksum that a store tells of an object, eight hexadecimal digits."""
    told = headers.get("x-amz-checksum-crc32c", "")
    for part in headers.get("x-goog-hash", "").split(","):
        if part.strip().startswith("crc32c="):
            told = told or part.strip().removeprefix("crc32c=")
    try:
        value = base64.b64decode(told, validate=True)
    except (binascii.Error, ValueError):
        return None
    return value.hex() if len(value) == 4 and "content-length" in headers else None
