"""What ``dataset.upload`` and ``dataset.download`` do, and what a retry does: the same run, with fewer objects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from os import PathLike
from pathlib import Path

from asyncsdk.domain.filters import Filter
from asyncsdk.engine import EventCallback, OutcomeCallback, ProgressCallback, Report
from asyncsdk.engine.journal import RetriedReport
from asyncsdk.entities.download_books import DownloadBooks
from asyncsdk.entities.downloading import ItemDownloadFeed, OnExistingFile
from asyncsdk.entities.globs import PathFilter
from asyncsdk.entities.item_source import batches_of
from asyncsdk.entities.item_uploads import ItemSource
from asyncsdk.entities.patience import patient
from asyncsdk.entities.resuming import check_resume, keeping, named_path, run_record
from asyncsdk.entities.session import Session
from asyncsdk.entities.upload_books import UploadBooks
from asyncsdk.entities.uploading import ItemUploadFeed
from asyncsdk.errors import ConfigError
from asyncsdk.protocol.uploads import OnExisting

__all__ = ["download_items", "upload_items"]


async def upload_items(
    session: Session,
    dataset_id: str,
    source: ItemSource,
    *,
    include: Sequence[str] | None,
    exclude: Sequence[str] | None,
    on_existing: OnExisting,
    dry_run: bool,
    resume: bool | str,
    on_progress: ProgressCallback | None,
    on_outcome: OutcomeCallback | None,
    on_event: EventCallback | None,
    place: str | PathLike[str] | None = None,
    retried: RetriedReport | None = None,
) -> Report:
    """Do what `AsyncDataset.upload` says.

    Args:
        place: Folder or file that *source* is a part of, and that names the run; None: *source* does.
        retried: The report that says which part.
    """
    if on_existing not in {"skip_same", "overwrite", "fail"}:
        raise ConfigError(f"on_existing is 'skip_same', 'overwrite' or 'fail', not {on_existing!r}")
    nothing = None
    if isinstance(source, (str, PathLike)):
        matching = " that matches include and exclude" if include or exclude else ""
        nothing = f"{source}: holds no file{matching}; nothing to upload"
    check_resume(resume)
    batches = batches_of(source, PathFilter(include, exclude))
    record = run_record(
        session,
        "upload",
        None if dry_run else named_path(source if place is None else place, resume),
        identity={"dataset": dataset_id, "on_existing": on_existing},
        arguments={
            "dataset": dataset_id,
            "on_existing": on_existing,
            "include": include and list(include),
            "exclude": exclude and list(exclude),
        },
        retried=retried,
    )
    async with keeping(session.settings, record, on_event) as kept:
        books = None if kept.journal is None else UploadBooks(kept.journal)
        feed = ItemUploadFeed(
            patient(session),
            dataset_id,
            batches,
            on_existing=on_existing,
            dry_run=dry_run,
            nothing=nothing,
            books=books,
        )
        try:
            report = await session.engine.collect(
                feed, on_progress=on_progress, on_outcome=on_outcome, on_event=on_event
            )
            kept.ended(report)
            return report
        finally:
            await feed.aclose()


async def download_items(
    session: Session,
    dataset_id: str,
    destination: str | PathLike[str],
    *,
    filter: Filter | None,
    include: Sequence[str] | None,
    exclude: Sequence[str] | None,
    on_existing: OnExistingFile,
    dry_run: bool,
    resume: bool | str,
    on_progress: ProgressCallback | None,
    on_outcome: OutcomeCallback | None,
    on_event: EventCallback | None,
    only: AsyncIterator[Sequence[str]] | None = None,
    retried: RetriedReport | None = None,
) -> Report:
    """Do what `AsyncDataset.download` says.

    Args:
        only: Paths of the items to fetch, as many at once as a filter may name; what is no item fails. None: all.
        retried: The report that names them.
    """
    if on_existing not in {"skip_same", "overwrite", "fail"}:
        raise ConfigError(f"on_existing is 'skip_same', 'overwrite' or 'fail', not {on_existing!r}")
    check_resume(resume)
    paths = PathFilter(include, exclude)
    record = run_record(
        session,
        "download",
        None if dry_run else named_path(destination, resume),
        identity={"dataset": dataset_id, "on_existing": on_existing, "to": named_path(destination, True)},
        arguments={
            "dataset": dataset_id,
            "on_existing": on_existing,
            "include": include and list(include),
            "exclude": exclude and list(exclude),
        },
        is_rebuildable=filter is None,
        retried=retried,
    )
    async with keeping(session.settings, record, on_event) as kept:
        feed = ItemDownloadFeed(
            patient(session),
            dataset_id,
            Path(destination),
            filter=filter,
            paths=paths,
            on_existing=on_existing,
            dry_run=dry_run,
            books=None if kept.journal is None else DownloadBooks(kept.journal),
            only=only,
        )
        report = await session.engine.collect(feed, on_progress=on_progress, on_outcome=on_outcome, on_event=on_event)
        kept.ended(report)
        return report
