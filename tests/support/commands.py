"""The command line, run by tests: as a process of its own, or in this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, NamedTuple

import pytest

from asyncsdk.cli import main

__all__ = ["WAIT_SECONDS", "Caller", "Said", "command", "lines", "run"]

WAIT_SECONDS = 50


class Said(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """Standard output as JSON lines; fails when anything else stands there."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = self.records[-1]["summary"]
        return found


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "asyncsdk", *map(str, arguments)]


def run(*arguments: object, stdin: str | None = None, **environment: str) -> Said:
    """Run a command as a process of its own."""
    done = subprocess.run(
        command(*arguments),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        env={**os.environ, **environment},
    )
    return Said(done.returncode, done.stdout, done.stderr)


class Caller:
    """Runs commands in this process, which is ten times faster."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *arguments: object) -> Said:
        self._capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        return Said(status, *self._capfd.readouterr())


def lines(*values: object) -> str:
    """Return *values* as JSON lines."""
    return "".join(json.dumps(value) + "\n" for value in values)
