"""The program: parse, run, tell what went wrong, exit."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from asyncsdk.cli.exits import ExitCode, exit_code_of, is_foreseen
from asyncsdk.cli.interrupts import Interrupted, Stage, run_interruptible
from asyncsdk.cli.invocation import Invocation
from asyncsdk.cli.output import Output, forget
from asyncsdk.cli.parser import parse
from asyncsdk.errors import AsyncSDKError, ResponseError, Unauthenticated, server_code_of

__all__ = ["main"]

_MEANING = {
    Stage.DRAINING: "finishing what is under way and beginning nothing new; once more to stop that, too",
    Stage.CANCELLED: "stopping and cleaning up; once more to end at once",
}
"""What is said of a signal. Of the last one nothing is: the process ends before anybody could."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Signal handlers are set while a command runs and removed when it ended.

    Args:
        argv: Arguments without the name of the program; None takes those of the process.
    """
    _open_missing_streams()
    given = sys.argv[1:] if argv is None else list(argv)
    # Until the arguments are understood, so that a mistake in them is told in the form that was asked for.
    output = Output(as_json="--json" in given)
    is_debug = "--debug" in given or bool(os.environ.get("ASYNCSDK_DEBUG"))
    try:
        arguments = parse(given)
        output = Output(as_json=arguments.json, is_quiet=arguments.quiet)
        with _logging(output.stderr, is_debug=is_debug):
            status = _run(Invocation(arguments, output))
        output.flush()
        return int(status)
    except SystemExit as error:  # --help and --version
        return int(error.code or 0)
    except Interrupted as error:
        return _interrupted(output, error.exit_status, error.__cause__, is_debug=is_debug)
    except KeyboardInterrupt:  # before or after the event loop
        return _interrupted(output, int(ExitCode.INTERRUPTED))
    except BrokenPipeError:
        forget(sys.stdout)
        return int(ExitCode.BROKEN_PIPE)
    except Exception as error:  # noqa: BLE001  # the last one who can tell the user what happened
        return _fail(output, error, is_debug=is_debug)


def _run(invocation: Invocation) -> int:
    arguments = invocation.arguments
    prepare = getattr(arguments, "prepare", None)
    if prepare is not None:
        prepare(invocation)
    if "block" in arguments:
        return int(arguments.block(invocation))

    def on_signal(number: int, stage: Stage) -> None:
        invocation.output.problem(f"{signal.Signals(number).name}: {_MEANING[stage]}")

    return run_interruptible(lambda: arguments.work(invocation), on_signal, invocation.drain)


def _fail(output: Output, error: Exception, *, is_debug: bool) -> int:
    status = exit_code_of(error)
    if is_debug:
        _show_trace(output, error)
    message = str(error) or type(error).__name__
    if not is_foreseen(error):
        message = f"{type(error).__name__}: {message} (this should not happen; --debug shows where)"
    elif isinstance(error, Unauthenticated):
        message = f"{message}; log in with: asyncsdk login URL"
    code = error.code if isinstance(error, AsyncSDKError) else "unexpected" if not is_foreseen(error) else "os_error"
    request_id = error.request_id if isinstance(error, ResponseError) else ""
    server_code = server_code_of(error)
    try:
        output.error(code, message, int(status), request_id=request_id, server_code=server_code)
        output.flush()
    except OSError:  # nobody reads it any more, or the disk behind it is full, which may be the error just told
        forget(sys.stdout)
    return int(status)


def _interrupted(output: Output, status: int, cause: BaseException | None = None, *, is_debug: bool = False) -> int:
    """Tell that a signal ended the command, and *cause*: what its cleanup raised."""
    if cause is not None:
        if is_debug:
            _show_trace(output, cause)
        output.problem(f"while stopping: {str(cause) or type(cause).__name__}")
    try:
        output.error("interrupted", "interrupted; running the same command again goes on", status)
        output.flush()
    except OSError:  # as in _fail
        forget(sys.stdout)
    return status


def _show_trace(output: Output, error: BaseException) -> None:
    try:
        traceback.print_exception(error, file=output.stderr)
    except OSError:  # as of any other words: nobody reads them any more
        return


def _open_missing_streams() -> None:
    """Put nothing in the place of standard streams that are closed (``2>&-``).

    What is opened next would get their numbers, and the words that are meant for them; the fast event loop ends a
    process that closes one of those.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", closefd=False)


@contextmanager
def _logging(stream: TextIO, *, is_debug: bool) -> Iterator[None]:
    """Show warnings of all libraries, and with ``--debug`` everything of this package, on standard error.

    Other libraries stay at warnings: the HTTP client would log URLs.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("asyncsdk: %(levelname)s: %(name)s: %(message)s"))
    ours, root = logging.getLogger("asyncsdk"), logging.getLogger()
    before = ours.level
    handler.setLevel(logging.DEBUG if is_debug else logging.WARNING)
    root.addHandler(handler)
    if is_debug:
        ours.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        ours.setLevel(before)
        root.removeHandler(handler)
        handler.close()
