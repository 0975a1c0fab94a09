"""What the exit status of the command line means."""

from __future__ import annotations

from enum import IntEnum

from asyncsdk.errors import (
    AsyncSDKError,
    BadRequest,
    ConfigError,
    Conflict,
    DestinationFull,
    DestinationUnwritable,
    ForkedProcessError,
    InvalidArchive,
    InvalidImage,
    InvalidModel,
    InvalidName,
    InvalidRow,
    JobEnded,
    JournalCorrupt,
    LeftUndone,
    MalformedResponse,
    MetricsNotSent,
    NotFound,
    NoWorker,
    PermissionDenied,
    RateLimited,
    RequestError,
    RunnerUnavailable,
    ServerError,
    SourceChanged,
    SourceNotFound,
    SourceUnreadable,
    StoreError,
    TransferError,
    Unauthenticated,
    UnsupportedOperation,
)

__all__ = ["ExitCode", "exit_code_of", "exit_codes_help", "is_foreseen"]


class ExitCode(IntEnum):
    """Every exit status. Numbers never change between releases."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    SOME_FAILED = 3
    AUTHENTICATION = 4
    NOT_FOUND = 5
    SERVER = 6
    REFUSED = 7
    LOCAL = 8
    DIFFERENT = 9
    HUNG_UP = 129
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


_MEANINGS = {
    ExitCode.OK: "everything asked for was done",
    ExitCode.UNEXPECTED: "an error nobody foresaw; run again with --debug and report it",
    ExitCode.USAGE: "an option, argument or setting makes no sense",
    ExitCode.SOME_FAILED: "objects failed; the others were moved (see --report and --retry); or a job did not succeed",
    ExitCode.AUTHENTICATION: "no token, a wrong one, or not enough rights (asyncsdk login)",
    ExitCode.NOT_FOUND: "a dataset, model, project, item, file or folder is not there",
    ExitCode.SERVER: "the server did not answer, or failed",
    ExitCode.REFUSED: "the platform refused: a name is taken, ambiguous or invalid, a value is wrong",
    ExitCode.LOCAL: "a file or folder of this machine cannot be read or written, or a disk is full",
    ExitCode.DIFFERENT: "verify found differences",
    ExitCode.HUNG_UP: "the terminal is gone (SIGHUP): something was left undone; the same command again goes on",
    ExitCode.INTERRUPTED: "interrupted (Ctrl-C): something was left undone; the same command again goes on",
    ExitCode.BROKEN_PIPE: "whoever read the output went away",
    ExitCode.TERMINATED: "terminated (SIGTERM): something was left undone; the same command again goes on",
}

_BY_ERROR: tuple[tuple[tuple[type[BaseException], ...], ExitCode], ...] = (
    ((ConfigError, ForkedProcessError), ExitCode.USAGE),
    ((Unauthenticated, PermissionDenied), ExitCode.AUTHENTICATION),
    ((NotFound, SourceNotFound), ExitCode.NOT_FOUND),
    ((RequestError, RateLimited, ServerError, MalformedResponse), ExitCode.SERVER),
    (
        (
            Conflict,
            BadRequest,
            InvalidArchive,
            InvalidImage,
            InvalidModel,
            InvalidName,
            InvalidRow,
            NoWorker,
            RunnerUnavailable,
            UnsupportedOperation,
        ),
        ExitCode.REFUSED,
    ),
    (
        (SourceUnreadable, SourceChanged, DestinationFull, DestinationUnwritable, StoreError, JournalCorrupt, OSError),
        ExitCode.LOCAL,
    ),
    ((TransferError, JobEnded, LeftUndone, MetricsNotSent), ExitCode.SOME_FAILED),
)


def exit_code_of(error: BaseException) -> ExitCode:
    """Return the exit status for an error that ended a command."""
    if isinstance(error, BrokenPipeError):
        return ExitCode.BROKEN_PIPE
    for types, code in _BY_ERROR:
        if isinstance(error, types):
            return code
    return ExitCode.UNEXPECTED


def is_foreseen(error: BaseException) -> bool:
    """Whether the message of *error* was written for users, so that nobody needs its traceback."""
    return isinstance(error, (AsyncSDKError, OSError))


def exit_codes_help() -> str:
    """Return the exit status section of ``--help``."""
    return "exit status:\n" + "\n".join(f"  {code.value:>3}  {meaning}" for code, meaning in _MEANINGS.items())
