"""The archive of a dataset: one zip that holds all of it, and the job that makes items and annotations of it."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any, Literal, overload

from asyncsdk.engine import EventCallback, ProgressCallback
from asyncsdk.entities.annotations import AsyncAnnotations
from asyncsdk.entities.archive_transfers import download_archive, upload_archive
from asyncsdk.entities.base import BoundRecord
from asyncsdk.entities.job_results import job_result
from asyncsdk.entities.jobs import AsyncJob, create_job
from asyncsdk.protocol.archives import UNPACK_KIND, UnpackedArchive, UnpackPayload
from asyncsdk.protocol.datasets import DatasetRecord

__all__ = ["AsyncDatasetArchive"]


class AsyncDatasetArchive(BoundRecord, DatasetRecord):
    """What a dataset does with its archive, and the annotations that come of it."""

    @property
    def annotations(self) -> AsyncAnnotations:
        """The annotations of the items of this dataset."""
        return AsyncAnnotations(self._client, self.id)

    @overload
    async def upload_archive(
        self,
        path: str | PathLike[str],
        *,
        unpack: Literal[True] = True,
        resume: bool | str = True,
        on_progress: ProgressCallback | None = None,
        on_event: EventCallback | None = None,
    ) -> AsyncJob[UnpackedArchive]: ...

    @overload
    async def upload_archive(
        self,
        path: str | PathLike[str],
        *,
        unpack: Literal[False],
        resume: bool | str = True,
        on_progress: ProgressCallback | None = None,
        on_event: EventCallback | None = None,
    ) -> None: ...

    async def upload_archive(
        self,
        path: str | PathLike[str],
        *,
        unpack: bool = True,
        resume: bool | str = True,
        on_progress: ProgressCallback | None = None,
        on_event: EventCallback | None = None,
    ) -> AsyncJob[UnpackedArchive] | None:
        """Upload a zip as the archive of this dataset, and have it unpacked into items and annotations.

        The archive is streamed and verified, durable before the job begins, and takes the place of an earlier one.
        Running it again with the same file sends nothing, and unpacks again, to the same end.

        Files become items under the paths that they have in the archive; the one folder that a dataset was packed with
        (``coco8/`` of ``coco8/data.yaml``) is left out. In the layout of YOLO, ``labels/train/a.txt`` becomes
        annotations of ``images/train/a.jpg`` with relative coordinates, named by the ``names`` of the YAML, and items
        know their ``split`` (metadata). Entries with dangerous names, and lines that are no labels, are refused one by
        one and told in the result; a zip bomb fails the job.

        Args:
            path: The zip; stored or deflated, not encrypted.
            unpack: False: only keep the archive; `unpack_archive` makes items of it later.
            resume: As for `upload`: after a kill, the parts that are missing are sent.
            on_progress: Told how far the upload is, at most every 0.1 s.
            on_event: Told everything that happens (see `Event`).

        Returns:
            The job; awaited, it gives the counts and what was refused. None when it is not to be unpacked.

        Raises:
            SourceNotFound, SourceUnreadable: The file is not there or cannot be read.
            InvalidArchive: It is no zip.
            Conflict: The dataset is read-only.
            NoWorker: Nobody unpacks: the message says what to install. The archive is there; `unpack_archive` later.
            UnsupportedOperation: The platform has no such jobs; nothing was sent. It may unpack by itself whatever it
                gets: give ``unpack=False``.
        """
        payload = await upload_archive(
            self._client, self.id, path, unpack=unpack, resume=resume, on_progress=on_progress, on_event=on_event
        )
        return await self._unpack(payload) if unpack else None

    async def unpack_archive(self) -> AsyncJob[UnpackedArchive]:
        """Make items and annotations of the archive that this dataset has, as `upload_archive` says.

        Returns:
            The job; awaited, it gives the counts and what was refused.

        Raises:
            NotFound: The dataset is gone. That it has no archive fails the job.
            NoWorker: Nobody unpacks: the message says what to install.
        """
        return await self._unpack(UnpackPayload(dataset_id=self.id))

    async def _unpack(self, payload: UnpackPayload) -> AsyncJob[UnpackedArchive]:
        return await create_job(self._client, UNPACK_KIND, payload.model_dump(mode="json"), subject=self)

    async def download_archive(
        self,
        destination: str | PathLike[str],
        *,
        resume: bool | str = True,
        on_progress: ProgressCallback | None = None,
        on_event: EventCallback | None = None,
    ) -> Path:
        """Download the archive as it was uploaded, byte for byte, and return where it is.

        The file appears under its name only when all bytes are there and their checksum is right.

        Args:
            destination: The file; in a folder that exists, it takes the name that it was uploaded with.
            resume: As for `download`: after a kill, the ranges that are missing are fetched.
            on_progress: Told how far it is, at most every 0.1 s.
            on_event: Told everything that happens (see `Event`).

        Raises:
            NotFound: The dataset has no archive.
            DestinationFull, DestinationUnwritable: It cannot be written there.
        """
        return await download_archive(
            self._client, self.id, destination, resume=resume, on_progress=on_progress, on_event=on_event
        )


@job_result(UNPACK_KIND)
def _unpacked(job: AsyncJob[Any]) -> UnpackedArchive:
    return UnpackedArchive.model_validate(job.result)
