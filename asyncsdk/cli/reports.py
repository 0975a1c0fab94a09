"""``--report``: one JSON line per object. ``--retry``: what failed according to such a report.

A line::

    {"operation": "upload", "name": "a.jpg", "source": "/photos/a.jpg", "destination": null, "status": "failed",
     "code": "permission_denied", "server_code": "AccessDenied", "message": "...", "size_bytes": 0, "seconds": 0.0,
     "attempts": 1, "crc32c": null, "verified": false}

``status`` is ``done``, ``skipped`` or ``failed``; of a dry run, ``message`` is ``would_send`` or ``would_fetch``.
``code`` is a word of ours (`AsyncSDKError.code`), ``server_code`` that of the server which refused, if it had its own.
What is not known of an object (attempts of a row, say) is null. Operations add what they need to find the object again
(``line``, ``metadata``, and ``path`` where ``name`` shows bytes that are no Unicode); ``waits`` says how many seconds
the requests of the object waited, by reason, where that was counted. No line holds the query of a URL,
a header or a token.

One more line says how the run ended: ``complete``, so that every object is in the report, or ``incomplete``::

    {"operation": "upload", "name": "", "status": "complete"}

A report without either is of a process that was killed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import orjson

from asyncsdk.cli.identities import Identities
from asyncsdk.cli.lines import LineWriter, claim, open_alone
from asyncsdk.cli.output import json_line
from asyncsdk.engine import Outcome, Skipped
from asyncsdk.engine.journal import RetriedReport
from asyncsdk.engine.temporaries import temporary_name
from asyncsdk.engine.transfers import OutcomeStatus
from asyncsdk.errors import AsyncSDKError, ConfigError, server_code_of
from asyncsdk.os_errors import os_errors

__all__ = [
    "ReportWriter",
    "entry_of",
    "failed_lines",
    "identity_of",
    "make_end",
    "make_entry",
    "read_failed",
    "retried_report",
    "was_stopped",
]

_COMPLETE = "complete"
_INCOMPLETE = "incomplete"
_LAST_BYTES = 4096
"""Far more than the line that ends a report."""


def make_entry(
    operation: str,
    name: str,
    status: OutcomeStatus,
    *,
    source: str | None,
    destination: str | None,
    error: AsyncSDKError | None = None,
    message: str | None = None,
    size_bytes: int | None = 0,
    seconds: float | None = None,
    attempts: int | None = None,
    crc32c: str | None = None,
    verified: bool | None = None,
    **facts: Any,
) -> dict[str, Any]:
    """Return a report line; *facts* that are None are left out."""
    return {
        "operation": operation,
        "name": name,
        "source": source,
        "destination": destination,
        "status": status if error is None else "failed",
        "code": None if error is None else error.code,
        "server_code": None if error is None else server_code_of(error),
        "message": message if error is None else str(error),
        "size_bytes": size_bytes,
        "seconds": None if seconds is None else round(seconds, 6),
        "attempts": attempts,
        "crc32c": crc32c,
        "verified": verified,
        **{fact: value for fact, value in facts.items() if value is not None},
    }


def entry_of(
    operation: str, outcome: Outcome, *, source: str | None, destination: str | None, **facts: Any
) -> dict[str, Any]:
    """Return the report line of an outcome of the engine."""
    return make_entry(
        operation,
        outcome.name,
        outcome.status,
        source=source,
        destination=destination,
        error=outcome.error,
        message=_intention(outcome),
        size_bytes=outcome.size_bytes,
        seconds=outcome.seconds,
        attempts=outcome.attempts,
        crc32c=outcome.crc32c,
        verified=outcome.verified,
        waits={reason.value: round(spent, 6) for reason, spent in outcome.waits.items()} if outcome.waits else None,
        **facts,
    )


def make_end(operation: str, *, is_complete: bool) -> dict[str, Any]:
    """Return the line that ends a report; *is_complete*: the run was not stopped, so that no object is missing."""
    return {"operation": operation, "name": "", "status": _COMPLETE if is_complete else _INCOMPLETE}


def _intention(outcome: Outcome) -> str | None:
    """Return what a dry run says: ``would_send``, ``would_fetch``."""
    reply = outcome.transfer.reply if isinstance(outcome.transfer, Skipped) else None
    return reply if isinstance(reply, str) else None


def identity_of(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what makes two lines speak of the same object. Where a line says where it comes from and where it goes,
    its number does not count: a manifest that was written again has its lines elsewhere. Where it says neither, the
    number alone counts: the manifest may be called otherwise."""
    source, destination = entry.get("source"), entry.get("destination")
    line = entry.get("line") if source is None or destination is None else None
    is_bad = line is not None and source is None and destination is None
    return entry.get("operation"), None if is_bad else entry.get("name"), source, destination, line


def _numbered_identity_of(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    return *identity_of(entry), entry.get("line")


def _meanings(entry: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield *entry*, and what it would be had its line been a bad one: that is mended then."""
    yield entry
    if entry.get("line") is not None:
        yield {"operation": entry.get("operation"), "line": entry["line"]}


class ReportWriter:
    """Writes report lines as they come, on a thread of its own: the event loop never waits for a disk, unless the
    disk is 10,000 lines behind.

    Lines are handed to the operating system at once, so that a killed process loses a line at most. With *retried* the
    new report replaces the one it came from only at `close`, and keeps the failed lines that were not reached: a
    retry that is interrupted loses nothing. Memory does not grow with the number of lines.

    Args:
        path: The report; replaced.
        retried: The report that is being retried, when it is the same file.

    Raises:
        ConfigError: Another run writes it.
        DestinationUnwritable, DestinationFull: It cannot be written.
    """

    def __init__(self, path: Path, *, retried: Path | None = None) -> None:
        self._path = path
        self._retried = retried
        self._settled: list[Mapping[str, Any]] = []
        self._claim: int | None = None
        if retried is None:
            file, self._temporary = open_alone(path), path
        else:
            self._claim = claim(path)
            try:
                file, self._temporary = self._open_beside(path)
            except BaseException:  # whatever it was, the claim is let go; then raised again
                os.close(self._claim)
                raise
        self._lines = LineWriter(file, path, "asyncsdk report")

    def write(self, entry: Mapping[str, Any]) -> None:
        """Add one line.

        Raises:
            DestinationFull, DestinationUnwritable: An earlier line could not be written.
        """
        self._lines.check()
        self._lines.write(json_line(entry))

    def settle(self, entry: Mapping[str, Any]) -> None:
        """Take *entry* of the retried report for reached: others stand for it now."""
        self._settled.append(entry)

    def close(self, *, last: Mapping[str, Any] | None = None, is_whole: bool = False) -> None:
        """Write what is left and close the file.

        Args:
            last: A line to end with, behind those that are kept of the retried report.
            is_whole: Whether all lines of a manifest were reached. Of lines with one identity it is not known otherwise
                which one a failure was, and only that of the same number counts as reached.

        Raises:
            DestinationFull, DestinationUnwritable: A line could not be written.
        """
        if self._lines.is_closed:
            return
        try:
            try:
                if self._retried is not None:
                    self._keep_unreached(self._retried, identity_of if is_whole else _numbered_identity_of)
                if last is not None:
                    self._lines.write(json_line(last))
            finally:
                self._lines.close(is_durable=self._retried is not None)
            if self._retried is not None and not self._lines.has_failed:
                with os_errors("destination", destination=str(self._path)):
                    self._temporary.chmod(self._path.stat().st_mode & 0o777)
                    self._temporary.replace(self._path)
        finally:
            if self._retried is not None:  # whatever went wrong: what is retried stands as it was
                self._temporary.unlink(missing_ok=True)
            if self._claim is not None:
                os.close(self._claim)
        self._lines.check()

    def _keep_unreached(self, retried: Path, name: Callable[[Mapping[str, Any]], tuple[Any, ...]]) -> None:
        """Add the failures of *retried* that no line of ours speaks of; read back, so that nobody has to remember."""
        self._lines.wait()
        self._lines.check()
        with Identities() as reached:
            reached.add_all(map(name, self._settled))
            with self._temporary.open("rb") as file:
                reached.add_all(name(meant) for line in file for meant in _meanings(_parsed(line)))
            for line in failed_lines(retried):
                if name(_parsed(line)) not in reached:
                    self._lines.write(line)

    @staticmethod
    def _open_beside(path: Path) -> tuple[IO[bytes], Path]:
        with os_errors("destination", destination=str(path)):
            # Of a name that no upload takes for data, should this process be killed in between.
            beside = path.with_name(temporary_name(path.name))
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
            return os.fdopen(os.open(beside, flags, 0o600), "wb", 0), beside


def _parsed(line: bytes) -> Any:
    """Return what a line holds; names that are no Unicode are escapes that only the standard library reads."""
    return orjson.loads(line) if b"\\u" not in line else json.loads(line)


def failed_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a report that say ``failed``, as they stand. A last line cut short is passed over.

    Raises:
        SourceNotFound, SourceUnreadable: The report cannot be read.
        ConfigError: It is no report.
    """
    with os_errors("source", source=str(path)), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                entry = _parsed(line)
            except ValueError as error:
                if not line.endswith(b"\n"):
                    return  # the process that wrote it was killed in the middle of this line
                raise ConfigError(f"{path}, line {number}: is no line of a report: {error}") from None
            if not isinstance(entry, dict) or "status" not in entry or "name" not in entry:
                raise ConfigError(f"{path}, line {number}: is no line of a report; it has no 'name' and 'status'")
            if entry["status"] == "failed":
                yield line


def read_failed(path: Path, operation: str) -> Iterator[dict[str, Any]]:
    """Yield what failed according to a report of *operation*.

    Raises:
        SourceNotFound, SourceUnreadable: The report cannot be read.
        ConfigError: It is no report, or one of another operation.
    """
    for line in failed_lines(path):
        entry: dict[str, Any] = json.loads(line)
        _check_operation(path, entry, operation)
        yield entry


def retried_report(path: Path) -> RetriedReport:
    """Return what the journal of a retry says of the report at *path*. Blocking.

    Raises:
        SourceNotFound, SourceUnreadable: It cannot be looked at.
    """
    with os_errors("source", source=str(path)):
        return RetriedReport.of(path)


def was_stopped(path: Path, operation: str) -> bool:
    """Whether objects may be missing in the report of *operation*: it does not end as that of a whole run does.

    Reads its end only. A report that is no regular file, and can be read only once, is taken for whole.

    Raises:
        SourceNotFound, SourceUnreadable: The report cannot be read.
        ConfigError: It ends as one of another operation.
    """
    with os_errors("source", source=str(path)):
        size = path.stat().st_size
        if not path.is_file():
            return False
        with path.open("rb") as file:
            file.seek(max(0, size - _LAST_BYTES))
            end = file.read()
    try:
        entry = json.loads(end.rstrip().rpartition(b"\n")[2])
    except ValueError:
        return True  # cut short, longer than what was read, or no report, which reading it tells
    if not isinstance(entry, dict) or entry.get("status") not in {_COMPLETE, _INCOMPLETE}:
        return True  # killed before it could say how it ended
    _check_operation(path, entry, operation)
    return bool(entry["status"] == _INCOMPLETE) or not end.endswith(b"\n")


def _check_operation(path: Path, entry: Mapping[str, Any], operation: str) -> None:
    found = entry.get("operation")
    if found != operation:
        raise ConfigError(f"{path}: is a report of {found!r}, it cannot be retried by {operation!r}")
