"""The platform behind a URL: an asyncsdk server spoken to over HTTP."""

from __future__ import annotations

import random
from asyncio import sleep, to_thread
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

import httpx
import orjson
from pydantic import TypeAdapter, ValidationError

from asyncsdk._version import __version__
from asyncsdk.errors import (
    AsyncSDKError,
    BadRequest,
    ConfigError,
    ConnectionFailed,
    MalformedResponse,
    NotFound,
    RequestError,
    RequestTimeout,
    ResponseError,
    ServerError,
    redact_url,
    response_error,
)
from asyncsdk.protocol.base import Message, all_messages, query_text

__all__ = ["RestPlatform"]

R = TypeVar("R")

API_PREFIX = "/v1"
MAX_ATTEMPTS = 4
WAIT_INITIAL_SECONDS = 0.2
WAIT_MAX_SECONDS = 5.0
RETRY_AFTER_MAX_SECONDS = 60.0
LARGE_BYTES = 256 * 1024
"""Replies larger than this are validated in a thread: some milliseconds in the loop would hold up every transfer."""

_JSON = {"Content-Type": "application/json"}
_MAX_KEPT_BODY = 64 * 1024


class RestPlatform:
    """Sends messages to an asyncsdk server.

    The token goes to that server only: redirects are not followed. What failed in a way that may pass (no connection,
    5xx, 429) is repeated up to three times, with waits that grow and are random ("full jitter") or are what the server
    asks for; creating without an id of one's own is not repeated, because the first call may have been heard. When a
    delete is repeated after an attempt that may have been heard, finding nothing any more is success.

    Args:
        url: Of the server, e.g. ``http://127.0.0.1:8750``.
        token: Whose the calls are.
        timeout: Longest single wait, in seconds: for a connection, or for bytes to move. A commit of 1,000 large
            objects may take that long to become durable.
        transport: Of httpx, in place of the network; for tests.
    """

    name = "rest"

    def __init__(
        self, url: str, token: str, *, timeout: float = 60.0, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
            raise ConfigError(f"the URL of a server looks like http://host:port, not {redact_url(url)!r}")
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise ConfigError("the token must be one word of printable ASCII; log in again")
        self._url = url.rstrip("/")
        self._client = httpx.AsyncClient(
            headers={
                "Authorization": f"Bearer {token}",
                "User-Agent": f"asyncsdk/{__version__}",
                "Accept": "application/json",
            },
            timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0)),
            limits=httpx.Limits(max_connections=16, max_keepalive_connections=16, keepalive_expiry=30.0),
            follow_redirects=False,
            transport=transport,
        )

    def __repr__(self) -> str:
        return f"RestPlatform({redact_url(self._url)!r})"

    async def send(self, message: Message[R]) -> R:
        """Return the server's reply; see `asyncsdk.platforms.base.Platform.send`."""
        path, values = message.split()
        route = message.route
        content = _dump(values) if route.has_body else None
        params = {} if route.has_body else {name: query_text(value) for name, value in values.items()}
        attempts = MAX_ATTEMPTS if message.is_repeatable else 1
        attempt = 1
        may_be_done = False
        while True:
            try:
                response = await self._request(route.method, path, params, content)
                return await self._reply(type(message), response)
            except (RequestError, ResponseError) as error:
                if may_be_done and isinstance(error, NotFound) and route.method == "DELETE":
                    return _validate_empty(type(message))
                if not error.retryable or attempt >= attempts:
                    raise
                may_be_done = may_be_done or _may_be_done(error)
                await sleep(_wait_seconds(error, attempt))
            attempt += 1

    def supports(self, message_type: type[Message[Any]]) -> bool:
        """Whether the platform has the operation: it has them all."""
        return message_type in set(all_messages())

    async def aclose(self) -> None:
        """Close the connections. Calling it again does nothing."""
        await self._client.aclose()

    async def _request(
        self, method: str, path: str, params: Mapping[str, str], content: bytes | None
    ) -> httpx.Response:
        url = httpx.URL(f"{self._url}{API_PREFIX}{path}")
        headers = _JSON if content is not None else None
        # httpx writes every URL to its log; given apart from it, the query stays out of there.
        extensions = {"target": url.raw_path + b"?" + urlencode(params).encode()} if params else None
        try:
            return await self._client.request(method, url, content=content, headers=headers, extensions=extensions)
        except httpx.ConnectTimeout as error:
            raise RequestTimeout("connect", self._client.timeout.connect, str(url)) from error
        except httpx.PoolTimeout as error:
            raise RequestTimeout("slot", self._client.timeout.pool, str(url)) from error
        except httpx.WriteTimeout as error:
            raise RequestTimeout("send", self._client.timeout.write, str(url)) from error
        except httpx.TimeoutException as error:
            raise RequestTimeout("reply", self._client.timeout.read, str(url)) from error
        except httpx.ConnectError as error:
            raise ConnectionFailed(
                f"no connection to {redact_url(self._url)} ({_reason(error)}); is the server running? "
                "start it with: asyncsdk serve"
            ) from error
        except httpx.HTTPError as error:
            raise ConnectionFailed(f"the connection to {redact_url(self._url)} broke: {_reason(error)}") from error

    async def _reply(self, message_type: type[Message[R]], response: httpx.Response) -> R:
        if not response.is_success:
            raise _refusal(response)
        content = response.content
        if len(content) > LARGE_BYTES:
            return await to_thread(_validate, message_type, content, response)
        return _validate(message_type, content, response)


def _dump(values: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(values)
    except orjson.JSONEncodeError as error:  # integers over 64 bits, nesting over 254 levels
        raise BadRequest(f"the message cannot be sent as JSON: {error}") from None  # it holds the values


def _may_be_done(error: RequestError | ResponseError) -> bool:
    """Whether the server may have done what was asked although *error* is all that is known of it."""
    if isinstance(error, RequestError):
        return not isinstance(error.__cause__, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
    return isinstance(error, (ServerError, MalformedResponse))


def _validate_empty(message_type: type[Message[R]]) -> R:
    reply: R = _adapter(message_type).validate_python({})
    return reply


def _validate(message_type: type[Message[R]], content: bytes, response: httpx.Response) -> R:
    try:
        reply: R = _adapter(message_type).validate_python(orjson.loads(content))
    except (ValidationError, ValueError) as error:
        where = ""
        if isinstance(error, ValidationError):
            first = error.errors(include_input=False, include_url=False)[0]
            where = f" ({'.'.join(map(str, first['loc']))}: {first['msg']})"
        raise MalformedResponse(
            f"the answer to {message_type.__name__} cannot be read{where}; is this an asyncsdk server of this release?",
            status=response.status_code,
            request_id=response.headers.get("x-request-id", ""),
        ) from None  # the original would quote signed URLs
    return reply


@cache
def _adapter(message_type: type[Message[Any]]) -> TypeAdapter[Any]:
    return TypeAdapter(message_type.reply_type)


def _refusal(response: httpx.Response) -> AsyncSDKError:
    """Return the typed error of a reply that is none."""
    request_id = response.headers.get("x-request-id", "")
    facts: dict[str, Any] = {}
    body: Any
    try:
        body = orjson.loads(response.content[:_MAX_KEPT_BODY])
    except orjson.JSONDecodeError:
        body = response.text[:_MAX_KEPT_BODY]
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        facts = body["error"]
    message = facts.get("message")
    if not isinstance(message, str):
        hint = "; redirects are not followed, give the URL they lead to" if response.is_redirect else ""
        message = f"the server answered {response.status_code} {response.reason_phrase}{hint}".rstrip()
    ids = facts.get("ids")
    return response_error(
        response.status_code,
        message,
        code=facts["code"] if isinstance(facts.get("code"), str) else None,
        request_id=str(facts.get("request_id") or request_id),
        body=body,
        retry_after=_retry_after(response.headers.get("retry-after")),
        ids=tuple(map(str, ids)) if isinstance(ids, list) else (),
    )


def _retry_after(text: str | None) -> float | None:
    """Return the seconds of a Retry-After header; a date is passed over, the growing waits serve as well."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else None


def _wait_seconds(error: RequestError | ResponseError, attempt: int) -> float:
    asked = error.retry_after if isinstance(error, ResponseError) else None
    if asked is not None:
        return min(asked, RETRY_AFTER_MAX_SECONDS)
    return random.uniform(0, min(WAIT_MAX_SECONDS, WAIT_INITIAL_SECONDS * 2 ** (attempt - 1)))  # noqa: S311


def _reason(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__
