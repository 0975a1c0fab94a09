"""``asyncsdk archive upload|unpack|download``: one zip that holds a whole dataset."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.options import add_common, add_no_wait, add_project, add_resume, add_transfer
from asyncsdk.cli.references import Reference, create_dataset, find_dataset
from asyncsdk.cli.single_runs import SingleRun
from asyncsdk.client import AsyncClient
from asyncsdk.entities.archive_transfers import check_zip
from asyncsdk.entities.datasets import AsyncDataset
from asyncsdk.entities.jobs import AsyncJob
from asyncsdk.errors import AsyncSDKError, NotFound
from asyncsdk.os_errors import os_errors

__all__ = ["add_commands", "download", "unpack", "upload"]

_CANCEL_SECONDS = 2.0
_SHOWN_PROBLEMS = 5


def add_commands(commands: Any) -> None:
    """Add the commands to the parser."""
    group = commands.add_parser("archive", help="upload a zip as a dataset, unpack it there, download it")
    add_common(group)
    verbs = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    parser = verbs.add_parser(
        "upload",
        help="upload a zip as the archive of a dataset, and have it unpacked",
        description="Upload a zip and have it unpacked there into items; labels of YOLO (labels/train/a.txt beside "
        "images/train/a.jpg)\nbecome annotations. Entries that are refused are told, and the exit status is 3.",
    )
    parser.add_argument("path", metavar="PATH", type=Path, help="the zip")
    _add_dataset(parser)
    parser.add_argument("--create", action="store_true", help="make the dataset, and its project, when missing")
    parser.add_argument("--no-unpack", dest="unpack", action="store_false", help="only keep it")
    add_no_wait(parser)
    add_transfer(parser)
    add_resume(parser)
    add_common(parser)
    parser.set_defaults(work=upload)

    parser = verbs.add_parser("unpack", help="make items and annotations of the archive that a dataset has")
    _add_dataset(parser)
    add_no_wait(parser)
    add_common(parser)
    parser.set_defaults(work=unpack)

    parser = verbs.add_parser("download", help="download the archive of a dataset as it was uploaded")
    _add_dataset(parser)
    parser.add_argument("destination", metavar="DEST", type=Path, help="file, or a folder that exists")
    add_transfer(parser)
    add_resume(parser)
    add_common(parser)
    parser.set_defaults(work=download)


def _add_dataset(parser: Any) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="name, project/name, or id")
    add_project(parser)


async def upload(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk archive upload``."""
    given, output = invocation.arguments, invocation.output
    path: Path = given.path
    run = SingleRun(invocation, "archive_upload", source=path, unit="archives")
    if await run.has_nothing_to_do():
        return run.exit_code
    source = os.path.abspath(path)  # noqa: PTH100  # links stay as they are
    async with AsyncExitStack() as stack:
        with run:  # until it is there: what unpacks it moves nothing from here
            try:
                size = await anyio.to_thread.run_sync(_size_of_zip, path)  # before a dataset is made for it
                client = await stack.enter_async_context(invocation.client())
                dataset = await _dataset_to_fill(client, invocation)
                if dataset is None or given.dry_run:
                    run.would("would_send", path.name, source=source, destination=None, size_bytes=size)
                    return run.exit_code
                job = await _send(dataset, invocation, run)
            except AsyncSDKError as error:
                run.failed(path.name, error, source=source, destination=None)
                raise
            run.arrived(path.name, source=source, destination=None, dataset_id=dataset.id)
        if job is not None:
            status = await _told(invocation, dataset, job)
            return run.exit_code if status is ExitCode.OK else status
        dataset = await dataset.refresh()
    if output.as_json:
        output.record(dataset.to_json())
    output.text(f"dataset {dataset.name} has the archive {dataset.archive_filename}")
    return run.exit_code


def _size_of_zip(path: Path) -> int:
    check_zip(path)
    with os_errors("source", source=str(path)):
        return path.stat().st_size


async def _send(dataset: AsyncDataset, invocation: Invocation, run: SingleRun) -> AsyncJob[Any] | None:
    given = invocation.arguments
    show, on_event = run.progress.show, run.on_event
    if given.unpack:
        return await dataset.upload_archive(given.path, resume=given.resume, on_progress=show, on_event=on_event)
    await dataset.upload_archive(given.path, unpack=False, resume=given.resume, on_progress=show, on_event=on_event)
    return None


async def unpack(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk archive unpack``."""
    given = invocation.arguments
    async with invocation.client() as client:
        dataset = await find_dataset(client, Reference.parse(given.dataset, given.project))
        return await _told(invocation, dataset, await dataset.unpack_archive())


async def download(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk archive download``."""
    given, output = invocation.arguments, invocation.output
    run = SingleRun(invocation, "archive_download", source=None, unit="archives")
    if await run.has_nothing_to_do():
        return run.exit_code
    destination = os.path.abspath(given.destination)  # noqa: PTH100  # links stay as they are
    name = str(given.dataset)
    with run:
        try:
            async with invocation.client() as client:
                dataset = await find_dataset(client, Reference.parse(given.dataset, given.project))
                name = dataset.archive_filename or name
                if given.dry_run:
                    if dataset.archive_filename is None:
                        raise NotFound(f"dataset {dataset.name} has no archive")
                    run.would("would_fetch", name, source=dataset.id, destination=destination, size_bytes=None)
                    return run.exit_code
                path = await dataset.download_archive(
                    given.destination, resume=given.resume, on_progress=run.progress.show, on_event=run.on_event
                )
        except AsyncSDKError as error:
            run.failed(name, error, source=None, destination=destination)
            raise
        destination = os.path.abspath(path)  # noqa: PTH100  # links stay as they are
        run.arrived(name, source=dataset.id, destination=destination)
    if output.as_json:
        output.record({"id": dataset.id, "name": dataset.name, "file": str(path)})
    output.text(f"archive of the dataset {dataset.name}: {path}")
    return run.exit_code


async def _dataset_to_fill(client: AsyncClient, invocation: Invocation) -> AsyncDataset | None:
    """Return the dataset; None when it is to be created and nothing may change."""
    given = invocation.arguments
    reference = Reference.parse(given.dataset, given.project)
    try:
        return await find_dataset(client, reference)
    except NotFound:
        if not given.create or reference.is_perhaps_id:
            raise
    if given.dry_run:
        invocation.output.note(f"would create the dataset {reference}")
        return None
    return await create_dataset(client, reference)


async def _told(invocation: Invocation, dataset: AsyncDataset, job: AsyncJob[Any]) -> ExitCode:
    """Wait for the job, unless that is not wanted, and say what came of it."""
    output = invocation.output
    if not invocation.arguments.wait:
        if output.as_json:
            output.record(job.to_json())
        output.text(f"job {job.id} unpacks; see: asyncsdk jobs wait {job.id}")
        return ExitCode.OK
    output.note(f"job {job.id}")
    try:
        result = await job
    except anyio.get_cancelled_exc_class():
        # Ctrl-C: nobody waits for the job any more.
        with anyio.CancelScope(shield=True), anyio.move_on_after(_CANCEL_SECONDS), suppress(AsyncSDKError):
            await job.cancel()
        raise
    if output.as_json:
        output.record({"dataset_id": dataset.id, "job_id": job.id, **result.model_dump(mode="json")})
    counts = f"{result.items} items, {result.annotations} annotations"
    removed = f", {result.removed} annotations of before removed" if result.removed else ""
    output.text(f"dataset {dataset.name}: {counts}{removed}")
    if not result.refused:
        return ExitCode.OK
    output.problem(f"{result.refused} entries or lines of the archive were refused")
    for problem in result.problems[:_SHOWN_PROBLEMS]:
        line = "" if problem.line is None else f", line {problem.line}"
        output.problem(f"  [{problem.code}] {problem.path!r}{line}: {problem.message}")
    if result.refused > _SHOWN_PROBLEMS:
        output.problem(f"  and {result.refused - _SHOWN_PROBLEMS} more; see: asyncsdk jobs get {job.id}")
    return ExitCode.SOME_FAILED
