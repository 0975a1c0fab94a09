"""Faults by name, and what must become of a transfer that meets each: once, or for good."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest

from asyncsdk.errors import (
    AsyncSDKError,
    BadRequest,
    ChecksumMismatch,
    Conflict,
    IncompleteTransfer,
    MalformedResponse,
    NotFound,
    PermissionDenied,
    RateLimited,
    RequestError,
    RequestTimeout,
    ResponseError,
    ServerError,
    Unauthenticated,
)
from tests.support.faults.breaks import Flip, Lost, Overlong, Raw, Reset, SlowFirstByte, Stall, Truncate
from tests.support.faults.fault import Fault
from tests.support.faults.refusals import Expired, Interim, Refuse, WrongDigest

__all__ = ["ANY", "DOWN", "FINAL", "SILENT", "UP", "Passing", "silence_is_slow"]

_SLOW_DOWN = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


@dataclass(frozen=True)
class Passing:
    """A fault that goes away.

    Attributes:
        fault: What goes wrong.
        error: What the transfer ends with when it never goes away.
        attempts: How many it takes when it goes wrong once; 1: it does no harm at all.
    """

    fault: Fault
    error: type[AsyncSDKError] | tuple[type[AsyncSDKError], ...]
    attempts: int = 2


ANY: dict[str, Passing] = {
    "500": Passing(Refuse(500), ServerError),
    "502": Passing(Refuse(502), ServerError),
    "503": Passing(Refuse(503), ServerError),
    "503 with Retry-After": Passing(Refuse(503, retry_after=0), ServerError),
    "503 with a date in Retry-After": Passing(Refuse(503, retry_after="date:0"), ServerError),
    "503 with nonsense in Retry-After": Passing(Refuse(503, retry_after="soon"), ServerError),
    "503 SlowDown": Passing(Refuse(503, body=_SLOW_DOWN), RateLimited),
    "504": Passing(Refuse(504), ServerError),
    "408": Passing(Refuse(408), ServerError),
    "429": Passing(Refuse(429), RateLimited),
    "429 with Retry-After": Passing(Refuse(429, retry_after=0), RateLimited),
    "reply lost, reset": Passing(Lost("reset"), RequestError),
    "reply lost, closed": Passing(Lost("close"), RequestError),
    "no first byte": Passing(SlowFirstByte(None), RequestTimeout),
    "slow first byte": Passing(SlowFirstByte(0.2), RequestTimeout, attempts=1),
    "wrong digest stated": Passing(WrongDigest(), ChecksumMismatch),
    "no HTTP": Passing(Raw("220 ready\r\n\r\n"), (MalformedResponse, RequestError)),
    "two lengths": Passing(Raw(), (MalformedResponse, RequestError)),
    "half a head": Passing(Raw("HTTP/1.1 200 OK\r\nContent-"), (MalformedResponse, RequestError)),
    "interim replies": Passing(Interim(), MalformedResponse, attempts=1),
}
"""Of every request. Clocks that are wrong matter only to URLs that end: `tests.faults.test_time`."""

UP: dict[str, Passing] = {
    **ANY,
    "reset before the body": Passing(Reset(0, "up"), RequestError),
    "reset in the body": Passing(Reset(-1, "up"), RequestError),
    "closed in the body": Passing(Reset(-1, "up", "close"), RequestError),
    "503 before the body": Passing(Refuse(503, early=True), ServerError),
    "429 before the body": Passing(Refuse(429, retry_after=0, early=True), RateLimited),
    "bit flipped": Passing(Flip("up"), ChecksumMismatch),
    "reset in the head of the reply": Passing(Raw("HTTP/1.1 200 OK\r\n"), (RequestError, MalformedResponse)),
}
"""Of uploads."""

DOWN: dict[str, Passing] = {
    **ANY,
    "reset before the body": Passing(Reset(0), (RequestError, IncompleteTransfer)),
    "reset in the body": Passing(Reset(-1), (RequestError, IncompleteTransfer)),
    "closed in the body": Passing(Reset(-1, how="close"), (RequestError, IncompleteTransfer)),
    "stalled in the body": Passing(Stall(100), RequestTimeout),
    "stalled before the body": Passing(Stall(0), RequestTimeout),
    "truncated": Passing(Truncate(-1), (RequestError, IncompleteTransfer)),
    "one byte short": Passing(Truncate(1), (RequestError, IncompleteTransfer)),
    "bit flipped": Passing(Flip("down"), ChecksumMismatch),
    "first bit flipped": Passing(Flip("down", 0), ChecksumMismatch),
    "bytes beyond the declared length": Passing(Overlong(7, declared=False), MalformedResponse, attempts=1),
}
"""Of downloads."""

FINAL: dict[str, tuple[Fault, type[AsyncSDKError]]] = {
    "400": (Refuse(400), BadRequest),
    "401": (Refuse(401), Unauthenticated),
    "403": (Refuse(403), PermissionDenied),
    "404": (Refuse(404), NotFound),
    "405": (Refuse(405), ResponseError),
    "409": (Refuse(409), Conflict),
    "410": (Refuse(410), NotFound),
    "411": (Refuse(411), BadRequest),
    "413": (Refuse(413), BadRequest),
    "501": (Refuse(501), ServerError),
    "507": (Refuse(507), ServerError),
    "302 to nowhere": (Refuse(302), MalformedResponse),
    "403 before the body": (Refuse(403, early=True), PermissionDenied),
    "expired, S3": (Expired("s3"), PermissionDenied),
    "expired, GCS": (Expired("gcs"), BadRequest),
    "expired, Azure": (Expired("azure"), PermissionDenied),
    "expired, own": (Expired("own"), PermissionDenied),
}
"""Refusals that trying again does not change; URLs that nobody can renew are among them."""

SILENT = frozenset({"no first byte", "stalled in the body", "stalled before the body"})
"""They cost a timeout each time."""


def silence_is_slow(names: Iterable[str]) -> list[object]:
    """Return *names* as parameters of a test, those that wait for timeouts only in ``make test-all``."""
    return [pytest.param(name, marks=[pytest.mark.slow] if name in SILENT else []) for name in sorted(names)]
