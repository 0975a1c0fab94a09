"""Exit statuses: distinct, documented, and right for each error."""

from __future__ import annotations

import pytest

from asyncsdk import errors
from asyncsdk.cli.exits import ExitCode, exit_code_of, exit_codes_help, is_foreseen


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


def test_only_mistakes_of_ours_are_unforeseen() -> None:
    """Errors written for users need no traceback; others do."""
    assert is_foreseen(errors.NotFound("x"))
    assert is_foreseen(OSError("x"))
    assert not is_foreseen(KeyError("x"))
