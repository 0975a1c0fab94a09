"""``asyncsdk verify`` and ``asyncsdk checkpoint verify``: compare what is here with what is there, and move nothing."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.options import add_common, add_patterns, add_project, add_report_file
from asyncsdk.cli.references import Reference, find_dataset, find_model
from asyncsdk.cli.reports import make_entry
from asyncsdk.cli.runs import Run, own_files
from asyncsdk.entities.verifying import Comparison
from asyncsdk.errors import VerificationFailed

__all__ = ["add_checkpoint_command", "add_commands", "verify", "verify_checkpoint"]

_REPORT = """\
A report has one line for every object. Its status is done (the same on both sides) or failed; code then says how they
differ: missing_locally, missing_remotely, different (size or crc32c), or unreadable."""


def add_commands(commands: Any) -> None:
    """Add ``verify`` to the parser."""
    parser = commands.add_parser(
        "verify",
        help="compare a folder with the items of a dataset, without moving anything",
        description="Compare a folder with the items of a dataset: every file is read, its size and crc32c are compared"
        f" with\nthe item's; files without an item and items without a file are told too. {_REPORT}",
    )
    parser.add_argument("dataset", metavar="DATASET", help="name, project/name, or id")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="the folder")
    add_project(parser)
    add_patterns(parser)
    _add_report(parser)
    add_common(parser)
    parser.set_defaults(work=verify)


def add_checkpoint_command(verbs: Any, parse_which: Callable[[str], str | int]) -> None:
    """Add ``checkpoint verify`` to the parser."""
    parser = verbs.add_parser(
        "verify",
        help="compare a file with a checkpoint of a model, without moving anything",
        description=f"Compare a file with a checkpoint of a model by size and crc32c. {_REPORT}",
    )
    parser.add_argument("model", metavar="MODEL", help="name, project/name, or id")
    parser.add_argument("path", metavar="PATH", type=Path, help="the file, or a folder with it")
    add_project(parser)
    parser.add_argument("--which", metavar="best|last|final|EPOCH", type=parse_which, default="best",
                        help="which checkpoint (default: best)")  # fmt: skip
    _add_report(parser)
    add_common(parser)
    parser.set_defaults(work=verify_checkpoint)


def _add_report(parser: argparse.ArgumentParser) -> None:
    add_report_file(parser.add_argument_group("report", argument_default=argparse.SUPPRESS))


async def verify(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk verify``."""
    given = invocation.arguments
    folder: Path = given.folder
    reference = Reference.parse(given.dataset, given.project)
    run = _begin(invocation, "verify", folder)
    async with invocation.client() as client:
        dataset = await find_dataset(client, reference)
        with run:
            await dataset.verify(
                folder,
                include=given.include,
                exclude=[*(given.exclude or ()), *own_files(folder, given.report, given.events)],
                on_progress=run.progress.show,
                on_comparison=lambda comparison: _count(run, comparison, folder / comparison.path),
            )
    return _exit_code(run)


async def verify_checkpoint(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk checkpoint verify``."""
    given = invocation.arguments
    path: Path = given.path
    run = _begin(invocation, "checkpoint_verify", path)
    async with invocation.client() as client:
        model = await find_model(client, Reference.parse(given.model, given.project))
        with run:
            await model.verify_checkpoint(
                path,
                which=given.which,
                on_progress=run.progress.show,
                on_comparison=lambda found: _count(run, found, path / found.path if path.is_dir() else path),
            )
    return _exit_code(run)


def _begin(invocation: Invocation, operation: str, source: Path) -> Run:
    return Run(invocation, operation, source=source, words=("the same", "differ"))


def _count(run: Run, comparison: Comparison, path: Path) -> None:
    tally, verdict = run.tally, comparison.verdict
    if comparison.ok:
        tally.done += 1
        tally.bytes_done += comparison.size_local or 0
    else:
        error = comparison.error or VerificationFailed(str(comparison))
        tally.add_failures(1, comparison.path, error, code=verdict)
    entry = make_entry(
        run.operation,
        comparison.path,
        "done",
        source=os.path.abspath(path),  # noqa: PTH100  # links stay as they are
        destination=comparison.path,
        message=None if comparison.ok else str(comparison),
        size_bytes=comparison.size_local,
        crc32c=comparison.crc32c_local,
        verified=comparison.ok,
        size_remote=comparison.size_remote,
        crc32c_remote=comparison.crc32c_remote,
    )
    if not comparison.ok:
        entry |= {"status": "failed", "code": verdict}
    run.write(entry)


def _exit_code(run: Run) -> ExitCode:
    return ExitCode.OK if run.tally.ok else ExitCode.DIFFERENT
