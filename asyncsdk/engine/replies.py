"""What a reply says: refusals as typed errors, ranges, and the little XML of multipart uploads."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape, unescape
from typing import Any
from urllib.parse import unquote, urlsplit

import orjson

from asyncsdk.errors import (
    AsyncSDKError,
    MalformedResponse,
    RateLimited,
    ResponseError,
    ServerError,
    redact_url,
    response_error,
)
from asyncsdk.transport.base import Reply, ReplyHead, Request
from asyncsdk.transport.retry_after import parse_retry_after

__all__ = [
    "Redirected",
    "complete_body",
    "content_range",
    "embedded_refusal",
    "is_partial",
    "not_followed",
    "refusal",
    "xml_text",
]

_REQUEST_IDS = ("x-request-id", "x-amz-request-id", "x-guploader-uploadid", "x-ms-request-id")
_SLOW_DOWN = {"SlowDown", "TooManyRequests", "RequestLimitExceeded", "ServerBusy"}
_SERVER_FAULTS = {"InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted", "Busy"}
_DAMAGED = {
    *("BadDigest", "bad_digest", "IncompleteBody", "incomplete"),
    *("Md5Mismatch", "Crc64Mismatch", "XAmzContentChecksumMismatch"),
}
"""What arrived is not what was sent, says the server with a 400: sent again, it arrives whole."""

_SUPERSEDED = "superseded"
"""Our platform's word for a part that a later attempt at it took over: if that fails in turn, this one is needed."""

_QUOTED = ("CanonicalRequest", "CanonicalRequestBytes", "StringToSign", "StringToSignBytes", "SignatureProvided")
"""Elements in which S3 and Azure quote what was signed, some of it as hexadecimal digits."""

_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,19})-([0-9]{1,19})|\*)/([0-9]{1,19}|\*)", re.IGNORECASE)


@dataclass(slots=True)
class Redirected(Reply):
    """A reply from where redirects led.

    Attributes:
        asked: Every request that was sent for it, the first one first.
    """

    asked: tuple[Request, ...] = ()


def not_followed(reply: Reply, request: Request, why: str) -> ResponseError:
    """Return the error for a redirect that is not followed; trying again does not help.

    Args:
        request: What was asked at first.
        why: The end of its message.
    """
    location = reply.headers.get("location", "")
    elsewhere = f" to {redact_url(location)}" if location else ""
    error = MalformedResponse(
        f"{request.method} {redact_url(request.url)}: redirected{elsewhere} (status {reply.status}), not followed: "
        f"{why}",
        status=reply.status,
        request_id=_request_id(reply),
    )
    error.retryable = False
    return error


def refusal(reply: Reply, method: str, url: str, headers: Mapping[str, str]) -> ResponseError:
    """Return the typed error for a reply whose status is no success.

    Args:
        url: What was asked; like the values of *headers*, its query never reaches the error.
        headers: What was sent with it.
    """
    where = f"{method} {redact_url(url)}{_way(reply)}"
    code, said = _read_body(reply)
    said = _without_secrets(said, url, headers, reply)
    request_id = _request_id(reply)
    if 300 <= reply.status < 400:
        error: ResponseError = MalformedResponse(
            f"{where}: status {reply.status} is neither what was asked for nor a redirect that can be followed",
            status=reply.status,
            request_id=request_id,
        )
        error.retryable = False
        return error
    message = f"{where}: status {reply.status}" + (f", {said}" if said else "")
    facts: dict[str, Any] = {
        "code": _word(code, url, headers, reply),
        "request_id": request_id,
        "body": _without_secrets(reply.body.decode("utf-8", "replace"), url, headers, reply),
        "retry_after": parse_retry_after(reply.headers),
    }
    if reply.status == 503 and code in _SLOW_DOWN:
        return RateLimited(message, status=503, **facts)
    error = response_error(reply.status, message, **facts)
    if reply.status == 400 and (code in _DAMAGED or code == "RequestTimeout"):
        error.retryable = True
    if reply.status == 409 and code == _SUPERSEDED:
        error.retryable = True
    return error


def embedded_refusal(reply: Reply, method: str, url: str, headers: Mapping[str, str]) -> AsyncSDKError | None:
    """Return the error that a success holds in its body: S3 sends 200 before it knows how completing ends."""
    if "Error" not in _root_names(reply.body):
        return None
    code, said = _read_body(reply)
    said = _without_secrets(said, url, headers, reply)
    where = f"{method} {redact_url(url)}{_way(reply)}"
    message = f"{where}: status {reply.status} with an error in its body, {said or 'unexplained'}"
    body = _without_secrets(reply.body.decode("utf-8", "replace"), url, headers, reply)
    word = _word(code, url, headers, reply)
    if code in _SLOW_DOWN:
        return RateLimited(message, status=reply.status, code=word, body=body)
    if code is None or code in _SERVER_FAULTS:
        return ServerError(message, status=reply.status, code=word, body=body)
    return response_error(400, message, code=word, body=body)


def content_range(headers: Mapping[str, str]) -> tuple[int, int, int | None] | None:
    """Return ``(start, stop, total)`` of a ``Content-Range``, *stop* exclusive; None when it has none or a wrong one.

    ``bytes */N`` gives ``(0, 0, N)``.

    Source: RFC 9110 section 14.4.
    """
    match = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    if match is None:
        return None
    total = None if match[3] == "*" else int(match[3])
    if match[1] is None:
        return 0, 0, total
    start, stop = int(match[1]), int(match[2]) + 1
    if stop <= start or (total is not None and stop > total):
        return None
    return start, stop, total


def is_partial(reply: Reply | ReplyHead) -> bool:
    """Whether a reply brings a range: a 206, or another success that says so by ``Content-Range``.

    Some services answer a range with 200 (rclone's S3 does): taken for the object, its first bytes would pass for all.
    """
    return reply.status == 206 or (reply.status in {200, 203} and "content-range" in reply.headers)


def complete_body(parts: Sequence[tuple[int, str, str | None]]) -> bytes:
    """Return the XML that completes a multipart upload from (number, ETag, base64 crc32c or None) of each part.

    Source: Amazon S3 API reference, CompleteMultipartUpload.
    """
    lines = ["<CompleteMultipartUpload>"]
    for number, etag, checksum in parts:
        shown = "" if checksum is None else f"<ChecksumCRC32C>{checksum}</ChecksumCRC32C>"
        lines.append(f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(etag, quote=True)}</ETag>{shown}</Part>")
    lines.append("</CompleteMultipartUpload>")
    return "\n".join(lines).encode()


def xml_text(body: bytes, name: str) -> str | None:
    """Return the text of the first element *name*. No XML parser: entities of a stranger are never expanded."""
    found = re.search(rf"<{name}>\s*(.*?)\s*</{name}>", body.decode("utf-8", "replace"), re.DOTALL)
    return unescape(found[1]) if found else None


def _request_id(reply: Reply) -> str:
    return next((reply.headers[name] for name in _REQUEST_IDS if name in reply.headers), "")


def _way(reply: Reply) -> str:
    """Return where redirects led, as part of a sentence; empty without any."""
    return f", redirected to {redact_url(reply.asked[-1].url)}" if isinstance(reply, Redirected) else ""


def _without_secrets(text: str, url: str, headers: Mapping[str, str], reply: Reply) -> str:
    """Take out what a server quotes of the query and headers it refused (S3 repeats signature and key id)."""
    for name in _QUOTED:
        text = re.sub(rf"(<{name}>).*?(</{name}>|$)", r"\1...\2", text, flags=re.DOTALL)
    urls = [url]
    if isinstance(reply, Redirected):  # the headers of later requests are among those of the first
        urls += [request.url for request in reply.asked]
    values = [raw.partition("=")[2] for each in urls for raw in urlsplit(each).query.split("&")]
    for value in headers.values():
        values += [value, value.rpartition(" ")[2]]  # "Bearer X": the token may be quoted alone
    forms: set[str] = set()
    for value in values:
        plain = unquote(value)
        forms |= {value, escape(value), plain, plain.replace("&", "&amp;"), escape(plain)}
    for secret in sorted(forms, key=len, reverse=True):  # a short one may be part of a long one
        if len(secret) >= 8:
            text = text.replace(secret, "...")
    return text


def _word(code: str | None, url: str, headers: Mapping[str, str], reply: Reply) -> str | None:
    return None if code is None else _without_secrets(code, url, headers, reply)


def _root_names(body: bytes) -> list[str]:
    text = re.sub(r"<\?.*?\?>|<!.*?>", "", body.decode("utf-8", "replace"), flags=re.DOTALL)
    return re.findall(r"^\s*<([A-Za-z0-9]+)[\s>/]", text)


def _read_body(reply: Reply) -> tuple[str | None, str]:
    """Return the server's stable word and sentence: JSON ``{"error": {"code", "message"}}``, or XML, or plain text.

    Azure says its word in a header too, which is all there is of it where a reply has no body.
    """
    code, said = _read_text(reply.body.removeprefix(b"\xef\xbb\xbf").strip(), reply)
    return code or reply.headers.get("x-ms-error-code"), said


def _read_text(body: bytes, reply: Reply) -> tuple[str | None, str]:
    if body.startswith(b"{"):
        try:
            return _read_json(orjson.loads(body))
        except orjson.JSONDecodeError:
            return None, ""
    if body.startswith(b"<"):
        code, message, details = (xml_text(body, name) for name in ("Code", "Message", "Details"))
        return code, ": ".join(word for word in (code, message, details) if word)
    if reply.headers.get("content-type", "").startswith("text/plain"):
        return None, body[:200].decode("utf-8", "replace")
    return None, ""


def _read_json(said: dict[str, Any]) -> tuple[str | None, str]:
    error = said.get("error", said)
    if not isinstance(error, dict):
        return None, error if isinstance(error, str) else ""
    code, message = error.get("code"), error.get("message")
    if not isinstance(code, str):  # Google's code is the status; its word is the reason of the first error
        listed = error.get("errors")
        first = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else error
        code = first.get("reason") or error.get("status")
    return (code if isinstance(code, str) else None), (message if isinstance(message, str) else "")
