"""Where words go: results to standard output, everything else to standard error.

With ``--json`` standard output holds one JSON object per line and nothing else; an error that ends the command is the
object ``{"error": {"code", "message", "exit_status"}}`` there, and a sentence on standard error.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import orjson

from asyncsdk.cli.formats import cell

__all__ = ["Output", "forget", "json_line"]

PROGRAM = "asyncsdk"


def json_line(values: Mapping[str, Any]) -> bytes:
    """Return *values* as one line of JSON; file names that are not valid Unicode keep their bytes as escapes."""
    try:
        return orjson.dumps(values, option=orjson.OPT_APPEND_NEWLINE, default=str)
    except TypeError:  # lone surrogates, which the standard library writes and reads as escapes
        return json.dumps(values, default=str).encode() + b"\n"


class Output:
    """Writes for people or for programs.

    A result that cannot be written ends the command; what is only told (notes, problems, progress) never does: the
    terminal may be gone, and the disk behind standard error full, while the work goes on.

    Args:
        as_json: Whether standard output holds JSON lines.
        is_quiet: Whether standard error holds errors only.
    """

    def __init__(self, *, as_json: bool = False, is_quiet: bool = False) -> None:
        self.as_json = as_json
        self.is_quiet = is_quiet
        self._stdout: TextIO = sys.stdout
        self._stderr: TextIO = sys.stderr

    @property
    def stderr(self) -> TextIO:
        """Standard error."""
        return self._stderr

    @property
    def is_terminal(self) -> bool:
        """Whether standard error is a terminal."""
        return self._stderr.isatty()

    def record(self, values: Mapping[str, Any]) -> None:
        """Write one object as a line of JSON, at once."""
        line = json_line(values)
        binary = getattr(self._stdout, "buffer", None)
        if binary is None:
            self._stdout.write(line.decode())
        else:
            binary.write(line)
            binary.flush()

    def text(self, line: str) -> None:
        """Write one line of a result for people; nothing with ``--json``."""
        if not self.as_json:
            print(_encodable(line, self._stdout), file=self._stdout)

    def note(self, line: str) -> None:
        """Tell something that is no result; nothing with ``--quiet``."""
        if not self.is_quiet:
            self._say(line)

    def problem(self, line: str) -> None:
        """Tell what went wrong, always."""
        self._say(line)

    def error(self, code: str, message: str, status: int, **facts: Any) -> None:
        """Tell the error that ends the command."""
        self._say(f"error: {message}")
        if self.as_json:
            known = {name: value for name, value in facts.items() if value}
            self.record({"error": {"code": code, "message": message, "exit_status": status, **known}})

    def flush(self) -> None:
        """Hand everything written to the operating system.

        Raises:
            OSError: Results could not be written.
        """
        self._stdout.flush()
        try:
            self._stderr.flush()
        except OSError:  # nobody can be told; the interpreter would fail with it at its end
            forget(self._stderr)

    def _say(self, line: str) -> None:
        try:
            print(_encodable(f"{PROGRAM}: {line}", self._stderr), file=self._stderr, flush=True)
        except OSError:  # nobody reads it any more, or a disk is full: no reason to stop working
            return


def forget(stream: TextIO) -> None:
    """Keep the interpreter from complaining, at its end, of output that nobody takes."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(null, stream.fileno())
        finally:
            os.close(null)
    except (OSError, ValueError):  # a stream without a descriptor, or a closed one: nothing to keep quiet
        return


def _encodable(line: str, stream: TextIO) -> str:
    shown = "\n".join(cell(part) for part in line.split("\n"))
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return shown.encode(encoding, errors="backslashreplace").decode(encoding)
