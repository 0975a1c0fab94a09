"""``asyncsdk predictions upload``: prediction rows of a dataset's items, from a JSONL file.

The report has one line per row, named ``line N``. Rows are told apart when all of them were dealt with; of more than
1,000 refused rows the first 1,000 are described, and such a report cannot be retried.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import anyio.to_thread
import orjson

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.options import add_common, add_project, add_transfer
from asyncsdk.cli.references import Reference, find_dataset
from asyncsdk.cli.reports import make_entry, read_failed
from asyncsdk.cli.runs import Run
from asyncsdk.domain.predictions import PredictionKind, check_prediction_row
from asyncsdk.engine import Report
from asyncsdk.engine.report import MAX_FAILURES_KEPT
from asyncsdk.entities.datasets import AsyncDataset
from asyncsdk.entities.predictions import AsyncPredictionTask
from asyncsdk.errors import AsyncSDKError, BadRequest, ConfigError, InvalidRow, NotFound
from asyncsdk.os_errors import os_errors

__all__ = ["add_commands", "upload"]

OPERATION = "predictions_upload"
_BATCH = 1000
_LINE = re.compile(r"line (\d+)")
_LINES = re.compile(r"rows (\d+) to (\d+)")


def add_commands(commands: Any) -> None:
    """Add the command to the parser."""
    group = commands.add_parser("predictions", help="upload prediction rows")
    add_common(group)
    verbs = group.add_subparsers(title="commands", metavar="COMMAND", required=True)
    parser = verbs.add_parser(
        "upload",
        help="upload prediction rows for the items of a dataset",
        description='Upload prediction rows: lines {"path": ..., "predictions": [{"category", "score", "bbox"?: '
        "[x, y, w, h]\nin pixels, ...}]}. A row replaces the earlier one of its item.",
    )
    parser.add_argument("file", metavar="FILE.jsonl", type=Path, help="the rows")
    parser.add_argument("dataset", metavar="DATASET", help="name, project/name, or id")
    add_project(parser)
    parser.add_argument("--task", metavar="NAME", required=True, help="prediction task of the dataset")
    parser.add_argument("--create", action="store_true", help="make the task when missing; needs --kind and --category")
    parser.add_argument("--kind", choices=get_args(PredictionKind), help="kind of a task that is made")
    parser.add_argument("--category", metavar="NAME", action="append", help="category of a task that is made; may be "
                        "repeated")  # fmt: skip
    add_transfer(parser)
    add_common(parser)
    parser.set_defaults(work=upload)


async def upload(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk predictions upload``."""
    given = invocation.arguments
    if given.create and not (given.kind and given.category):
        raise ConfigError("--create needs --kind and at least one --category")
    file: Path = given.file
    await anyio.to_thread.run_sync(_check_readable, file)
    run = Run(invocation, OPERATION, source=file, unit="rows")
    only = None if given.retry is None else await anyio.to_thread.run_sync(_failed_line_numbers, given.retry)
    async with invocation.client() as client:
        dataset = await find_dataset(client, Reference.parse(given.dataset, given.project))
        task = await _task(invocation, dataset)
        with run:
            books = _RowBooks(run, file)
            if given.dry_run:
                await _check_rows(books, file, task, invocation, only)
            elif only is None:
                report = await dataset.upload_predictions(
                    given.task, file, on_progress=run.progress.show, on_event=run.on_event
                )
                books.take(report)
                run.took(report)
            elif only:
                rows = _ChosenRows(file, only, books)
                report = await dataset.upload_predictions(
                    given.task, rows.read(), on_progress=run.progress.show, on_event=run.on_event
                )
                books.take(report, rows.numbers)
                run.took(report)
            await anyio.to_thread.run_sync(books.write, only)
            if books.undescribed:
                invocation.output.problem(
                    f"{books.undescribed} refused rows are not described; mend the others and upload the file again"
                )
        return run.exit_code


async def _task(invocation: Invocation, dataset: AsyncDataset) -> AsyncPredictionTask | None:
    given = invocation.arguments
    try:
        return await dataset.prediction_tasks.get(name=given.task)
    except NotFound as error:
        if not given.create:
            raise NotFound(
                f"the dataset {dataset.name!r} has no prediction task {given.task!r}; make it with --create",
                request_id=error.request_id,
            ) from error
    if given.dry_run:
        invocation.output.note(f"would create the prediction task {given.task!r}")
        return None
    return await dataset.prediction_tasks.create(given.task, kind=given.kind, categories=given.category, exist_ok=True)


class _RowBooks:
    """What became of every line of the file."""

    def __init__(self, run: Run, file: Path) -> None:
        self._run = run
        self._file = file
        self._failed: dict[int, AsyncSDKError] = {}
        self._failed_ranges: list[tuple[int, int, AsyncSDKError]] = []
        self.skipped_reply: str | None = None
        self.undescribed = 0

    def fail(self, line: int, error: AsyncSDKError) -> None:
        """Count a line that was refused before it was sent."""
        self._failed[line] = error
        self._run.tally.add_failure(f"line {line}", error)

    def skip(self) -> None:
        """Count a line that is good and was not sent."""
        self.skipped_reply = "would_send"
        self._run.tally.skipped += 1

    def take(self, report: Report, numbers: list[int] | None = None) -> None:
        """Add what an upload said; *numbers* are the lines of the rows that were given, None when all were."""
        tally = self._run.tally
        tally.done += report.done
        tally.bytes_done += report.bytes_done
        described = 0
        for failure in report.failures:
            error = failure.error
            if not isinstance(error, AsyncSDKError):
                raise error
            if found := _LINE.fullmatch(failure.name):
                line = int(found[1]) if numbers is None else numbers[int(found[1]) - 1]
                if isinstance(error, InvalidRow):
                    error = InvalidRow(error.reason, line=line, file=str(self._file))
                self.fail(line, error)
                described += 1
            elif found := _LINES.fullmatch(failure.name):
                first, last = int(found[1]), int(found[2])
                if numbers is None:
                    self._failed_ranges.append((first, last, error))
                else:
                    self._failed.update((line, error) for line in numbers[first - 1 : last])
        rest = report.failed - described
        if rest < 1:
            return
        others = [failure for failure in report.failures if not _LINE.fullmatch(failure.name)]
        example = others[0] if others else report.failures[-1]
        tally.add_failures(rest, example.name, example.error)
        # Whole parts that failed say which lines they hold; a list cut short, or rows only counted, do not.
        is_told = others and len(report.failures) < MAX_FAILURES_KEPT
        if not (is_told and all(_LINES.fullmatch(failure.name) for failure in others)):
            self.undescribed += rest

    def write(self, only: set[int] | None) -> None:
        """Write the line of every row. Blocking; called once, when every row is dealt with."""
        file = str(self._file)
        gone = set(only or ())
        for number, _ in _numbered_rows(self._file, only):
            gone.discard(number)
            error = self._failed.get(number) or self._in_failed_range(number)
            name = f"line {number}"
            if error is None and self.undescribed:
                continue  # it may be one of those that were not described
            self._run.write(
                make_entry(
                    OPERATION,
                    name,
                    "skipped" if self.skipped_reply else "done",
                    source=file,
                    destination=None,
                    error=error,
                    message=self.skipped_reply,
                    line=number,
                )
            )
        for number in sorted(gone):  # nobody else would speak of them
            error = InvalidRow("failed before, and the file has no such row any more", line=number, file=file)
            self._run.tally.add_failure(f"line {number}", error)
            self._run.write(
                make_entry(
                    OPERATION, f"line {number}", "failed", source=file, destination=None, error=error, line=number
                )
            )
        if self.undescribed:
            further = BadRequest(f"{file}: {self.undescribed} further rows were refused and not described")
            self._run.write(
                make_entry(OPERATION, "further rows", "failed", source=file, destination=None, error=further)
            )

    def _in_failed_range(self, number: int) -> AsyncSDKError | None:
        return next((error for first, last, error in self._failed_ranges if first <= number <= last), None)


class _ChosenRows:
    """Chosen lines of a file, as rows; remembers which row was which line."""

    def __init__(self, file: Path, only: set[int], books: _RowBooks) -> None:
        self._file = file
        self._only = only
        self._books = books
        self.numbers: list[int] = []

    async def read(self) -> AsyncIterator[Mapping[str, Any]]:
        """Yield the rows; a line that is no JSON is a failure at once."""
        lines = _numbered_rows(self._file, self._only)
        while batch := await anyio.to_thread.run_sync(lambda: list(islice(lines, _BATCH))):
            for number, line in batch:
                try:
                    row = orjson.loads(line)
                except orjson.JSONDecodeError as error:
                    self._books.fail(number, InvalidRow(f"no JSON: {error}", line=number, file=str(self._file)))
                    continue
                self.numbers.append(number)
                yield row


async def _check_rows(
    books: _RowBooks, file: Path, task: AsyncPredictionTask | None, invocation: Invocation, only: set[int] | None
) -> None:
    """Check the rows as the platform would, except whether the items exist."""
    kind: PredictionKind = task.kind if task is not None else invocation.arguments.kind
    categories = frozenset(task.categories if task is not None else invocation.arguments.category)

    def check() -> None:
        for number, line in _numbered_rows(file, only):
            try:
                reason = check_prediction_row(orjson.loads(line), kind=kind, categories=categories)
            except orjson.JSONDecodeError as error:
                reason = f"no JSON: {error}"
            if reason is None:
                books.skip()
            else:
                books.fail(number, InvalidRow(reason, line=number, file=str(file)))

    await anyio.to_thread.run_sync(check)


def _numbered_rows(file: Path, only: set[int] | None = None) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that hold a row with their numbers. Blocking."""
    with os_errors("source", source=str(file)), file.open("rb") as opened:
        for number, line in enumerate(opened, start=1):
            if (only is None or number in only) and line.strip():
                yield number, line


def _check_readable(file: Path) -> None:
    with os_errors("source", source=str(file)), file.open("rb"):
        pass


def _failed_line_numbers(report: Path) -> set[int]:
    numbers = set()
    for entry in read_failed(report, OPERATION):
        line = entry.get("line")
        if not isinstance(line, int):
            raise ConfigError(f"{report}: does not describe every refused row; upload the whole file again")
        numbers.add(line)
    return numbers
