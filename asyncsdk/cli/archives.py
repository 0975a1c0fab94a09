"""``asyncsdk archive upload|unpack|download``: one zip that holds a whole dataset."""

from __future__ import annotations

from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.options import add_common, add_no_wait, add_project, add_resume
from asyncsdk.cli.progress import ProgressDisplay
from asyncsdk.cli.references import Reference, create_dataset, find_dataset
from asyncsdk.client import AsyncClient
from asyncsdk.entities.archive_transfers import check_zip
from asyncsdk.entities.datasets import AsyncDataset
from asyncsdk.entities.jobs import AsyncJob
from asyncsdk.errors import AsyncSDKError, NotFound

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
    add_resume(parser)
    add_common(parser)
    parser.set_defaults(work=download)


def _add_dataset(parser: Any) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="name, project/name, or id")
    add_project(parser)


async def upload(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk archive upload``."""
    given, output = invocation.arguments, invocation.output
    await anyio.to_thread.run_sync(check_zip, given.path)  # before a dataset is made for it
    async with invocation.client() as client:
        dataset = await _dataset_to_fill(client, invocation)
        with closing(ProgressDisplay(output, "archive upload", unit="archives")) as progress:
            if given.unpack:
                job = await dataset.upload_archive(given.path, resume=given.resume, on_progress=progress.show)
            else:
                await dataset.upload_archive(given.path, unpack=False, resume=given.resume, on_progress=progress.show)
        if given.unpack:
            return await _told(invocation, dataset, job)
        dataset = await dataset.refresh()
    if output.as_json:
        output.record(dataset.to_json())
    output.text(f"dataset {dataset.name} has the archive {dataset.archive_filename}")
    return ExitCode.OK


async def unpack(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk archive unpack``."""
    given = invocation.arguments
    async with invocation.client() as client:
        dataset = await find_dataset(client, Reference.parse(given.dataset, given.project))
        return await _told(invocation, dataset, await dataset.unpack_archive())


async def download(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk archive download``."""
    given, output = invocation.arguments, invocation.output
    async with invocation.client() as client:
        dataset = await find_dataset(client, Reference.parse(given.dataset, given.project))
        with closing(ProgressDisplay(output, "archive download", unit="archives")) as progress:
            path = await dataset.download_archive(given.destination, resume=given.resume, on_progress=progress.show)
    if output.as_json:
        output.record({"id": dataset.id, "name": dataset.name, "file": str(path)})
    output.text(f"archive of the dataset {dataset.name}: {path}")
    return ExitCode.OK


async def _dataset_to_fill(client: AsyncClient, invocation: Invocation) -> AsyncDataset:
    given = invocation.arguments
    reference = Reference.parse(given.dataset, given.project)
    try:
        return await find_dataset(client, reference)
    except NotFound:
        if not given.create or reference.is_perhaps_id:
            raise
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
