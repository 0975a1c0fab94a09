"""Replies in raw ASGI, and the one JSON shape of errors: ``{"error": {"code", "message", "request_id"}}``."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from random import getrandbits
from typing import Any

import orjson

from asyncsdk.errors import (
    AsyncSDKError,
    ConfigError,
    Conflict,
    DestinationFull,
    InvalidName,
    InvalidRow,
    ResponseError,
    UnsupportedOperation,
    word_of,
)

__all__ = [
    "FAILED",
    "InternalError",
    "MethodNotAllowed",
    "RangeNotSatisfiable",
    "Receive",
    "Reply",
    "Scope",
    "Send",
    "error_body",
    "error_reply",
    "error_status",
    "header",
    "request_id_from",
    "request_id_of",
    "send_error",
    "send_json",
    "send_reply",
]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_JSON = (b"content-type", b"application/json")

INTERNAL_ERROR = "internal_error"

# The path only: queries of object URLs are signatures.
FAILED = "request %s: %s %s failed"
"""What the log says of a request that failed by the server's fault: id, method, path."""


@dataclass(slots=True)
class Reply:
    """A whole reply.

    Attributes:
        status: HTTP status.
        headers: Names in lower case, without ``content-length``.
        body: What is sent, except to HEAD.
        size_bytes: Size of the body when it is not there (HEAD); None for that of *body*.
    """

    status: int
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    size_bytes: int | None = None

    def framed(self) -> list[tuple[bytes, bytes]]:
        """Return the headers with the one that tells the size, where there is one."""
        if self.status in {204, 304}:
            return self.headers
        size = len(self.body) if self.size_bytes is None else self.size_bytes
        return [*self.headers, (b"content-length", b"%d" % size)]


class InternalError(AsyncSDKError):
    """Something that nobody outside can do anything about; the log has it."""

    code = INTERNAL_ERROR


class MethodNotAllowed(ResponseError):
    """The path exists, for other methods (405)."""

    code = "method_not_allowed"
    default_status = 405

    def __init__(self, method: str, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(f"{method} is not possible here; {self.allowed} is")


class RangeNotSatisfiable(ResponseError):
    """The range lies outside the object (416)."""

    code = "range_not_satisfiable"
    default_status = 416

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        super().__init__(f"the object has {size_bytes} bytes; the range lies outside")


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return the value of a request's header, None when it is not there, the first when it is there twice."""
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None


def request_id_of(scope: Scope) -> str:
    """Return the id of a request: the client's, when it is short and plain, else a new one."""
    return request_id_from(header(scope, b"x-request-id"))


def request_id_from(given: bytes | None) -> str:
    """Return the id of a request whose header ``x-request-id`` is *given*; None when it has none."""
    return given.decode() if given is not None and _REQUEST_ID.fullmatch(given) else _new_id()


def _new_id() -> str:
    return f"{getrandbits(96):024x}"  # nobody has to fail at guessing it, and `make_id` takes 2 us


def error_status(error: AsyncSDKError) -> int:
    """Return the HTTP status for *error*; 500 for what is nobody's business outside."""
    match error:
        case ResponseError():
            return error.status if 400 <= error.status <= 599 else 500
        case InvalidName() | InvalidRow() | ConfigError():
            return 400
        case UnsupportedOperation():
            return 501
        case DestinationFull():
            return 507
    return 500


def error_body(error: AsyncSDKError, request_id: str) -> dict[str, Any]:
    """Return the JSON of *error*. What is not meant for clients (paths of this machine) stays here."""
    facts: dict[str, Any] = {"code": word_of(error), "request_id": request_id}
    match error:
        case ResponseError():
            facts["message"] = str(error.args[0])
        case DestinationFull():
            facts["message"] = "the server has no space left"
        case InvalidName() | InvalidRow() | ConfigError() | UnsupportedOperation():
            facts["message"] = str(error)
        case _:
            facts |= {"code": INTERNAL_ERROR, "message": "the server failed; its log says why, under the request id"}
    if isinstance(error, Conflict) and error.ids:
        facts["ids"] = list(error.ids)
    if isinstance(error, InvalidRow):
        facts["line"] = error.line
    return {"error": facts}


async def send_reply(
    send: Send,
    status: int,
    body: bytes = b"",
    headers: Iterable[tuple[bytes, bytes]] = (),
    *,
    size_bytes: int | None = None,
) -> None:
    """Send a whole reply. To HEAD the body is not sent; *size_bytes* tells its size when it is not even there."""
    reply = Reply(status, [*headers], body, size_bytes)
    await send({"type": "http.response.start", "status": status, "headers": reply.framed()})
    await send({"type": "http.response.body", "body": body})


async def send_json(send: Send, value: Mapping[str, Any], *, status: int = 200) -> None:
    """Send *value* as JSON."""
    await send_reply(send, status, orjson.dumps(value), [_JSON])


async def send_error(send: Send, scope: Scope, error: AsyncSDKError, request_id: str) -> None:
    """Send *error* in the one shape, with the headers that belong to it."""
    reply = error_reply(error, request_id, is_expecting=header(scope, b"expect") is not None)
    await send_reply(send, reply.status, reply.body, reply.headers)


def error_reply(error: AsyncSDKError, request_id: str, *, is_expecting: bool) -> Reply:
    """Return the reply that tells *error*, in the one shape and with the headers that belong to it.

    Args:
        error: What went wrong.
        request_id: Of the request.
        is_expecting: Whether the request has a header ``Expect``.
    """
    status = error_status(error)
    headers = [_JSON]
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="asyncsdk"'))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allowed.encode()))
    if isinstance(error, ResponseError) and error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, round(error.retry_after))))
    # Somebody who waits for "100 Continue" and gets this instead may send the body or not: only a new connection is
    # sure. And who was too slow is not waited for any more.
    if status == 408 or is_expecting:
        headers.append((b"connection", b"close"))
    if isinstance(error, RangeNotSatisfiable):
        headers.append((b"content-range", b"bytes */%d" % error.size_bytes))
    return Reply(status, headers, orjson.dumps(error_body(error, request_id)))
