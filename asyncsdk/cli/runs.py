"""What every command that moves objects does around the move: report, progress, counts, summary, exit status."""

from __future__ import annotations

import glob
import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from asyncsdk.cli.events import EventWriter
from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.formats import cell, human_size
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.progress import ProgressDisplay
from asyncsdk.cli.reports import ReportWriter, make_end, was_stopped
from asyncsdk.engine import EventCallback, Report
from asyncsdk.errors import AsyncSDKError, ConfigError, LeftUndone

__all__ = ["STOPPED", "Run", "own_files", "summary_of"]

STOPPED = "the run this report is of was stopped; run the command again without --retry"
"""Said of a retry after which objects may still be missing."""

SHOWN_FAILURES = 5


class Run:
    """A context that keeps the books of one command.

    On leaving it, also by an error or a signal, the report is closed and the summary told: one line on standard
    error, and with ``--json`` the last object on standard output. A report in which objects may be missing says so.

    Make it before anything is changed: it refuses what cannot work.

    Args:
        invocation: The command at work.
        operation: What report lines say it is; a retry must be of the same.
        source: The file or folder that the command reads, or the descriptor of an open one; None: it reads none.
        unit: What is counted.
        is_single: Whether there is one object only: the error that ended the command then says all there is to say.
        words: What the summary says of objects that are as they should be, and of the others.

    Raises:
        ConfigError: The report would overwrite *source*, or the retried report is of another operation.
        SourceNotFound, SourceUnreadable: The retried report cannot be read.
    """

    def __init__(
        self,
        invocation: Invocation,
        operation: str,
        *,
        source: Path | int | None,
        unit: str = "objects",
        is_single: bool = False,
        words: tuple[str, str] = ("done", "failed"),
    ) -> None:
        given = invocation.arguments
        self._output = invocation.output
        self._unit = unit
        self._is_single = is_single
        self._words = words
        self._report_path = given.report
        self._retry_path = given.retry
        self._events_path = given.events
        for option, path in (("--report", self._report_path), ("--events", self._events_path)):
            if path is not None and source is not None and _is_same_file(path, source):
                read = "standard input" if isinstance(source, int) else source
                raise ConfigError(f"{option} would overwrite {read}; name another file")
        for other in (self._report_path, self._retry_path):
            if self._events_path is not None and other is not None and _is_same_path(self._events_path, other):
                raise ConfigError(f"--events would overwrite {other}; name another file")
        self._retries_stopped = self._retry_path is not None and was_stopped(self._retry_path, operation)
        self._retries_into_itself = (
            self._report_path is not None
            and self._retry_path is not None
            and _is_same_file(self._report_path, self._retry_path)
        )
        if self._retries_into_itself and given.dry_run:
            raise ConfigError("--dry-run would replace the failures of this report by guesses; name another --report")
        self._settled: list[Mapping[str, Any]] = []
        self._events: EventWriter | None = None
        self._writer: ReportWriter | None = None
        self.operation = operation
        self.tally = Report()
        self.progress = ProgressDisplay(self._output, operation.replace("_", " "), unit=unit)
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        if self._events_path is not None:
            self._events = EventWriter(self._events_path, self._output)
        if self._report_path is not None:
            try:
                self._writer = ReportWriter(
                    self._report_path, retried=self._retry_path if self._retries_into_itself else None
                )
            except BaseException:  # whatever it was, the thread of the events ends; then raised again
                if self._events is not None:
                    self._events.close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.close()
        self.tally.seconds = self.seconds
        try:
            try:
                if self._writer is not None:
                    self._close(self._writer, is_whole=error is None)
            finally:
                if self._events is not None:
                    self._events.close()
        except AsyncSDKError as closing:
            if error is None:
                raise
            self._output.problem(f"the report is not complete: {closing}")
        self._tell(is_whole=error is None)
        if self._retries_stopped and error is None:
            self._output.problem(STOPPED)

    def end_report(self) -> None:
        """Write the report to its end, as that of a run that was not stopped; no line may follow. Blocking.

        For who forgets something next that a kill, while the report is being written, would still have use for.

        Raises:
            DestinationFull, DestinationUnwritable: A line could not be written.
        """
        if self._writer is not None:
            self._close(self._writer, is_whole=True)

    def _close(self, writer: ReportWriter, *, is_whole: bool) -> None:
        if is_whole:  # else those that stand for a settled entry may not be in the report yet
            for entry in self._settled:
                writer.settle(entry)
        # A stopped retry into its own report keeps what it did not reach; the only object of a command is in it if it
        # failed.
        is_all_there = is_whole or self._retries_into_itself or (self._is_single and self.tally.objects > 0)
        is_complete = is_all_there and not self._retries_stopped
        writer.close(last=make_end(self.operation, is_complete=is_complete), is_whole=is_whole)

    @property
    def exit_code(self) -> ExitCode:
        """The exit status that the counts mean; of a retry, also what the run that it retries left undone."""
        return ExitCode.OK if self.tally.ok and not self._retries_stopped else ExitCode.SOME_FAILED

    @property
    def seconds(self) -> float:
        """How long it runs."""
        return time.monotonic() - self._started

    @property
    def on_event(self) -> EventCallback | None:
        """What takes the events of engine runs; None: nobody asked for them."""
        return self._events

    def took(self, report: Report) -> None:
        """Take over what *report* of the verb says of the run as a whole: what it waited for, and whether it is whole.

        Raises:
            LeftUndone: It was drained, and something was left undone: the command ends like one that was stopped.
        """
        self.tally.add_waits(report.waits, report.cpu_share, report.seconds)
        if not report.is_complete:
            raise LeftUndone(self.tally.objects)

    def write(self, entry: Mapping[str, Any]) -> None:
        """Write one line into the report, and with ``--json`` to standard output."""
        if self._writer is not None:
            self._writer.write(entry)
        if self._output.as_json:
            self._output.record(entry)

    def settle(self, entry: Mapping[str, Any]) -> None:
        """Say that *entry* of the retried report is dealt with when the run ends, though no outcome has its name."""
        self._settled.append(entry)

    def _tell(self, *, is_whole: bool) -> None:
        tally, output = self.tally, self._output
        begun = "" if is_whole else "stopped after "
        sentence = f"{self.operation.replace('_', ' ')}: {begun}{summary_of(tally, self._unit, self._words)}"
        if self._is_single and not is_whole:
            pass
        elif tally.failed:
            output.problem(sentence)
            for failure in tally.failures[:SHOWN_FAILURES]:
                text = str(failure.error)
                named = text if failure.name in text else f"{failure.name}: {text}"
                output.problem(f"  [{failure.code}] {cell(named)}")  # in one line, whatever the name holds
            if tally.failed > SHOWN_FAILURES:
                where = f"see {self._report_path}" if self._report_path else "write them all with --report FILE"
                output.problem(f"  and {tally.failed - SHOWN_FAILURES} more; {where}")
        elif is_whole or tally.objects:
            output.note(sentence)
        if output.as_json:
            output.record({"summary": _summary_values(tally, is_whole)})


def summary_of(tally: Report, unit: str, words: tuple[str, str] = ("done", "failed")) -> str:
    """Return the summary of a run in one line."""
    seconds = max(tally.seconds, 1e-6)
    parts = [f"{tally.done} {unit if tally.done != 1 else unit[:-1]} {words[0]} ({human_size(tally.bytes_done)})"]
    if tally.skipped:
        parts.append(f"{tally.skipped} skipped")
    if tally.failed:
        kinds = ", ".join(f"{count} {code}" for code, count in tally.failures_by_code.most_common())
        parts.append(f"{tally.failed} {words[1]} ({kinds})")
    rates = f"{tally.done / seconds:.1f} {unit}/s, {tally.bytes_done / seconds / 1e6:.1f} MB/s"
    found = tally.bottleneck
    limited = "" if found is None else f"; limited by {found}"
    return f"{', '.join(parts)} in {seconds:.1f} s ({rates}{limited})"


def _summary_values(tally: Report, is_whole: bool) -> dict[str, Any]:
    seconds = max(tally.seconds, 1e-6)
    found = tally.bottleneck
    return {
        "done": tally.done,
        "skipped": tally.skipped,
        "failed": tally.failed,
        "bytes_done": tally.bytes_done,
        "seconds": round(seconds, 6),
        "objects_per_second": round(tally.done / seconds, 3),
        "bytes_per_second": round(tally.bytes_done / seconds, 3),
        "failures_by_code": dict(tally.failures_by_code),
        "bottleneck": None if found is None else found.reason,
        "bottleneck_share": None if found is None else round(found.share, 3),
        "waits": {reason.value: round(spent, 3) for reason, spent in tally.waits.items()},
        "cpu_share": round(tally.cpu_share, 3),
        "is_complete": is_whole,
    }


def own_files(folder: Path, report: Path | None, events: Path | None) -> list[str]:
    """Return the patterns that leave out what a command writes into the *folder* that it reads."""
    if not folder.is_dir():
        return []
    patterns = []
    for path in (report, events):
        if path is None or str(path) == "-":
            continue
        try:
            inside = path.resolve().relative_to(folder.resolve())
        except ValueError:
            continue
        patterns.append(f"/{glob.escape(inside.as_posix())}")
    return patterns


def _is_same_path(one: Path, other: Path) -> bool:
    """Whether both name one regular file, or one that is not there yet."""
    return _is_same_file(one, other) or (not one.exists() and one.resolve() == other.resolve())


def _is_same_file(one: Path, other: Path | int) -> bool:
    """Whether both are one regular file, whatever its names; the terminal or ``/dev/null`` may be given twice."""
    try:
        facts = one.stat()
        return stat.S_ISREG(facts.st_mode) and os.path.samestat(facts, os.stat(other))  # noqa: PTH116  # takes numbers
    except OSError:  # it is not there, or opening it will tell why it cannot be
        return False
