"""The command line: ``asyncsdk COMMAND``, or ``python -m asyncsdk COMMAND``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]

_INTERRUPTED = 130
"""`ExitCode.INTERRUPTED`, which is not loaded then."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; see `asyncsdk.cli.program.main`.

    Args:
        argv: Arguments without the name of the program; None takes those of the process.
    """
    try:
        from asyncsdk.cli.program import main as run  # takes a second on a busy machine
    except KeyboardInterrupt:
        print("asyncsdk: error: interrupted", file=sys.stderr)
        return _INTERRUPTED
    return run(argv)
