"""The platform behind a URL: an asyncsdk server spoken to over HTTP."""

from __future__ import annotations

from asyncio import sleep, to_thread
from collections.abc import Mapping
from functools import cache
from time import monotonic
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx
import orjson
from pydantic import TypeAdapter, ValidationError

from asyncsdk._version import __version__
from asyncsdk.errors import (
    AsyncSDKError,
    BadRequest,
    ConfigError,
    MalformedResponse,
    NotFound,
    RequestError,
    ResponseError,
    redact_url,
    response_error,
    server_code_of,
)
from asyncsdk.platforms.requests import MAX_ATTEMPTS, is_final, may_be_done, send_request, wait_seconds
from asyncsdk.protocol.base import Message, all_messages, query_text
from asyncsdk.protocol.uploads import CHECKING_SECONDS, STILL_CHECKING
from asyncsdk.transport.retry_after import parse_retry_after
from asyncsdk.transport.tls import TlsConfig, shared_context

__all__ = ["RestPlatform"]

R = TypeVar("R")

API_PREFIX = "/v1"
LARGE_BYTES = 256 * 1024
"""Replies larger than this are validated in a thread: some milliseconds in the loop would hold up every transfer."""

_JSON = {"Content-Type": "application/json"}
_MAX_KEPT_BODY = 64 * 1024


class RestPlatform:
    """Sends messages to an asyncsdk server.

    The token goes to that server only: redirects are not followed. What failed in a way that may pass (no connection,
    5xx, 429) is repeated up to three times, with waits that grow and are random ("full jitter") or are what the server
    asks for (what asks for more than a minute fails at once); creating without an id of one's own is not repeated,
    because the first call may have been heard. When a delete is repeated after an attempt that may have been heard,
    finding nothing any more is success. A commit whose bytes the server still reads (``still_checking``) is repeated
    for as long as it does, a day at most.

    Args:
        url: Of the server, e.g. ``http://127.0.0.1:8750``.
        token: Whose the calls are.
        timeout: Longest single wait, in seconds: for a connection, or for bytes to move. A commit of 1,000 large
            objects may take that long to become durable.
        tls: Whom to trust behind ``https``; None: what the system trusts.
        transport: Of httpx, in place of the network; for tests.
    """

    name = "rest"

    def __init__(
        self,
        url: str,
        token: str,
        *,
        timeout: float = 60.0,
        tls: TlsConfig | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
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
            verify=shared_context(parts.scheme, tls or TlsConfig()),
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
        is_maybe_done = False
        checked_until = monotonic() + CHECKING_SECONDS
        while True:
            try:
                response = await self._request(route.method, path, params, content)
                return await self._reply(type(message), response)
            except (RequestError, ResponseError) as error:
                if is_maybe_done and isinstance(error, NotFound) and route.method == "DELETE":
                    return _validate_empty(type(message))
                is_checking = server_code_of(error) == STILL_CHECKING and monotonic() < checked_until
                if not is_checking and is_final(error, attempt, attempts):
                    raise
                is_maybe_done = is_maybe_done or may_be_done(error)
                await sleep(wait_seconds(error, attempt))
            if not is_checking:  # that is no failure: the server tells when it is through, or cannot go on
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
        url = f"{self._url}{API_PREFIX}{path}"
        headers = _JSON if content is not None else None
        hint = "is the server running? start it with: asyncsdk serve"
        return await send_request(
            self._client, method, url, params=params, content=content, headers=headers, no_connection=hint
        )

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
        retry_after=parse_retry_after(response.headers),
        ids=tuple(map(str, ids)) if isinstance(ids, list) else (),
    )
