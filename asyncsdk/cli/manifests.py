"""``asyncsdk transfer MANIFEST.jsonl``: the engine alone, for people who already have signed URLs.

What a line may say is in `manifest_lines`. Paths are relative to the current folder. A bad line is a failure with its
number and does not stop the others.
"""

from __future__ import annotations

import errno
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import IO, Any

import anyio
import anyio.to_thread

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.identities import Identities
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.manifest_books import ManifestBooks, ask_server
from asyncsdk.cli.manifest_lines import Line, parse_line
from asyncsdk.cli.options import add_common, add_resume, add_transfer
from asyncsdk.cli.reports import entry_of, make_entry, read_failed, retried_report
from asyncsdk.cli.runs import Run
from asyncsdk.engine import Download, Origin, Outcome, Target, Transfer, Upload
from asyncsdk.engine.journal import RetriedReport, RunRecord
from asyncsdk.entities.resuming import keeping
from asyncsdk.errors import ConfigError, InvalidRow, SourceNotFound
from asyncsdk.os_errors import os_errors

__all__ = ["ManifestFeed", "add_commands", "transfer"]

_BATCH = 500
_READ_BYTES = 256 * 1024
_MAX_LINE_BYTES = 32 * 1024 * 1024
"""10,000 signed URLs of 3 KiB, and something."""


def add_commands(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "transfer",
        help="move what a manifest of signed URLs says, without a platform",
        description='Move what a manifest says. Its lines are {"source": PATH, "url": URL, "headers": {...}} to '
        'upload,\n{"url": URL, "destination": PATH, "headers": {...}} to download; "headers" may be left out, and\n'
        '"crc32c" (eight hexadecimal digits) be added: the bytes must have it. To upload in parts, into a session,\n'
        'to a blob or by a form, "multipart", "resumable", "blob" or "form" stands in place of "url" (the guide to\n'
        "the command line shows how). A run that was stopped goes on when the command is given again, also when its\n"
        'URLs were signed anew; lines are told apart by path and by URL without its signature, or by a "key" of\n'
        "your own.",
    )
    parser.add_argument("manifest", metavar="MANIFEST.jsonl", help="the manifest; - reads standard input")
    add_transfer(parser)
    add_resume(parser)
    add_common(parser)
    parser.set_defaults(work=transfer)


async def transfer(invocation: Invocation) -> ExitCode:
    """Run ``asyncsdk transfer``; with ``--retry``, what failed and stands in the manifest no more fails again."""
    given = invocation.arguments
    name = "<stdin>" if given.manifest == "-" else str(given.manifest)
    retried = None if given.retry is None else await anyio.to_thread.run_sync(retried_report, given.retry)
    only = None if given.retry is None else await anyio.to_thread.run_sync(_failed_lines, given.retry)
    with (
        only or nullcontext(),
        _open_manifest(given.manifest) as file,
        Run(invocation, "transfer", source=file.fileno() if given.manifest == "-" else Path(name)) as run,
    ):

        def on_outcome(outcome: Outcome) -> None:
            run.tally.add(outcome)
            run.write(_entry(outcome))

        record = _record(invocation, retried)
        async with invocation.engine() as engine, keeping(invocation.settings(), record, run.on_event) as kept:
            books = None if kept.journal is None else ManifestBooks(kept.journal)
            feed = ManifestFeed(
                file, name, only=only, dry_run=given.dry_run, books=books, asks=given.resume,
                folder=given.manifest_folder,
            )  # fmt: skip
            report = await engine.collect(
                feed, on_progress=run.progress.show, on_outcome=on_outcome, on_event=run.on_event
            )
            run.took(report)
            if only is not None and given.retry is not None:
                await _fail_what_is_gone(run, only, given.retry, name)
            await anyio.to_thread.run_sync(run.end_report)  # first: a kill in between would leave neither
            kept.ended(report)
    return run.exit_code


def _record(invocation: Invocation, retried: RetriedReport | None) -> RunRecord | None:
    """Return the run of a manifest that has a name.

    No platform can be asked whether what the journal knows still holds, and one line that fails every night would keep
    all the others from moving: the journal is the sole witness, and what has failed goes by ``--retry``.
    """
    given = invocation.arguments
    if given.manifest == "-" or given.dry_run or not given.resume:
        return None
    where = {
        "place": os.path.abspath(given.manifest),  # noqa: PTH100  # links stay as they are
        "folder": str(given.manifest_folder or Path.cwd()),
    }
    policy = {} if given.source_changed == "fail" else {"source_changed": given.source_changed}
    return RunRecord("transfer", where, where | policy, retried=retried, is_sole_witness=True)


class ManifestFeed:
    """Reads a manifest while its transfers go, without blocking the event loop. Memory: one read, or
    one line.

    Args:
        file: The manifest, binary; anything that has a descriptor.
        name: What to call it.
        only: Identities of the lines to run, which learn what was met; None: all.
        dry_run: Whether to say what would be done instead.
        books: The journal; None: none is kept.
        asks: Whether, without a journal, servers are asked what they have of what a line would send.
        folder: That paths count from; None: the current one.
    """

    def __init__(
        self,
        file: IO[bytes],
        name: str,
        *,
        only: Identities | None = None,
        dry_run: bool = False,
        books: ManifestBooks | None = None,
        asks: bool = False,
        folder: Path | None = None,
    ) -> None:
        self._lines = _numbered_lines(file, name)
        self._name = name
        self._only = only
        self._dry_run = dry_run
        self._books = books
        self._asks = asks and books is None and not dry_run
        self._folder = folder
        self._waiting: deque[Transfer] = deque()

    async def take(self, want: int) -> Sequence[Transfer]:
        while not self._waiting:
            lines = await anext(self._lines, None)
            if lines is None:
                return ()
            parsed = await anyio.to_thread.run_sync(self._parse, lines)
            self._waiting.extend(parsed if self._books is None else await self._books.go_on(parsed))
        return [self._waiting.popleft() for _ in range(min(want, len(self._waiting)))]

    async def renew(self, transfer: Upload | Download, *, first_part: int = 1) -> Target | Origin | None:
        return None

    def arrived(self, outcome: Outcome) -> None:
        if self._books is not None:
            self._books.arrived(outcome)

    async def settle(self, outcomes: Sequence[Outcome]) -> Sequence[Outcome]:
        if self._books is not None:
            await self._books.settle(outcomes)
        return outcomes

    def _parse(self, lines: list[tuple[int, bytes]]) -> list[Transfer]:
        parsed = (
            parse_line(line, number, self._name, dry_run=self._dry_run, folder=self._folder) for number, line in lines
        )
        meant = [one for one in parsed if self._only is None or _is_asked_for(one.key, self._only)]
        if self._asks:
            ask_server(meant)
        return meant


def _entry(outcome: Outcome) -> dict[str, Any]:
    known: Line = outcome.transfer.key
    return entry_of("transfer", outcome, source=known.source, destination=known.destination, line=known.number)


def _failed_lines(report: Path) -> Identities:
    """Return the lines that failed. Blocking."""
    found = Identities()
    try:
        found.add_all(_line_of(entry).identity for entry in read_failed(report, "transfer"))
    except BaseException:  # whatever it was, the file goes; then raised again
        found.close()
        raise
    return found


def _line_of(entry: dict[str, Any]) -> Line:
    return Line(entry.get("line") or 0, entry.get("source"), entry.get("destination"))


def _is_asked_for(line: Line, only: Identities) -> bool:
    """Whether the line failed, or was a bad one under the same number and is mended now."""
    was_bad = only.meet(Line(line.number).identity)
    return only.meet(line.identity) or was_bad


async def _fail_what_is_gone(run: Run, only: Identities, report: Path, manifest: str) -> None:
    """Count what failed according to *report* and stands in the manifest no more: nobody else would speak of it."""
    unmet = await anyio.to_thread.run_sync(only.count_unmet)
    if unmet and not await anyio.to_thread.run_sync(report.is_file):  # a pipe, which cannot be read again
        name = "further lines"
        gone = SourceNotFound(f"{manifest}: no line is about {unmet} failures of {report} any more", source=manifest)
        run.tally.add_failures(unmet, name, gone)
        run.write(make_entry("transfer", name, "failed", source=None, destination=None, error=gone))
        return
    entries = (one for one in read_failed(report, "transfer") if not only.was_met(_line_of(one).identity))
    while batch := await anyio.to_thread.run_sync(lambda: list(islice(entries, _BATCH))):
        for entry in batch:
            line, name = _line_of(entry), str(entry["name"])
            reason = f"failed according to {report}, and no line of the manifest is about it any more"
            error = InvalidRow(reason, line=line.number, file=manifest)
            run.tally.add_failure(name, error)
            run.write(
                make_entry(
                    "transfer", name, "failed", source=line.source, destination=line.destination, error=error,
                    line=line.number,
                )
            )  # fmt: skip


def _open_manifest(name: str) -> IO[bytes]:
    if name == "-":
        return os.fdopen(os.dup(sys.stdin.fileno()), "rb", buffering=0)
    with os_errors("source", source=name):
        return Path(name).open("rb", buffering=0)


async def _numbered_lines(file: IO[bytes], name: str) -> AsyncIterator[list[tuple[int, bytes]]]:
    """Yield the lines that are not blank with their numbers, as many as came with one read."""
    number = 0
    begun: list[bytes] = []  # of a line whose end has not come
    while data := await _read_some(file, name):
        lines: list[bytes] = []
        if b"\n" in data:
            *lines, data = b"".join((*begun, data)).split(b"\n")
            begun.clear()
        begun.append(data)
        if sum(map(len, begun)) > _MAX_LINE_BYTES:
            raise ConfigError(f"{name}, line {number + len(lines) + 1}: is longer than {_MAX_LINE_BYTES} bytes; "
                              "a manifest holds one JSON object per line")  # fmt: skip
        found = list(_counted(lines, number))
        number += len(lines)
        if found:
            yield found
    if found := list(_counted([b"".join(begun)], number)):
        yield found


def _counted(lines: list[bytes], number: int) -> Iterator[tuple[int, bytes]]:
    for count, line in enumerate(lines, start=number + 1):
        if line.strip():
            yield count, line


async def _read_some(file: IO[bytes], name: str) -> bytes:
    """Return what is there to read, waiting for something; nothing means the end."""
    try:
        # A thread that waits for a pipe could not be stopped by Ctrl-C; a wait in the event loop can.
        await anyio.wait_readable(file.fileno())
    except OSError as error:  # a regular file is always readable, and the event loop refuses to watch it
        if error.errno != errno.EPERM:
            raise
    with os_errors("source", source=name):
        return await anyio.to_thread.run_sync(os.read, file.fileno(), _READ_BYTES)
