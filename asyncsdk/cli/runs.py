"""What every command that moves objects does around the move: report, progress, counts, summary, exit status."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from asyncsdk.cli.exits import ExitCode
from asyncsdk.cli.formats import human_size
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.progress import ProgressDisplay
from asyncsdk.cli.reports import ReportWriter
from asyncsdk.engine import Report
from asyncsdk.errors import AsyncSDKError

__all__ = ["Run", "summary_of"]

SHOWN_FAILURES = 5


class Run:
    """A context that keeps the books of one command.

    On leaving it, also by an error or a signal, the report is complete and the summary told: one line on standard
    error, and with ``--json`` the last object on standard output.

    Args:
        invocation: The command at work.
        operation: What report lines say it is; a retry must be of the same.
        unit: What is counted.
        is_single: Whether there is one object only: the error that ended the command then says all there is to say.
    """

    def __init__(
        self, invocation: Invocation, operation: str, *, unit: str = "objects", is_single: bool = False
    ) -> None:
        given = invocation.arguments
        self._output = invocation.output
        self._unit = unit
        self._is_single = is_single
        self._report_path = given.report
        self._retry_path = given.retry
        self._writer: ReportWriter | None = None
        self.operation = operation
        self.tally = Report()
        self.progress = ProgressDisplay(self._output, operation.replace("_", " "), unit=unit)
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        if self._report_path is not None:
            same = self._retry_path if _same_file(self._report_path, self._retry_path) else None
            self._writer = ReportWriter(self._report_path, retried=same)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.close()
        self.tally.seconds = self.seconds
        try:
            if self._writer is not None:
                self._writer.close()
        except AsyncSDKError as closing:
            if error is None:
                raise
            self._output.problem(f"the report is not complete: {closing}")
        self._tell(is_whole=error is None)

    @property
    def exit_code(self) -> ExitCode:
        """The exit status that the counts mean."""
        return ExitCode.OK if self.tally.ok else ExitCode.SOME_FAILED

    @property
    def seconds(self) -> float:
        """How long it runs."""
        return time.monotonic() - self._started

    def write(self, entry: Mapping[str, Any]) -> None:
        """Write one line into the report, and with ``--json`` to standard output."""
        if self._writer is not None:
            self._writer.write(entry)
        if self._output.as_json:
            self._output.record(entry)

    def settle(self, entry: Mapping[str, Any]) -> None:
        """Say that *entry* of the retried report is dealt with, though no outcome will have its name."""
        if self._writer is not None:
            self._writer.settle(entry)

    def _tell(self, *, is_whole: bool) -> None:
        tally, output = self.tally, self._output
        begun = "" if is_whole else "stopped after "
        sentence = f"{self.operation.replace('_', ' ')}: {begun}{summary_of(tally, self._unit)}"
        if self._is_single and not is_whole:
            pass
        elif tally.failed:
            output.problem(sentence)
            for failure in tally.failures[:SHOWN_FAILURES]:
                text = str(failure.error)
                named = text if failure.name in text else f"{failure.name}: {text}"
                output.problem(f"  [{failure.code}] {named}")
            if tally.failed > SHOWN_FAILURES:
                where = f"see {self._report_path}" if self._report_path else "write them all with --report FILE"
                output.problem(f"  and {tally.failed - SHOWN_FAILURES} more; {where}")
        elif is_whole or tally.objects:
            output.note(sentence)
        if output.as_json:
            output.record({"summary": _summary_values(tally, is_whole)})


def summary_of(tally: Report, unit: str) -> str:
    """Return the summary of a run in one line."""
    seconds = max(tally.seconds, 1e-6)
    parts = [f"{tally.done} {unit if tally.done != 1 else unit[:-1]} done ({human_size(tally.bytes_done)})"]
    if tally.skipped:
        parts.append(f"{tally.skipped} skipped")
    if tally.failed:
        kinds = ", ".join(f"{count} {code}" for code, count in tally.failures_by_code.most_common())
        parts.append(f"{tally.failed} failed ({kinds})")
    rates = f"{tally.done / seconds:.1f} {unit}/s, {tally.bytes_done / seconds / 1e6:.1f} MB/s"
    return f"{', '.join(parts)} in {seconds:.1f} s ({rates})"


def _summary_values(tally: Report, is_whole: bool) -> dict[str, Any]:
    seconds = max(tally.seconds, 1e-6)
    return {
        "done": tally.done,
        "skipped": tally.skipped,
        "failed": tally.failed,
        "bytes_done": tally.bytes_done,
        "seconds": round(seconds, 6),
        "objects_per_second": round(tally.done / seconds, 3),
        "bytes_per_second": round(tally.bytes_done / seconds, 3),
        "failures_by_code": dict(tally.failures_by_code),
        "is_complete": is_whole,
    }


def _same_file(one: Path, other: Path | None) -> bool:
    return other is not None and one.exists() and other.exists() and one.samefile(other)
