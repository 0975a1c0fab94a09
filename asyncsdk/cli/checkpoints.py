"""``asyncsdk checkpoint upload|download``: the weights of a model. ``checkpoint verify`` is in `verifying`."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import anyio.to_thread

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.formats import human_size, parse_assignment
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.options import add_common, add_project, add_resume, add_transfer, parsed_as
from asyncsdk.cli.references import Reference, create_model, find_model
from asyncsdk.cli.single_runs import SingleRun
from asyncsdk.cli.verifying import add_checkpoint_command
from asyncsdk.client import AsyncClient
from asyncsdk.domain.ids import is_id
from asyncsdk.entities.checkpoints import AsyncCheckpoint
from asyncsdk.entities.models import AsyncModel
from asyncsdk.errors import AsyncSDKError, ConfigError, NotFound, SourceNotFound, SourceUnreadable
from asyncsdk.os_errors import os_errors

__all__ = ["add_commands", "download", "upload"]


def add_commands(commands: Any) -> None:
    """Add the commands to the parser."""
    group = commands.add_parser("checkpoint", help="upload, download or verify the weights of a model")
    add_common(group)
    verbs = group.add_subparsers(title="commands", metavar="COMMAND", required=True)

    parser = verbs.add_parser("upload", help="upload a file as a checkpoint of a model")
    parser.add_argument("path", metavar="PATH", type=Path, help="file with the weights")
    parser.add_argument("model", metavar="MODEL", help="name, project/name, or id")
    add_project(parser)
    parser.add_argument("--create", action="store_true", help="make the model, and its project, when missing")
    parser.add_argument("--epoch", metavar="N", type=int, help="epoch it was saved after, from 0; a checkpoint of the "
                        "same epoch is replaced")  # fmt: skip
    parser.add_argument("--best", action="store_true", help="it is the best so far")
    parser.add_argument("--final", action="store_true", help="it is the result")
    parser.add_argument("--metric", metavar="NAME=VALUE", action="append", default=[], type=parsed_as(_parse_metric),
                        help="a finite number by name; may be repeated")  # fmt: skip
    add_transfer(parser)
    add_resume(parser)
    add_common(parser)
    parser.set_defaults(work=upload)

    parser = verbs.add_parser("download", help="download a checkpoint of a model into a file")
    parser.add_argument("model", metavar="MODEL", help="name, project/name, or id")
    parser.add_argument("destination", metavar="DEST", type=Path, help="file, or a folder that exists")
    add_project(parser)
    parser.add_argument("--which", metavar="best|last|final|EPOCH|ID", type=parsed_as(_parse_which), default="best",
                        help="which checkpoint (default: best)")  # fmt: skip
    add_transfer(parser)
    add_resume(parser)
    add_common(parser)
    parser.set_defaults(work=download)
    add_checkpoint_command(verbs, parsed_as(_parse_which))


def _parse_metric(text: str) -> tuple[str, float]:
    name, value = parse_assignment(text)
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"{text!r} must look like NAME=VALUE with a finite number")
    return name, number


def _parse_which(text: str) -> str | int:
    if text in {"best", "last", "final"} or is_id(text):
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    raise ConfigError(f"{text!r} is not best, last, final, the number of an epoch or an id")


async def _find(model: AsyncModel, which: Any) -> AsyncCheckpoint:
    return await (model.checkpoints.get(which) if is_id(str(which)) else model.checkpoints.get(which=which))


async def upload(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk checkpoint upload``."""
    given = invocation.arguments
    path: Path = given.path
    run = SingleRun(invocation, "checkpoint_upload", source=path, unit="checkpoints")
    if await run.has_nothing_to_do():
        return run.exit_code
    source = os.path.abspath(path)  # noqa: PTH100  # links stay as they are
    with run:
        try:
            size = await anyio.to_thread.run_sync(_size_of, path)
            async with invocation.client() as client:
                model = await _model_to_fill(client, invocation)
                if given.dry_run:
                    run.would("would_send", path.name, source=source, destination=None, size_bytes=size)
                    return run.exit_code
                assert model is not None
                checkpoint = await model.upload_checkpoint(
                    path,
                    epoch=given.epoch,
                    is_best=given.best,
                    is_final=given.final,
                    metrics=dict(given.metric) or None,
                    resume=given.resume,
                    on_progress=run.progress.show,
                    on_event=run.on_event,
                )
        except AsyncSDKError as error:
            run.failed(path.name, error, source=source, destination=None)
            raise
        _tell(run, invocation, checkpoint, path.name, source, None)
    return run.exit_code


async def download(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk checkpoint download``."""
    given = invocation.arguments
    run = SingleRun(invocation, "checkpoint_download", source=None, unit="checkpoints")
    if await run.has_nothing_to_do():
        return run.exit_code
    destination = os.path.abspath(given.destination)  # noqa: PTH100  # links stay as they are
    with run:
        try:
            async with invocation.client() as client:
                model = await find_model(client, Reference.parse(given.model, given.project))
                checkpoint = await _find(model, given.which)
                name = checkpoint.filename or checkpoint.id
                if given.dry_run:
                    size = checkpoint.size_bytes
                    run.would("would_fetch", name, source=checkpoint.id, destination=destination, size_bytes=size)
                    return run.exit_code
                await checkpoint.download(
                    given.destination, resume=given.resume, on_progress=run.progress.show, on_event=run.on_event
                )
        except AsyncSDKError as error:
            run.failed(str(given.model), error, source=None, destination=destination)
            raise
        _tell(run, invocation, checkpoint, name, checkpoint.id, destination)
    return run.exit_code


async def _model_to_fill(client: AsyncClient, invocation: Invocation) -> AsyncModel | None:
    given = invocation.arguments
    reference = Reference.parse(given.model, given.project)
    try:
        return await find_model(client, reference)
    except NotFound:
        if not given.create or reference.is_perhaps_id:
            raise
    if given.dry_run:
        invocation.output.note(f"would create the model {reference}")
        return None
    return await create_model(client, reference)


def _size_of(path: Path) -> int:
    with os_errors("source", source=str(path)):
        if path.is_dir():
            raise SourceUnreadable(f"{path}: is a folder; a checkpoint is one file", source=str(path))
        if not path.exists():
            raise SourceNotFound(f"{path}: there is no such file", source=str(path))
        return path.stat().st_size


def _tell(
    run: SingleRun,
    invocation: Invocation,
    checkpoint: AsyncCheckpoint,
    name: str,
    source: str | None,
    destination: str | None,
) -> None:
    run.arrived(
        name,
        source=source,
        destination=destination,
        size_bytes=checkpoint.size_bytes,
        crc32c=checkpoint.crc32c,
        was_made=True,  # of what an earlier run sent, too
        checkpoint_id=checkpoint.id,
    )
    marks = [
        text
        for text, is_so in (
            (f"epoch {checkpoint.epoch}", checkpoint.epoch is not None),
            ("best", checkpoint.is_best),
            ("final", checkpoint.is_final),
        )
        if is_so
    ]
    invocation.output.text(f"checkpoint {checkpoint.id}: {', '.join([*marks, human_size(checkpoint.size_bytes)])}")
