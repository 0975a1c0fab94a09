"""Exit statuses: distinct, documented, and right for each error."""

from __future__ import annotations

import inspect

import pytest

from asyncsdk import errors
from asyncsdk.cli.exits import ExitCode, exit_code_of, exit_codes_help, is_foreseen

BASES = (errors.AsyncSDKError, errors.ResponseError)
"""Nothing raises them themselves."""


def test_every_exit_status_is_documented() -> None:
    """Each number stands on its own line of the help, once."""
    listed = [int(line.split()[0]) for line in exit_codes_help().splitlines()[1:]]
    assert listed == [code.value for code in ExitCode]
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("x"), ExitCode.USAGE),
        (errors.Unauthenticated("x"), ExitCode.AUTHENTICATION),
        (errors.PermissionDenied("x"), ExitCode.AUTHENTICATION),
        (errors.NotFound("x"), ExitCode.NOT_FOUND),
        (errors.SourceNotFound("x"), ExitCode.NOT_FOUND),
        (errors.ConnectionFailed("x"), ExitCode.SERVER),
        (errors.RequestTimeout("connect"), ExitCode.SERVER),
        (errors.ServerError("x"), ExitCode.SERVER),
        (errors.Conflict("x"), ExitCode.REFUSED),
        (errors.InvalidName("x", "y"), ExitCode.REFUSED),
        (errors.InvalidRow("x", line=1), ExitCode.REFUSED),
        (errors.InvalidImage("x", "y"), ExitCode.REFUSED),
        (errors.InvalidModel("x"), ExitCode.REFUSED),
        (errors.MetricsNotSent(1, None), ExitCode.SOME_FAILED),
        (errors.LeftUndone(1), ExitCode.SOME_FAILED),
        (errors.ForkedProcessError("x"), ExitCode.USAGE),
        (errors.DestinationFull("x"), ExitCode.LOCAL),
        (errors.StoreError("x", "y"), ExitCode.LOCAL),
        (OSError("x"), ExitCode.LOCAL),
        (BrokenPipeError(), ExitCode.BROKEN_PIPE),
        (errors.ChecksumMismatch("a", "b"), ExitCode.SOME_FAILED),
        (KeyError("x"), ExitCode.UNEXPECTED),
    ],
)
def test_each_error_has_its_exit_status(error: BaseException, code: ExitCode) -> None:
    assert exit_code_of(error) is code


def test_every_error_of_ours_has_one() -> None:
    """None is told as one that nobody foresaw."""
    classes = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]
    ours = [cls for cls in classes if issubclass(cls, errors.AsyncSDKError) and cls not in BASES]
    assert len(ours) > 35
    unforeseen = [cls.__name__ for cls in ours if exit_code_of(cls.__new__(cls)) is ExitCode.UNEXPECTED]
    assert unforeseen == []


def test_only_mistakes_of_ours_are_unforeseen() -> None:
    """Errors written for users need no traceback; others do."""
    assert is_foreseen(errors.NotFound("x"))
    assert is_foreseen(OSError("x"))
    assert not is_foreseen(KeyError("x"))
