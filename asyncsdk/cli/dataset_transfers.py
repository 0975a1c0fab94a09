"""``asyncsdk upload`` and ``asyncsdk download``: the items of a dataset."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import anyio.to_thread

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.options import add_common, add_project, add_resume, add_selection, add_transfer
from asyncsdk.cli.references import Reference, create_dataset, find_dataset
from asyncsdk.cli.reports import entry_of, read_failed, retried_report
from asyncsdk.cli.runs import Run, own_files
from asyncsdk.client import AsyncClient
from asyncsdk.engine import Outcome, Refused, Skipped
from asyncsdk.entities.datasets import AsyncDataset
from asyncsdk.entities.examining import PreparedItem
from asyncsdk.entities.globs import PathFilter
from asyncsdk.entities.item_transfers import download_items, upload_items
from asyncsdk.entities.item_uploads import ItemUpload
from asyncsdk.entities.walking import walk_folder
from asyncsdk.errors import AsyncSDKError, NotFound, SourceNotFound

__all__ = ["add_commands", "download", "upload"]

_BATCH = 500
_MAX_PATHS_PER_FILTER = 100
_MAX_FILTER_CHARACTERS = 4000
"""A filter travels in the query of a URL, which servers limit to 8 KiB and more."""


def add_commands(commands: Any) -> None:
    """Add the commands to the parser."""
    parser = commands.add_parser(
        "upload",
        help="upload a folder or a file as items of a dataset",
        description="Upload a folder (hidden files too; links to files are followed, links to folders are not) or a "
        "file as items\nof a dataset. Running it again sends only what is missing or differs.",
    )
    parser.add_argument("path", metavar="PATH", type=Path, help="folder or file")
    parser.add_argument("dataset", metavar="DATASET", help="name, project/name, or id")
    add_project(parser)
    parser.add_argument("--create", action="store_true", help="make the dataset, and its project, when missing")
    add_selection(parser)
    add_transfer(parser)
    add_resume(parser)
    add_common(parser)
    parser.set_defaults(work=upload)

    parser = commands.add_parser(
        "download",
        help="download the items of a dataset into a folder",
        description="Download the items of a dataset into a folder, byte for byte. Running it again fetches only what "
        "is missing or differs.",
    )
    parser.add_argument("dataset", metavar="DATASET", help="name, project/name, or id")
    parser.add_argument("destination", metavar="DEST", type=Path, help="folder; made when missing")
    add_project(parser)
    add_selection(parser)
    add_transfer(parser)
    add_resume(parser)
    add_common(parser)
    parser.set_defaults(work=download)


# --- upload --------------------------------------------------------------------------------------------------


async def upload(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk upload``."""
    given = invocation.arguments
    reference = Reference.parse(given.dataset, given.project)
    source: Path = given.path
    if given.retry is None and not source.exists():
        raise SourceNotFound(f"{source}: there is no such file or folder", source=str(source))
    run = Run(invocation, "upload", source=source)
    async with invocation.client() as client:
        dataset = await _dataset_to_fill(client, invocation, reference)
        exclude = [*(given.exclude or ()), *own_files(source, given.report, given.events)]
        with run:

            def on_outcome(outcome: Outcome) -> None:
                run.tally.add(outcome)
                run.write(_upload_entry(outcome, source))

            if dataset is None:
                async for outcome in _in_batches(_would_send(source, PathFilter(given.include, exclude))):
                    on_outcome(outcome)
                if not run.tally.objects:
                    matching = " that matches include and exclude" if given.include or exclude else ""
                    raise SourceNotFound(f"{source}: holds no file{matching}; nothing to upload")
            else:
                retried = None if given.retry is None else await anyio.to_thread.run_sync(retried_report, given.retry)
                report = await upload_items(
                    client,
                    dataset.id,
                    source if given.retry is None else _failed_uploads(run, given.retry, given.include, exclude),
                    include=given.include,
                    exclude=exclude,
                    on_existing=given.on_existing,
                    dry_run=given.dry_run,
                    resume=given.resume,
                    on_progress=run.progress.show,
                    on_outcome=on_outcome,
                    on_event=run.on_event,
                    place=source,
                    retried=retried,
                )
                run.took(report)
        return run.exit_code


async def _dataset_to_fill(client: AsyncClient, invocation: Invocation, reference: Reference) -> AsyncDataset | None:
    """Return the dataset; None when it is to be created and nothing may change."""
    try:
        return await find_dataset(client, reference)
    except NotFound:
        if not invocation.arguments.create or reference.is_perhaps_id:
            raise
    if invocation.arguments.dry_run:
        invocation.output.note(f"would create the dataset {reference}")
        return None
    return await create_dataset(client, reference)


def _would_send(source: Path, paths: PathFilter) -> Iterator[Outcome]:
    """Yield what an upload into an empty dataset would do. Blocking."""
    if source.is_file():
        found: Iterator[ItemUpload | Refused] = iter([ItemUpload(source)] if paths.keeps(source.name) else [])
    else:
        found = walk_folder(source, paths)
    for item in found:
        if isinstance(item, Refused):
            yield Outcome(item, "failed", error=item.error)
        else:
            size = os.stat(str(item.source)).st_size  # noqa: PTH116  # the name may be bytes no Path shows
            key = PreparedItem(item, item.item_path, size)
            yield Outcome(Skipped(item.item_path, size, key, "would_send"), "skipped", size_bytes=size,
                          reply="would_send")  # fmt: skip


def _upload_entry(outcome: Outcome, root: Path) -> dict[str, Any]:
    known = outcome.transfer.key
    if isinstance(known, PreparedItem):
        metadata = None if known.item.metadata is None else dict(known.item.metadata)
        source = os.path.abspath(str(known.item.source))  # noqa: PTH100  # links stay as they are
        path = known.item.item_path if known.item.item_path != outcome.name else None
        return entry_of("upload", outcome, source=source, destination=None, metadata=metadata, path=path)
    source = os.path.abspath(known if isinstance(known, Path) else root / outcome.name)  # noqa: PTH100
    return entry_of("upload", outcome, source=source, destination=None)


async def _failed_uploads(run: Run, report: Path, include: list[str] | None, exclude: list[str]) -> AsyncIterator[Any]:
    """Yield what to upload again, `ItemUpload` or `Refused`; a folder that could not be listed is walked again."""
    paths = PathFilter(include, exclude)
    async for entry in _in_batches(read_failed(report, "upload")):
        source = Path(entry.get("source") or "")
        if not await anyio.to_thread.run_sync(source.is_dir):
            yield ItemUpload(source, entry.get("path", entry["name"]), entry.get("metadata"))
            continue
        prefix = entry["name"].rstrip("/")
        try:
            async for found in _in_batches(walk_folder(source, PathFilter())):
                if isinstance(found, Refused):
                    yield Refused(f"{prefix}/{found.name}", found.error, source / found.name)
                elif paths.keeps(path := f"{prefix}/{found.path}"):
                    yield ItemUpload(found.source, path)
        except AsyncSDKError as error:  # the folder itself cannot be listed, still
            yield Refused(entry["name"], error, source)
            continue
        run.settle(entry)


# --- download ------------------------------------------------------------------------------------------------


async def download(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk download``."""
    given = invocation.arguments
    reference = Reference.parse(given.dataset, given.project)
    destination: Path = given.destination
    run = Run(invocation, "download", source=None)
    async with invocation.client() as client:
        dataset = await find_dataset(client, reference)
        with run:

            def on_outcome(outcome: Outcome) -> None:
                run.tally.add(outcome)
                run.write(_download_entry(outcome, destination))

            retried = None if given.retry is None else await anyio.to_thread.run_sync(retried_report, given.retry)
            report = await download_items(
                client,
                dataset.id,
                destination,
                filter=None,
                include=given.include,
                exclude=given.exclude,
                on_existing=given.on_existing,
                dry_run=given.dry_run,
                resume=given.resume,
                on_progress=run.progress.show,
                on_outcome=on_outcome,
                on_event=run.on_event,
                only=None if given.retry is None else _names_for_filter(given.retry),
                retried=retried,
            )
            run.took(report)
        return run.exit_code


def _download_entry(outcome: Outcome, destination: Path) -> dict[str, Any]:
    return entry_of("download", outcome, source=outcome.name, destination=_local(destination, outcome.name))


def _local(destination: Path, name: str) -> str:
    return os.path.abspath(destination / name)  # noqa: PTH100  # links stay as they are


async def _names_for_filter(report: Path) -> AsyncIterator[list[str]]:
    """Yield the names of what failed, as many at once as one filter may hold."""
    batch: list[str] = []
    characters = 0
    async for entry in _in_batches(read_failed(report, "download")):
        size = 3 * len(entry["name"].encode()) + 10  # as it is in a URL at worst
        if batch and (len(batch) == _MAX_PATHS_PER_FILTER or characters + size > _MAX_FILTER_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append(entry["name"])
        characters += size
    if batch:
        yield batch


async def _in_batches(iterator: Iterator[Any]) -> AsyncIterator[Any]:
    """Yield from a blocking iterator, pulled in a worker thread some at a time."""
    while batch := await anyio.to_thread.run_sync(lambda: list(islice(iterator, _BATCH))):
        for one in batch:
            yield one
