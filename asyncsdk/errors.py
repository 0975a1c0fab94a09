"""Every error this package raises, and what may be done about it.

::

    AsyncSDKError
      ConfigError (also ValueError)
      UnsupportedOperation     platform, operation
      RequestError             no answer came
        ConnectionFailed  RequestTimeout (phase)
      ResponseError            status, server_code, request_id, body
        BadRequest  Unauthenticated  PermissionDenied  NotFound  Conflict
        RateLimited (retry_after)  ServerError  MalformedResponse  NoWorker
        JobEnded (job_id)        JobFailed (reason, error_code)  JobCancelled  JobLost
      TransferError            source, destination, part, bytes_done
        ChecksumMismatch (expected, actual)  ObjectChanged  SourceChanged  SourceNotFound  SourceUnreadable
        IncompleteTransfer (declared, received)  DestinationFull  DestinationUnwritable  DeadlineExceeded
        CircuitOpen  TooManyFailures
        VerificationFailed  WorkerCrashed (how, crashes)  CompletionUnknown
      LeftUndone               done
      RunnerUnavailable        kind
      InvalidArchive
      InvalidName              name
      InvalidImage             name
      InvalidModel
      InvalidRow               file, line
      StoreError               path
      JournalCorrupt           path
      MetricsNotSent           path, count, lost
      ForkedProcessError

``retryable`` is a property of the error; the one retry loop asks it. ``code`` is a stable word for reports and
scripts, one for each class; what a server calls it, in a word of its own, is ``server_code``. Messages never contain
the query of a URL or a token: every URL passes `redact_url` on its way in. Cancellation is never one of these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

__all__ = [
    "AsyncSDKError",
    "BadRequest",
    "BlockingCallInAsyncWarning",
    "ChecksumMismatch",
    "CircuitOpen",
    "CompletionUnknown",
    "ConfigError",
    "Conflict",
    "ConnectionFailed",
    "DeadlineExceeded",
    "DestinationFull",
    "DestinationUnwritable",
    "ForkedProcessError",
    "IncompleteTransfer",
    "InvalidArchive",
    "InvalidImage",
    "InvalidModel",
    "InvalidName",
    "InvalidRow",
    "JobCancelled",
    "JobEnded",
    "JobFailed",
    "JobLost",
    "JournalCorrupt",
    "LeftUndone",
    "MalformedResponse",
    "MetricsNotSent",
    "NoWorker",
    "NotFound",
    "ObjectChanged",
    "PermissionDenied",
    "RateLimited",
    "RequestError",
    "RequestTimeout",
    "ResponseError",
    "RunnerUnavailable",
    "ServerError",
    "SourceChanged",
    "SourceNotFound",
    "SourceUnreadable",
    "StoreError",
    "TooManyFailures",
    "TransferError",
    "Unauthenticated",
    "UnsupportedOperation",
    "VerificationFailed",
    "WorkerCrashed",
    "redact_url",
    "response_error",
    "server_code_of",
    "word_of",
]


_MAX_SERVER_CODE = 64
_NOT_IN_CODES = re.compile(r"[^A-Za-z0-9._:-]")


def redact_url(url: str) -> str:
    """Return *url* without what could authorize anybody: user info, query and fragment.

    Text that is not an absolute URL loses its query and fragment.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "<malformed URL>"
    if ":" in host:
        host = f"[{host}]"
    secret = "?..." if parts.query or parts.fragment else ""
    return f"{parts.scheme}://{host}{port}{parts.path}{secret}" if parts.scheme else f"{parts.path}{secret}"


class AsyncSDKError(Exception):
    """Base of every error of this package."""

    code: ClassVar[str] = "error"
    """Stable word for reports and scripts; never changes between releases."""

    retryable: bool = False
    """Whether the same operation may succeed when it is tried again."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Constructors take facts, not the message that Exception would give back to them.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(cls: type[AsyncSDKError], arguments: tuple[Any, ...], state: dict[str, Any]) -> AsyncSDKError:
    error = cls.__new__(cls, *arguments)
    error.args = arguments
    error.__dict__.update(state)
    return error


class ConfigError(AsyncSDKError, ValueError):
    """A setting or argument makes no sense; the message says which and what is allowed."""

    code = "config"


class UnsupportedOperation(AsyncSDKError):
    """The platform in use has no such operation."""

    code = "unsupported"

    def __init__(self, platform: str, operation: str) -> None:
        super().__init__(f"the platform {platform!r} has no operation {operation!r}")
        self.platform = platform
        self.operation = operation


# --- no answer came ------------------------------------------------------------------------------------------


class RequestError(AsyncSDKError):
    """A request got no answer.

    Attributes:
        was_connected: Whether there was a connection to the server, which broke or on which nothing came.
    """

    code = "request"
    retryable = True
    was_connected: bool = True


class ConnectionFailed(RequestError):
    """The connection could not be made, or broke before the answer was whole."""

    code = "connection"


class RequestTimeout(RequestError):
    """Nothing moved for longer than the timeout of one phase: ``connect``, ``send``, ``reply`` or ``slot``; or too
    little for as long as a minimum ``rate`` allows."""

    code = "timeout"

    def __init__(self, phase: str, timeout_seconds: float | None = None, url: str = "") -> None:
        where = f" ({redact_url(url)})" if url else ""
        limit = f" for {timeout_seconds:g} s" if timeout_seconds is not None else ""
        what = "less moved than the minimum rate asks for" if phase == "rate" else "nothing moved"
        super().__init__(f"{what}{limit} in phase {phase!r}{where}")
        self.phase = phase
        self.timeout_seconds = timeout_seconds
        self.was_connected = phase not in {"connect", "slot"}


# --- the answer says no --------------------------------------------------------------------------------------


class ResponseError(AsyncSDKError):
    """The server answered with a refusal.

    Attributes:
        status: HTTP status; 0 when a platform in this process answered.
        server_code: The server's own word, such as ``AccessDenied`` or ``lease_lost``, when it gave one other than
            ``code``: at most 64 characters, letters, digits and ``._:-``. Other servers have other words; ``code`` is
            the same everywhere.
        request_id: What to quote to whoever runs the server; empty when unknown.
        body: What the server said, decoded JSON or text, at most 64 KiB.
        retry_after: Seconds for which it asks not to be asked again; None: it said nothing of that.
    """

    code = "response"
    default_status: ClassVar[int] = 0

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        request_id: str = "",
        body: Any = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = self.default_status if status is None else status
        self.server_code = _cleaned(code) if code and code != type(self).code else None
        self.request_id = request_id
        self.body = body
        self.retry_after = retry_after

    def __str__(self) -> str:
        message = super().__str__()
        if self.retry_after:
            message += f"; the server asks for a pause of {self.retry_after:.0f} s"
        return f"{message} (request {self.request_id})" if self.request_id else message


def _cleaned(code: str) -> str:
    """Return a server's word as one that can stand in a report or be counted, whatever it sent in its place."""
    return _NOT_IN_CODES.sub("_", code[:_MAX_SERVER_CODE])


class BadRequest(ResponseError):
    """The request itself is wrong; sending it again gives the same answer (400, 411, 413, 414, 422)."""

    code = "bad_request"
    default_status = 400


class Unauthenticated(ResponseError):
    """No token, or one that the server does not know (401). ``asyncsdk login`` stores a good one."""

    code = "unauthenticated"
    default_status = 401


class PermissionDenied(ResponseError):
    """The token or the signature is good for something else (403)."""

    code = "permission_denied"
    default_status = 403


class NotFound(ResponseError):
    """There is no such thing, or not for this principal (404, 410)."""

    code = "not_found"
    default_status = 404


class Conflict(ResponseError):
    """The name is taken, is ambiguous, or a precondition failed (409, 412).

    Attributes:
        ids: Ids of the entities in the way, when the server names them.
    """

    code = "conflict"
    default_status = 409

    def __init__(self, message: str, *, ids: tuple[str, ...] = (), **facts: Any) -> None:
        super().__init__(message, **facts)
        self.ids = ids


class RateLimited(ResponseError):
    """The server asks for fewer requests (429, or 503 with ``SlowDown``)."""

    code = "rate_limited"
    default_status = 429
    retryable = True


class ServerError(ResponseError):
    """The server failed (5xx, 408)."""

    code = "server_error"
    default_status = 500
    retryable = True


class MalformedResponse(ResponseError):
    """The answer cannot be what it claims to be."""

    code = "malformed_response"
    retryable = True


class NoWorker(ResponseError):
    """No worker does jobs of this kind (409); the message says what to install or start."""

    code = "no_worker"
    default_status = 409


_BY_CODE: Mapping[str, type[ResponseError]] = {NoWorker.code: NoWorker}
"""Refusals whose word says more than their status."""

_BY_STATUS: Mapping[int, type[ResponseError]] = {
    401: Unauthenticated,
    403: PermissionDenied,
    404: NotFound,
    408: ServerError,
    409: Conflict,
    410: NotFound,
    412: Conflict,
    429: RateLimited,
}


def response_error(
    status: int,
    message: str,
    *,
    code: str | None = None,
    request_id: str = "",
    body: Any = None,
    retry_after: float | None = None,
    ids: tuple[str, ...] = (),
) -> ResponseError:
    """Return the typed error for an HTTP status that is a refusal."""
    cls = _BY_CODE.get(code or "") or _BY_STATUS.get(status)
    if cls is None:
        cls = ServerError if status >= 500 else BadRequest if status >= 400 else MalformedResponse
    facts: dict[str, Any] = {
        "status": status,
        "code": code,
        "request_id": request_id,
        "body": body,
        "retry_after": retry_after,
    }
    error = cls(message, ids=ids, **facts) if issubclass(cls, Conflict) else cls(message, **facts)
    if status in {501, 505, 507}:  # the server says that it cannot, not that it failed this time
        error.retryable = False
    return error


def server_code_of(error: BaseException | None) -> str | None:
    """Return what the server that refused called it (`ResponseError.server_code`); None of any other error."""
    return error.server_code if isinstance(error, ResponseError) else None


def word_of(error: AsyncSDKError) -> str:
    """Return the finest stable word for *error*: the server's when there is one. For what a platform tells clients."""
    return server_code_of(error) or error.code


# --- jobs ----------------------------------------------------------------------------------------------------


class JobEnded(ResponseError):
    """A job ended without a result.

    Attributes:
        job_id: The job.
    """

    code = "job_ended"

    def __init__(self, message: str, *, job_id: str, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.job_id = job_id


class JobFailed(JobEnded):
    """The work of a job failed.

    Attributes:
        reason: What the worker said.
        error_code: The stable word of the error that ended it.
    """

    code = "job_failed"

    def __init__(self, *, job_id: str, kind: str, reason: str, error_code: str) -> None:
        super().__init__(f"job {job_id} ({kind}) failed: {reason}", job_id=job_id)
        self.reason = reason
        self.error_code = error_code


class JobCancelled(JobEnded):
    """The job was cancelled."""

    code = "job_cancelled"

    def __init__(self, *, job_id: str, kind: str) -> None:
        super().__init__(f"job {job_id} ({kind}) was cancelled", job_id=job_id)


class JobLost(JobEnded):
    """Every worker that took the job went away, as often as it may be tried; ``job.retry()`` queues it again."""

    code = "job_lost"

    def __init__(self, *, job_id: str, kind: str, attempts: int) -> None:
        super().__init__(f"job {job_id} ({kind}) is lost: {attempts} workers went away with it", job_id=job_id)
        self.attempts = attempts


class RunnerUnavailable(AsyncSDKError):
    """Jobs of a kind cannot be done in this process; the message says what to install.

    Attributes:
        kind: The kind of job.
    """

    code = "runner_unavailable"

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"jobs of kind {kind!r} cannot be done here: {reason}")
        self.kind = kind
        self.reason = reason


# --- moving bytes --------------------------------------------------------------------------------------------


class TransferError(AsyncSDKError):
    """Bytes did not arrive as they should.

    Attributes:
        source: Where they came from: a path, ``<bytes>``, ``<stream>`` or a URL without its query.
        destination: Where they were going, in the same form.
        part: Number of the part, from 1; None when the object is not split.
        bytes_done: Bytes that had moved.
    """

    code = "transfer"

    def __init__(
        self,
        message: str,
        *,
        source: str = "",
        destination: str = "",
        part: int | None = None,
        bytes_done: int = 0,
    ) -> None:
        super().__init__(message)
        self.source = source
        self.destination = destination
        self.part = part
        self.bytes_done = bytes_done


class ChecksumMismatch(TransferError):
    """All bytes arrived and they are wrong."""

    code = "checksum_mismatch"
    retryable = True

    def __init__(self, expected: str, actual: str, **facts: Any) -> None:
        super().__init__(f"checksum differs: expected {expected}, got {actual}", **facts)
        self.expected = expected
        self.actual = actual


class ObjectChanged(TransferError):
    """The object on the server was replaced while it was being read; start the download again."""

    code = "object_changed"


class SourceChanged(TransferError):
    """The source changed size or time while it was being read."""

    code = "source_changed"


class SourceNotFound(TransferError):
    """There is no such source."""

    code = "source_not_found"


class SourceUnreadable(TransferError):
    """The source is there but cannot be read: a folder, a device, or no permission."""

    code = "source_unreadable"


class IncompleteTransfer(TransferError):
    """Fewer or more bytes came than were declared."""

    code = "incomplete"
    retryable = True

    def __init__(self, declared: int, received: int, **facts: Any) -> None:
        super().__init__(f"{declared} bytes were declared, {received} came", **facts)
        self.declared = declared
        self.received = received


class DestinationFull(TransferError):
    """No space or quota is left where the bytes should go; free some and run the same call again."""

    code = "destination_full"


class DestinationUnwritable(TransferError):
    """The destination cannot be written: a missing permission, a folder where a file is meant."""

    code = "destination_unwritable"


class CircuitOpen(TransferError):
    """The server has been out for too long (refuses everything, or cannot be reached); try again later.

    Ends a run in which nothing else went well meanwhile; what was not begun then has no outcome.
    """

    code = "circuit_open"
    retryable = True


class CompletionUnknown(TransferError):
    """Making an object of its parts was asked for and may have been heard; nobody can be asked whether it is there.

    Look at the object. If it is not there, or not the one, send it again: in another upload, for this one is gone.
    """

    code = "completion_unknown"


class TooManyFailures(TransferError):
    """So many objects of a run failed that it was ended (``max_failures``); the message has the first one's words.

    What was not begun has no outcome: the same call again goes on with it.
    """

    code = "too_many_failures"


class DeadlineExceeded(TransferError):
    """The time given to the whole operation is over."""

    code = "deadline"


class VerificationFailed(TransferError):
    """What was compared is not the same on both sides; the message counts the differences."""

    code = "verification_failed"


class WorkerCrashed(TransferError):
    """Worker processes that moved this object ended by themselves, again and again; it is not tried once more.

    Only with ``TransferConfig(processes=...)`` greater than 1. What kills a process once may be chance (the system was
    out of memory); the last time it had nothing else to do.

    Attributes:
        how: How the last one ended: its exit status or signal.
        crashes: How many ended.
    """

    code = "worker_crashed"

    def __init__(self, name: str, how: str, crashes: int, **facts: Any) -> None:
        super().__init__(f"{name}: {crashes} worker processes ended while they moved it, the last by {how}", **facts)
        self.how = how
        self.crashes = crashes


class LeftUndone(AsyncSDKError):
    """A run was drained before everything in its feed had an outcome; the same call again does what is left.

    Attributes:
        done: How many objects had an outcome.
    """

    code = "left_undone"

    def __init__(self, done: int) -> None:
        super().__init__(f"the run was drained after {done} objects, and something was left undone; run it again")
        self.done = done


# --- names, rows, local state --------------------------------------------------------------------------------


class InvalidName(AsyncSDKError, ValueError):
    """A name or path that cannot be stored; the message says what is wrong with it.

    Attributes:
        name: The name as it was given, at most 200 characters of it.
    """

    code = "invalid_name"

    def __init__(self, name: str, reason: str) -> None:
        shown = name if len(name) <= 200 else f"{name[:200]}..."
        super().__init__(f"{shown!r} {reason}")
        self.name = shown
        self.reason = reason


class InvalidImage(AsyncSDKError, ValueError):
    """Bytes that are no image, are damaged, or hold more pixels than are allowed.

    Attributes:
        name: Name of the image.
        reason: What is wrong with it.
    """

    code = "invalid_image"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name} {reason}")
        self.name = name
        self.reason = reason


class InvalidArchive(AsyncSDKError, ValueError):
    """A file that is no zip archive, is damaged, or holds more than is allowed; the message says which."""

    code = "invalid_archive"


class InvalidModel(AsyncSDKError, ValueError):
    """Weights that cannot be run or converted; the message says what they are, or what is wrong with them."""

    code = "invalid_model"


class InvalidRow(AsyncSDKError, ValueError):
    """A row that cannot be used.

    Attributes:
        file: The file it stands in; empty for rows from memory.
        line: Its line, or its position among the rows given, from 1.
        reason: What is wrong.
    """

    code = "invalid_row"

    def __init__(self, reason: str, *, line: int, file: str = "") -> None:
        super().__init__(f"{file or 'rows'}, line {line}: {reason}")
        self.file = file
        self.line = line
        self.reason = reason


class StoreError(AsyncSDKError):
    """The data folder of an embedded platform cannot be used; nothing in it was changed.

    Attributes:
        path: The folder or file concerned.
    """

    code = "store"

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason


class JournalCorrupt(AsyncSDKError):
    """A journal cannot be read.

    Attributes:
        path: The journal's file.
    """

    code = "journal_corrupt"

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason


class MetricsNotSent(AsyncSDKError):
    """A block of batched metrics ended, and some of them could not be sent; they are kept in a file.

    ``await model.metrics.send_kept()`` sends them later.

    Attributes:
        path: The file; None when none is kept.
        count: How many values it holds.
        lost: How many are gone: memory was full, and the file could not be written.
    """

    code = "metrics_not_sent"

    def __init__(self, count: int, path: str | Path | None, *, lost: int = 0, reason: str = "") -> None:
        kept = f"{count} metrics were not sent" + (f" and are kept in {path}" if path is not None else "")
        gone = f"; {lost} are lost, because no file could be written" if lost else ""
        super().__init__(f"{kept}{gone}{f' ({reason})' if reason else ''}; send them with: model.metrics.send_kept()")
        self.count = count
        self.path = None if path is None else str(path)
        self.lost = lost


class ForkedProcessError(AsyncSDKError):
    """A call that was under way in the parent process when this one was forked; make a new call here."""

    code = "forked"


class BlockingCallInAsyncWarning(UserWarning):
    """A blocking call was made on a thread that runs an event loop; use the async twin named in the message."""
