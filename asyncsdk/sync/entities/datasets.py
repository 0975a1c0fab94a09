# Generated from asyncsdk/entities/datasets.py: change that file, then run
#     python -m asyncsdk.sync.generate

"""Datasets, and the verbs that move their items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from asyncsdk.domain.filters import Filter
from asyncsdk.engine import EventCallback, OutcomeCallback, ProgressCallback, Report
from asyncsdk.entities.datasets import AsyncDataset, AsyncDatasets
from asyncsdk.entities.downloading import OnExistingFile
from asyncsdk.entities.item_uploads import ItemSource
from asyncsdk.entities.rows import RowSource
from asyncsdk.entities.verifying import ComparisonCallback, Verification
from asyncsdk.protocol.datasets import DatasetKind, DatasetRecord
from asyncsdk.protocol.predictions import PredictionTaskRecord
from asyncsdk.protocol.projects import ProjectRecord
from asyncsdk.protocol.uploads import OnExisting
from asyncsdk.sync.bridge import on_caller, run
from asyncsdk.sync.entities.dataset_archives import DatasetArchive
from asyncsdk.sync.entities.items import Items
from asyncsdk.sync.entities.predictions import Predictions, PredictionTasks
from asyncsdk.sync.iterables import caller_iterable
from asyncsdk.sync.pages import Pages
from asyncsdk.sync.twins import BlockingRecord, BlockingTwin

__all__ = ["Dataset", "Datasets"]


class Dataset(DatasetArchive, BlockingRecord, DatasetRecord):
    """A dataset: its fields, and what can be done with it."""

    @property
    def _twin(self) -> AsyncDataset:
        return AsyncDataset._bind(self, self._client)

    @property
    def items(self) -> Items:
        """The items of this dataset."""
        return Items._of(self._twin.items)

    @property
    def prediction_tasks(self) -> PredictionTasks:
        """The prediction tasks of this dataset."""
        return PredictionTasks._of(self._twin.prediction_tasks)

    @property
    def predictions(self) -> Predictions:
        """The predictions stored for items of this dataset."""
        return Predictions._of(self._twin.predictions)

    def upload(
        self,
        source: ItemSource,
        *,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        on_existing: OnExisting = "skip_same",
        dry_run: bool = False,
        resume: bool | str = True,
        on_progress: ProgressCallback | None = None,
        on_outcome: OutcomeCallback | None = None,
        on_event: EventCallback | None = None,
    ) -> Report:
        """Upload files, bytes or streams as items of this dataset.

        Every object ends in exactly one outcome; one that fails does not stop the others. Items appear in batches as
        they are committed, each with all its bytes, durable when their outcome is there. Running the same call again
        sends only what is missing. Memory is bounded, whatever the number and size of objects.

        Args:
            source: A folder (walked lazily; hidden files included; links to files followed, to folders not), a file, an
                `ItemTable`, a mapping of columns or a data frame, or an iterable of `ItemUpload` or
                paths. An iterable is pulled as transfers need it, on the calling thread.
            include: Patterns as in `pathlib`; only paths that match one. None: all.
            exclude: Patterns; paths that match one, or lie in a folder that does, are left out.
            on_existing: ``skip_same`` leaves an item of equal size and crc32c untouched and replaces others;
                ``overwrite`` replaces; ``fail`` refuses.
            dry_run: Say what would be sent (outcomes ``skipped`` with reply ``would_send``) and change nothing.
            resume: Keep a journal below ``ASYNCSDK_HOME``, and go on with it after a kill: what has arrived is not sent
                again, an object in parts continues with those that are missing. A folder or file names the run; for
                other sources give a name of your own, or nothing is kept. False: keep none.
            on_progress: Told how far it is, at most every 0.1 s.
            on_outcome: Told every outcome; ``outcome.key`` of its transfer is a `PreparedItem`.
            on_event: Told everything that happens: retries, renewals, outcomes... (see `Event`).

        Returns:
            Counts, bytes, seconds, failures by kind and the first 1,000 in full; ``raise_for_failures()``.

        Raises:
            SourceNotFound: The folder or file is not there, or has nothing to upload.
            NotFound, Unauthenticated, PermissionDenied, Conflict: The dataset is gone, closed to you, or read-only.
            ConnectionFailed, RequestTimeout: The server went away for longer than `TransferConfig.outage_seconds`.
        """
        return run(
            self._twin.upload,
            caller_iterable(source),
            include=include,
            exclude=exclude,
            on_existing=on_existing,
            dry_run=dry_run,
            resume=resume,
            on_progress=on_caller(on_progress),
            on_outcome=on_caller(on_outcome),
            on_event=on_caller(on_event),
        )

    def download(
        self,
        destination: str | PathLike[str],
        *,
        filter: Filter | None = None,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        on_existing: OnExistingFile = "skip_same",
        dry_run: bool = False,
        resume: bool | str = True,
        on_progress: ProgressCallback | None = None,
        on_outcome: OutcomeCallback | None = None,
        on_event: EventCallback | None = None,
    ) -> Report:
        """Download items into a folder, byte for byte, each under its path.

        A file appears under its name only when all bytes are there and their checksum is right. Every item ends in
        exactly one outcome; one that fails does not stop the others. Memory is bounded.

        Args:
            destination: The folder; made when missing.
            filter: Which items; None for all.
            include: Patterns as in `pathlib`; only paths that match one. None: all.
            exclude: Patterns; paths that match one, or lie in a folder that does, are left out.
            on_existing: ``skip_same`` leaves a file of equal size and crc32c untouched and replaces others;
                ``overwrite`` replaces; ``fail`` refuses.
            dry_run: Say what would be fetched (outcomes ``skipped`` with reply ``would_fetch``) and change nothing.
            resume: Keep a journal below ``ASYNCSDK_HOME``, and go on with it after a kill: what has arrived is not
                fetched again, a half-received file continues with the ranges that are missing. The folder names the
                run, or a name of your own. False: keep none.
            on_progress: Told how far it is, at most every 0.1 s.
            on_outcome: Told every outcome; ``outcome.key`` of its transfer is the item's record.
            on_event: Told everything that happens: retries, renewals, outcomes... (see `Event`).

        Returns:
            Counts, bytes, seconds, failures by kind and the first 1,000 in full; ``raise_for_failures()``.

        Raises:
            NotFound, Unauthenticated, PermissionDenied: The dataset is gone or closed to you.
            ConnectionFailed, RequestTimeout: The server went away for longer than `TransferConfig.outage_seconds`.
        """
        return run(
            self._twin.download,
            destination,
            filter=filter,
            include=include,
            exclude=exclude,
            on_existing=on_existing,
            dry_run=dry_run,
            resume=resume,
            on_progress=on_caller(on_progress),
            on_outcome=on_caller(on_outcome),
            on_event=on_caller(on_event),
        )

    def verify(
        self,
        folder: str | PathLike[str],
        *,
        filter: Filter | None = None,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        on_progress: ProgressCallback | None = None,
        on_comparison: ComparisonCallback | None = None,
    ) -> Verification:
        """Compare a folder with the items of this dataset, without moving or changing anything.

        Both ways: items without a file, files without an item, and files whose size or crc32c is not the item's. Every
        file of the right size is read, many at once in threads. Objects are told in order of path. Memory is bounded,
        whatever their number and size.

        Args:
            folder: The folder; walked as for an upload (hidden files included; links to files followed, to folders
                not).
            filter: Which items; files without an item are then not looked for. None: all, and those files too.
            include: Patterns as in `pathlib`; only paths that match one, on both sides. None: all.
            exclude: Patterns; paths that match one, or lie in a folder that does, are left out on both sides.
            on_progress: Told how far it is, at most every 0.1 s; what differs counts as failed.
            on_comparison: Told what was found of every object.

        Returns:
            Counts, and the first 1,000 differences in full; ``ok``, ``raise_for_differences()``.

        Raises:
            SourceNotFound, SourceUnreadable: The folder is not there, or cannot be listed.
            NotFound, Unauthenticated, PermissionDenied: The dataset is gone or closed to you.
        """
        return run(
            self._twin.verify,
            folder,
            filter=filter,
            include=include,
            exclude=exclude,
            on_progress=on_caller(on_progress),
            on_comparison=on_caller(on_comparison),
        )

    def upload_predictions(
        self,
        task: PredictionTaskRecord | str,
        rows: RowSource,
        *,
        on_progress: ProgressCallback | None = None,
        on_event: EventCallback | None = None,
    ) -> Report:
        """Store prediction rows for items of this dataset; a row for an item replaces the earlier one.

        Few rows travel inside one message, many packed into parts of about 4 MiB. A bad row (unknown path or category,
        malformed) is a failure with its line, and does not stop the others. Durable when it returns.

        Args:
            task: The prediction task or its name.
            rows: A JSONL file, or an iterable of rows
                ``{"path": ..., "predictions": [{"category", "score", "bbox"?: [x, y, w, h] in pixels, ...}]}``.
            on_progress: Told how far the parts are; in parts and bytes, not rows.
            on_event: Told everything that happens to the parts (see `Event`).

        Returns:
            ``done`` counts rows stored, ``failed`` rows refused, with an `InvalidRow` for each of the first 1,000.

        Raises:
            NotFound: There is no such task.
            SourceNotFound, SourceUnreadable: The file is not there or cannot be read.
        """
        return run(
            self._twin.upload_predictions,
            task,
            caller_iterable(rows),
            on_progress=on_caller(on_progress),
            on_event=on_caller(on_event),
        )

    def refresh(self) -> Dataset:
        """Return the dataset as it is now."""
        return Dataset._of(run(self._twin.refresh))

    def update(
        self,
        *,
        name: str | None = None,
        description: str | None = None,
        is_readonly: bool | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Dataset:
        """Change the fields that are given and return the dataset as it is then.

        Raises:
            Conflict: The name is taken, or the dataset changed since it was read; ``refresh()`` and try again.
        """
        return Dataset._of(
            run(self._twin.update, name=name, description=description, is_readonly=is_readonly, metadata=metadata)
        )

    def delete(self, *, hard: bool = True) -> None:
        """Delete the dataset with its items and predictions; with ``hard=False`` put it out of reach until `restore`.

        Out of reach its name is still taken, and it takes no uploads.
        """
        run(self._twin.delete, hard=hard)

    def restore(self) -> Dataset:
        """Bring the dataset back after ``delete(hard=False)`` and return it.

        Raises:
            NotFound: It was deleted for good.
            Conflict: Its project is deleted; ``ids`` says which: restore that first.
        """
        return Dataset._of(run(self._twin.restore))


class Datasets(BlockingTwin[AsyncDatasets]):
    """The datasets of a platform."""

    def create(
        self,
        name: str,
        *,
        project: ProjectRecord | str | None = None,
        kind: DatasetKind = "files",
        description: str = "",
        metadata: Mapping[str, Any] | None = None,
        exist_ok: bool = False,
    ) -> Dataset:
        """Create a dataset.

        Args:
            name: Unique within the project, 1 to 255 characters.
            project: The project or its id; None: the default project.
            kind: What its items are: ``files``, ``images`` or ``videos``.
            description: Free text.
            metadata: JSON object of your own.
            exist_ok: Return the dataset of that name, unchanged, when there is one.

        Raises:
            Conflict: The name is taken in the project.
        """
        return Dataset._of(
            run(
                self._twin.create,
                name,
                project=project,
                kind=kind,
                description=description,
                metadata=metadata,
                exist_ok=exist_ok,
            )
        )

    def get(
        self,
        dataset: DatasetRecord | str | None = None,
        *,
        name: str | None = None,
        project: ProjectRecord | str | None = None,
    ) -> Dataset:
        """Return one dataset, by id, or by name within a project (None: the default project).

        Raises:
            NotFound: There is none.
        """
        return Dataset._of(run(self._twin.get, dataset, name=name, project=project))

    def exists(self, name: str, *, project: ProjectRecord | str | None = None) -> bool:
        """Whether a project (None: the default project) has a dataset of that name."""
        return run(self._twin.exists, name, project=project)

    def list(
        self,
        *,
        project: ProjectRecord | str | None = None,
        filter: Filter | None = None,
        sort: Sequence[str] = (),
        limit: int | None = None,
        deleted: bool = False,
    ) -> Pages[Dataset]:
        """List datasets, lazily, by name unless sorted otherwise.

        Args:
            project: Only those of a project; None for all.
            filter: Which ones; None for all.
            sort: Field names, ``-`` before one that goes down.
            limit: How many at most.
            deleted: List those that were deleted with ``hard=False`` instead.
        """
        return Pages(
            self._twin.list(project=project, filter=filter, sort=sort, limit=limit, deleted=deleted), Dataset._of
        )

    def delete(self, dataset: DatasetRecord | str, *, hard: bool = True) -> None:
        """Delete a dataset with its items and predictions; with ``hard=False`` put it out of reach until `restore`."""
        run(self._twin.delete, dataset, hard=hard)

    def restore(self, dataset: DatasetRecord | str) -> Dataset:
        """Bring a dataset back after ``delete(hard=False)``; as `Dataset.restore`."""
        return Dataset._of(run(self._twin.restore, dataset))

    def from_json(self, data: Mapping[str, Any]) -> Dataset:
        """Return the dataset that ``to_json`` wrote, without a request."""
        return Dataset._of(self._twin.from_json(data))
