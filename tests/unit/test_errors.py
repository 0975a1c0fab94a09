"""The error tree: what it says, what it hides, and that it survives pickling."""

from __future__ import annotations

import errno
import inspect
import pickle
import re

import pytest

from asyncsdk import errors
from asyncsdk.errors import (
    AsyncSDKError,
    BadRequest,
    ChecksumMismatch,
    Conflict,
    DestinationFull,
    DestinationUnwritable,
    IncompleteTransfer,
    InvalidName,
    InvalidRow,
    NotFound,
    PermissionDenied,
    RateLimited,
    RequestTimeout,
    ServerError,
    SourceNotFound,
    SourceUnreadable,
    StoreError,
    Unauthenticated,
    UnsupportedOperation,
    redact_url,
    response_error,
)
from asyncsdk.os_errors import os_error

EXAMPLES = [
    UnsupportedOperation("rest", "CreateTag"),
    RequestTimeout("connect", 3.0, "http://h/p?sig=SECRET"),
    Conflict("taken", ids=("a", "b"), status=412, code="precondition", request_id="r1", body={"x": 1}),
    RateLimited("slow down", retry_after=2.5),
    ChecksumMismatch("crc32c:1", "crc32c:2", source="a", destination="b", part=3, bytes_done=4),
    IncompleteTransfer(10, 4, source="a"),
    InvalidName("../x", "goes up"),
    errors.InvalidImage("a.png", "is damaged"),
    InvalidRow("bad score", line=3, file="rows.jsonl"),
    StoreError("/data", "is newer"),
    SourceNotFound("gone", source="x"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_errors_survive_pickling_whole(error: AsyncSDKError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.__dict__ == error.__dict__


def test_every_error_has_a_code_of_its_own() -> None:
    classes = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, AsyncSDKError)]
    codes = [cls.__dict__.get("code") for cls in classes]
    assert len(classes) > 25
    assert None not in codes
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(
    ("status", "expected", "retryable"),
    [
        (400, BadRequest, False),
        (401, Unauthenticated, False),
        (403, PermissionDenied, False),
        (404, NotFound, False),
        (408, ServerError, True),
        (409, Conflict, False),
        (410, NotFound, False),
        (412, Conflict, False),
        (418, BadRequest, False),
        (429, RateLimited, True),
        (500, ServerError, True),
        (501, ServerError, False),
        (503, ServerError, True),
        (507, ServerError, False),
    ],
)
def test_a_status_becomes_the_error_that_says_whether_to_try_again(
    status: int, expected: type[AsyncSDKError], retryable: bool
) -> None:
    error = response_error(status, "no", request_id="abc")
    assert type(error) is expected
    assert error.retryable is retryable
    assert error.status == status
    assert "abc" in str(error)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:pw@host:444/path/x?sig=SECRET#frag", "https://host:444/path/x?..."),
        ("http://host/path", "http://host/path"),
        ("http://[::1]:80/x?y", "http://[::1]:80/x?..."),
        ("relative/path?token=SECRET", "relative/path?..."),
        ("http://[broken", "<malformed URL>"),
        ("http://host:99999999/x?sig=SECRET", "<malformed URL>"),
    ],
)
def test_urls_lose_whatever_could_authorize_anybody(url: str, shown: str) -> None:
    assert redact_url(url) == shown


@pytest.mark.parametrize(
    ("number", "role", "expected"),
    [
        (errno.ENOENT, "source", SourceNotFound),
        (errno.EACCES, "source", SourceUnreadable),
        (errno.EISDIR, "source", SourceUnreadable),
        (errno.ENOSPC, "destination", DestinationFull),
        (errno.EDQUOT, "destination", DestinationFull),
        (errno.ENOENT, "destination", DestinationUnwritable),
        (errno.EISDIR, "destination", DestinationUnwritable),
    ],
)
def test_errors_of_the_operating_system_become_the_end_they_concern(number: int, role: str, expected: type) -> None:
    error = os_error(OSError(number, "reason"), role, source="a", destination="b")  # type: ignore[arg-type]
    assert type(error) is expected
    assert "reason" in str(error)


def test_the_code_is_the_class_and_the_word_is_the_server_s() -> None:
    """Whatever a server calls it: reports of two services count the same refusals under the same word."""
    error = response_error(403, "no", code="AccessDenied")
    assert (error.code, error.server_code) == ("permission_denied", "AccessDenied")
    assert (errors.server_code_of(error), errors.word_of(error)) == ("AccessDenied", "AccessDenied")
    plain = response_error(403, "no", code="permission_denied")  # says nothing that the class does not
    assert (plain.code, plain.server_code, errors.word_of(plain)) == ("permission_denied", None, "permission_denied")
    assert errors.server_code_of(SourceNotFound("gone")) is None
    assert errors.word_of(SourceNotFound("gone")) == "source_not_found"


@pytest.mark.parametrize("sent", ["x" * 100_000, "a\nb\x1b[31m", "Ünknown <tag>", "a b"])
def test_a_word_of_a_server_is_short_and_plain(sent: str) -> None:
    """It becomes a key of counts and an attribute of traces: no server chooses how long or how wild."""
    word = response_error(400, "no", code=sent).server_code
    assert word is not None
    assert len(word) == min(len(sent), 64)
    assert re.fullmatch(r"[A-Za-z0-9._:-]+", word)
